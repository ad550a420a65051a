"""What exponents depend on: a forest plot of every setting and draw, resolved beside paper."""

import math
from collections.abc import Iterator

import numpy as np

from ntklens.analysis.groups import ARM
from ntklens.analysis.sensitivity import Column, Sensitivity, Setting, compare_settings, rank_draw
from ntklens.analysis.settings import is_full_batch, read_configs
from ntklens.analysis.study import Study
from ntklens.recording.observables import OBSERVABLES
from ntklens.report.chart import Chart, Forest, ForestColumn, make_keys
from ntklens.report.charts.laws import make_stem
from ntklens.report.charts.setup import describe_setup, explain_weighted
from ntklens.report.style import SETTING, find_symbol, label_axis, label_group, label_setting

ALL = "all settings"


def chart_sensitivity(study: Study) -> Iterator[Chart]:
    """Chart the exponents of each axis under every setting that was swept beside it, with their intervals."""
    for found in compare_settings(study.data, study.observables, study.groups, study.laws, study.claims):
        arms = _find_arms(found)
        full = {g.label: is_full_batch(read_configs(study.data, g.runs)) for g in study.groups if g.axis == found.axis}
        names = [_name_row(setting, arms, full.get(setting.group, False)) for setting in found.settings]
        named = dict.fromkeys(names)
        labels = list(dict.fromkeys(label for label, _ in named))
        rows = sorted(named, key=lambda row: (labels.index(row[0]), rank_draw(row[1])))  # arms may have other draws
        places = {row: number for number, row in enumerate(rows)}
        shape = (len(rows), len(found.columns))
        values = {arm: np.full((*shape, 3), np.nan) for arm in arms or [ALL]}
        opposite, unsure = ({arm: np.zeros(shape, bool) for arm in arms or [ALL]} for _ in range(2))
        for setting, name in zip(found.settings, names, strict=True):
            key, place = _read_arm(setting.group) if arms else ALL, places[name]
            values[key][place] = [(one.value, one.low, one.high) for one in setting.exponents]
            opposite[key][place], unsure[key][place] = setting.opposite, setting.unsure
        forest = Forest(
            [draw or label for label, draw in rows],
            [bool(draw) for _, draw in rows],
            [_describe_column(column) for column in found.columns],
            values,
            unsure,
            opposite,
        )
        symbol = find_symbol(found.axis)
        keys = make_keys(((arm, label_setting(ARM, arm)) for arm in arms or [ALL]), ordered=False)
        yield Chart(
            "sensitivity", f"along the {label_axis(found.axis)}", f"sensitivity-{make_stem(found.axis)}",
            "What the exponents depend on", _write_caption(study, found, symbol), keys, label_axis(ARM),
            forest=forest,
        )  # fmt: skip


def _write_caption(study: Study, found: Sensitivity, symbol: str) -> str:
    words = [
        f"Exponent α of y ∝ {symbol}^α with its 95 % interval, one row for each setting"
        f"{', and below it for each draw alone' if any(setting.draw for setting in found.settings) else ''}."
    ]
    papers = dict.fromkeys(column.paper for column in found.columns if column.paper)
    if papers:
        words.append(f"Shaded, with lines at the bounds: what {', '.join(papers)} states.")
    if any(any(setting.opposite) for setting in found.settings):
        words.append("Crossed: the observable has the other sign than is stated.")
    if any(any(setting.unsure) for setting in found.settings):
        words.append(
            "Hollow: α is the mean slope alone; the points bend about the power law, or are too few to test for one."
        )
    if any(not math.isfinite(one.value) for setting in found.settings for one in setting.exponents):
        words.append("No mark: no power law could be fitted; the table of fits says why.")
    words += explain_weighted(column.observable for column in found.columns)
    runs = [run for group in study.groups if group.axis == found.axis for run in group.runs]
    return " ".join([*words, describe_setup(study, runs)])


def _describe_column(column: Column) -> ForestColumn:
    stated = ""
    if column.paper:
        ends = [f"{end:g}".replace("-", "−") for end in (column.low, column.high)]
        stated = " … ".join(ends)
        if math.isinf(column.high):
            stated = f"> {ends[0]}"
        elif math.isinf(column.low):
            stated = f"< {ends[1]}"
    symbol = OBSERVABLES[column.observable].symbol
    return ForestColumn(column.observable, f"{'−' if column.sign < 0 else ''}{symbol}", stated, column.low, column.high)


def _find_arms(found: Sensitivity) -> list[str]:
    """Return the arms that are drawn in one row; empty if one alone was swept, or nothing beside them."""
    arms = list(dict.fromkeys(_read_arm(setting.group) for setting in found.settings))
    rows = {_drop_arm(setting.group) for setting in found.settings}
    return arms if len(arms) > 1 and all(arms) and len(rows) > 1 else []


def _read_arm(label: str) -> str:
    return next((value for name, value in SETTING.findall(label) if name == ARM), "")


def _drop_arm(label: str) -> str:
    return ", ".join(f"{name}={value}" for name, value in SETTING.findall(label) if name != ARM)


def _name_row(setting: Setting, arms: list[str], full_batch: bool) -> tuple[str, str]:
    label = label_group(_drop_arm(setting.group) if arms else setting.group, full_batch)
    return label or "all runs", setting.draw
