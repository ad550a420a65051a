"""Observables against the axis: means, seeds, fits and their bands; the affine law of the trace; what makes β fall."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ntklens.analysis.groups import select_good
from ntklens.analysis.study import Study
from ntklens.recording.observables import OBSERVABLES, list_observables
from ntklens.report.chart import Chart, Key, Panel, Series, make_keys
from ntklens.report.charts.members import Members, average, average_networks, choose_ticks, find_draws, list_groups
from ntklens.report.charts.setup import describe_setup, explain_weighted
from ntklens.report.charts.theory import REFERENCES, draw_initial_rank, draw_initial_trace
from ntklens.report.charts.words import (
    describe_fit,
    describe_forms,
    describe_law,
    describe_many,
    describe_refusals,
    select_curves,
)
from ntklens.report.style import find_symbol, format_number, label_axis
from ntklens.stats.powerlaw import Fit, Law

CURVE_POINTS = 80
MOST_TOGETHER = 12  # groups in one chart
MOST_NOTES = 6  # of their fits, written below a panel
MOST_COLOURS = 4  # groups that are distinguished without an order
NUMBER = re.compile(r"[^=,]+=[-+.e0-9]+")
LEAST_POINTS = 3  # of an axis, to speak of a slope
MOST_DOTS = 3000  # single seeds in a panel
MEAN, SEEDS, LEFT_OUT = "mean over seeds ± s.e.m.", "single seeds", "left out of fits: unresolved or dead"
PREFERRED, RIVAL, BETTER = "preferred law, 95 % band", "closest rival", "lower AICc, not preferred"


def chart_laws(study: Study) -> Iterator[Chart]:
    """Chart the main observables against each axis, groups of the rest side by side, with their laws."""
    names = [name for name in list_observables("charted") if not OBSERVABLES[name].asked]
    for axis, groups in split_axes(study).items():
        title = f"Scaling laws in the {label_axis(axis)}" if axis else "Observables of each run"
        yield _chart_family(study, "laws", title, axis, groups, names)


def chart_metrics(study: Study) -> Iterator[Chart]:
    """Chart what `metrics` asked for, at the minimum, against each axis, as `chart_laws` does."""
    for axis, groups in split_axes(study).items():
        yield _chart_family(
            study, "metrics", "Optional quantities at the minimum", axis, groups, list_observables("asked")
        )


def _chart_family(
    study: Study, family: str, title: str, axis: str, groups: list[Members], names: Sequence[str]
) -> Chart:
    """Chart observables that the study has values of against an axis, with their laws."""
    panels = [_chart_observable(study, name, axis, groups) for name in names if name in study.observables]
    panels = [panel for panel in panels if panel.series or not OBSERVABLES[panel.name].asked]
    names = [panel.name for panel in panels]
    panels = [panel for panel in panels if panel.series]  # the caption says why others have no law
    laws = [law for name in names for g in groups if (law := find_law(study, name, axis, g.label))]
    words = ["Points: means over seeds ± s.e.m.; faint: single seeds."]
    if forms := describe_forms(laws):
        words.append(
            "Solid: the preferred law, with its pointwise 95 % band; dashed: its closest rival; each is drawn only"
            f" where it describes the points, so that some panels have no curve. Forms: {forms}."
        )
    if any(series.meaning == BETTER for panel in panels for series in panel.series):
        words.append(
            "Dashed without a solid line: the points bend about the power law; a form of lower AICc describes them, and"
            " is not preferred for the reason above the panel."
        )
    if any(law.fits for law in laws):
        words.append(
            "Where points bend about a power law, or are too few to test for one, its exponent α is their mean slope."
            " Numbers in brackets are 95 % intervals."
        )
    asked = [OBSERVABLES[name] for name in names if OBSERVABLES[name].asked]
    words += [f"{one.symbol}: {one.description}." for one in asked]
    words += describe_refusals(laws, {name: read_symbol(name) for name in names})
    words += explain_weighted(names)
    words += _describe_references(panels)
    if any(series.hollow for panel in panels for series in panel.series):
        words.append("Hollow: left out of the fits (unresolved or dead).")
    most = sum(g.axis == axis for g in study.groups)
    if most > len(groups):
        words.append(f"{len(groups)} of {most} groups are drawn; fits.csv has all.")
    words.append(describe_setup(study, [run for group in groups for run in group.runs]))
    variant = groups[0].variant if len(groups) == 1 else _name_axis(axis)
    return Chart(
        family, variant, f"{family}-{make_stem(axis)}", title, " ".join(words), make_group_keys(groups), "", panels,
        static_seeds=True,
    )  # fmt: skip


def chart_trace_law(study: Study) -> Iterator[Chart]:
    """Chart Tr Θ_0 / (N C) against each axis with its affine fit: its scale is where the two terms are equal."""
    size = count_outputs(study)
    for axis, groups in split_axes(study).items():
        laws = [
            law for g in groups if (law := find_law(study, "initial_trace", axis, g.label)) and "affine" in law.fits
        ]
        if not laws or not np.isfinite(size):
            continue
        panel = _chart_observable(study, "initial_trace", axis, groups, form="affine", scale=1 / size)
        panel = replace(panel, y_label="Tr Θ_0 / (N C)")
        symbol = find_symbol(axis)
        caption = " ".join(
            (
                f"Tr Θ_0 / (N C), N C = {size:.0f}, with the affine law a + b {symbol} (solid, 95 % band); where"
                f" {symbol} = a/b both terms are as large. Points: means over seeds ± s.e.m.; faint: single seeds.",
                *_describe_references([panel]),
                describe_setup(study, [run for group in groups for run in group.runs]),
            )
        )
        yield Chart(
            "trace_law", _name_axis(axis), f"trace-law-{make_stem(axis)}", "Tr Θ_0 and its affine law",
            caption, make_group_keys(groups), "", [panel], static_seeds=True,
        )  # fmt: skip


def chart_ratio_split(study: Study) -> Iterator[Chart]:
    """Chart β beside what it would be if ΔTr were the same everywhere: how much of its slope is Tr Θ_0 alone."""
    for axis, groups in split_axes(study).items():
        series: list[Series] = []
        for group in groups:
            series += _split_ratio(study, group)
        if not axis or not series:
            continue
        positive = all((s.y[np.isfinite(s.y)] > 0).all() for s in series)
        log = _is_positive(groups)
        panel = Panel(
            "trace_ratio", label_axis(axis), "β", series, log, positive, x_ticks=choose_ticks(_join_x(groups), log)
        )
        caption = (
            "Points: β = ΔTr / Tr Θ_0 as measured, ± s.e.m. Dotted: β if ΔTr were the same everywhere, its mean over"
            f" the axis / Tr Θ_0. {describe_setup(study, [run for group in groups for run in group.runs])}"
        )
        yield Chart(
            "ratio_split", _name_axis(axis), f"ratio-split-{make_stem(axis)}", "What makes the slope of β", caption,
            [key for key in make_group_keys(groups) if key.name in {one.key for one in series}], "", [panel],
        )  # fmt: skip


def _describe_references(panels: Sequence[Panel]) -> list[str]:
    """Return what dotted lines stand for, in a sentence each."""
    found = dict.fromkeys(s.meaning for panel in panels for s in panel.series if s.role == "reference")
    return [REFERENCES[meaning] for meaning in found if meaning in REFERENCES]


def _name_axis(axis: str) -> str:
    return f"along the {label_axis(axis)}" if axis else ""


def make_stem(axis: str) -> str:
    """Return what names an axis in a file's name."""
    return Members(axis, "", [], [], "", np.zeros(0)).stem


def find_law(study: Study, observable: str, axis: str, group: str) -> Law | None:
    """Return the law of an observable in a group; None if there is none."""
    return next((law for law in study.laws if (law.observable, law.axis, law.group) == (observable, axis, group)), None)


def read_symbol(name: str) -> str:
    """Return an observable's symbol."""
    return OBSERVABLES[name].symbol if name in OBSERVABLES else name


def count_outputs(study: Study) -> float:
    """Return N · C, the size of Θ; NaN if runs differ in it. C are projected outputs where there are such."""
    data = study.data
    if "N" in data and "C" in data:
        outputs = data["C"]
        if "projected_outputs" in data:
            outputs = data["projected_outputs"].fillna(outputs)
        sizes = (data["N"] * outputs).values
    elif "eigenvalues" in data:
        sizes = np.isfinite(data.eigenvalues.isel(record=0).values).sum(axis=-1)
    else:
        return float("nan")
    unique = np.unique(sizes[np.isfinite(sizes) & (sizes > 0)])
    return float(unique[0]) if len(unique) == 1 else float("nan")


def select_values(study: Study, name: str, runs: list[str]) -> np.ndarray:
    """Return an observable of each run and seed, shape [R, S]; NaN unless the seed is done."""
    rows = [int(np.flatnonzero(study.data.run.values == run)[0]) for run in runs]
    done = study.data.state.values[rows].astype(str) == "done"
    return np.where(done, study.observables[name].values[rows], np.nan)


def select_usable(study: Study, name: str, runs: list[str]) -> np.ndarray:
    """Return which seeds a fit of an observable may use, shape [R, S]: done, alive, and resolved where that matters."""
    rows = [int(np.flatnonzero(study.data.run.values == run)[0]) for run in runs]
    return select_good(study.observables, name in OBSERVABLES and OBSERVABLES[name].trained)[rows]


def split_axes(study: Study) -> dict[str, list[Members]]:
    """Return axis → the groups that are drawn together along it."""
    axes: dict[str, list[Members]] = {}
    for group in list_groups(study):
        axes.setdefault(group.axis, []).append(group)
    return {axis: _spread(groups) for axis, groups in axes.items()}


def _spread(groups: list[Members]) -> list[Members]:
    """Return the groups that are drawn together: all, or some of many."""
    kept = np.unique(np.linspace(0, len(groups) - 1, min(len(groups), MOST_TOGETHER)).round().astype(int))
    return [groups[number] for number in kept]


def make_group_keys(groups: list[Members]) -> list[Key]:
    """Return a key for each group: along the ramp where they are many values of one number."""
    ordered = len(groups) > MOST_COLOURS and all(NUMBER.fullmatch(g.label) for g in groups)
    return make_keys(((g.label, g.words or "all runs") for g in groups), ordered)


def _join_x(groups: list[Members]) -> np.ndarray:
    return np.concatenate([_place(group) for group in groups])


def _is_positive(groups: list[Members]) -> bool:
    x = np.concatenate([g.x for g in groups])
    return bool((x > 0).all())


def _place(group: Members) -> np.ndarray:
    return group.x if group.axis else np.arange(1.0, len(group.runs) + 1)


def _chart_observable(
    study: Study, name: str, axis: str, groups: list[Members], form: str | None = None, scale: float = 1.0
) -> Panel:
    laws = {g.label: find_law(study, name, axis, g.label) for g in groups}
    known = [law for law in laws.values() if law is not None]
    sign = _find_sign(study, name, groups, laws)
    series: list[Series] = []
    notes: list[str] = []
    for group in groups:
        law = laws[group.label]
        values = sign * scale * select_values(study, name, group.runs)
        series += _draw_points(_place(group), values, group, study, select_usable(study, name, group.runs))
        if name == "initial_trace":
            series += draw_initial_trace(study, group, scale)
        if name == "initial_effective_rank" and "initial_effective_rank_traced" in study.observables:
            traced = select_values(study, "initial_effective_rank_traced", group.runs)
            series += draw_initial_rank(study, group, traced)
        if law is not None:
            series += _draw_fits(law, form, scale)
            words = describe_fit(law.fits[form], axis) if form and form in law.fits else describe_law(law)
            notes += [f"{group.words}: {words}" if len(groups) > 1 else words] if words else []
    reasons = {note.split(": ", 1)[-1] for note in notes}
    notes = [reasons.pop()] if len(notes) > 1 and len(reasons) == 1 else notes
    means = [s.y for s in series if s.role == "mean"]
    positive = all(bool((mean[np.isfinite(mean)] > 0).all()) for mean in means)
    x_log = bool(axis) and _is_positive(groups)
    return Panel(
        name,
        label_axis(axis) if axis else groups[0].title or "run",
        ("−" if sign < 0 else "") + read_symbol(name),
        series,
        x_log=x_log,
        y_log=positive and not (name in OBSERVABLES and OBSERVABLES[name].linear),
        note="\n".join(_shorten(notes)),
        short="" if form or not any(law.fits for law in known) else describe_many(known),
        x_ticks=choose_ticks(_join_x(groups), x_log),
    )


def _shorten(notes: list[str]) -> list[str]:
    rest = len(notes) - MOST_NOTES
    return [*notes[:MOST_NOTES], f"and {rest} more: see the table of fits"] if rest > 1 else notes


def _find_sign(study: Study, name: str, groups: list[Members], laws: dict[str, Law | None]) -> int:
    """Return −1 where what was fitted, or else everything that was measured, is negative."""
    signs = {fit.sign for law in laws.values() if law for fit in law.fits.values()}
    if len(signs) == 1:
        return signs.pop()
    values = np.concatenate([select_values(study, name, g.runs).ravel() for g in groups])
    values = values[np.isfinite(values)]
    return -1 if len(values) and (values < 0).all() else 1


def _draw_points(
    x: np.ndarray, values: np.ndarray, group: Members, study: Study, usable: np.ndarray
) -> list[Series]:  # fmt: skip
    """Return the seeds, the means of what a fit may use, and hollow the means of what no fit may use.

    Args:
      x: place of each run, shape [R].
      values: of each run and seed, shape [R, S].
      group: the runs.
      study: what was found.
      usable: which of them a fit may use, shape [R, S].
    """
    seeds = np.broadcast_to(study.data.seed.values[None, :], values.shape)
    places = np.broadcast_to(x[:, None], values.shape)
    there = np.isfinite(values)
    if not there.any():
        return []
    step = max(1, int(there.sum()) // MOST_DOTS)
    dots = Series(
        group.label, "seed", places[there][::step], values[there][::step], seeds=seeds[there][::step], points=True,
        meaning=SEEDS,
    )  # fmt: skip
    draws = find_draws(study.data, group.runs)
    good = usable & there
    left_out = there & ~np.isin(x, x[good.any(axis=1)])[:, None]
    return [
        dots,
        *_draw_means(x, np.where(good, values, np.nan), draws, group, MEAN),
        *_draw_means(x, np.where(left_out, values, np.nan), draws, group, LEFT_OUT),
    ]


def _draw_means(x: np.ndarray, values: np.ndarray, draws: np.ndarray, group: Members, meaning: str) -> list[Series]:
    """Return the means at each place where there are values, hollow if no fit may use them; nothing without values."""
    unique = np.unique(x[np.isfinite(values).any(axis=1)])
    if not len(unique):
        return []
    together = [average_networks(values[x == place], draws[x == place]) for place in unique]
    mean, error = (np.array([part[number] for part in together], float) for number in (0, 1))
    error = np.nan_to_num(error)
    counts = ", ".join(f"{part[2]}" for part in together) if len(together) <= 12 else ""
    return [
        Series(
            group.label, "mean", unique, mean, mean - error, mean + error, points=True, hollow=meaning == LEFT_OUT,
            detail=counts, meaning=meaning,
        )
    ]  # fmt: skip


def _draw_fits(law: Law, form: str | None, scale: float) -> list[Series]:
    """Return the curves of the preferred form and of its closest rival, or of one that fits better than a power law."""
    if form:
        return _draw_fit(law.fits[form], law.group, "fit", scale) if form in law.fits else []
    preferred, rival = select_curves(law)
    series = _draw_fit(law.fits[preferred], law.group, "fit", scale) if preferred else []
    if rival:
        meaning = RIVAL if preferred else BETTER
        series += [replace(one, meaning=meaning) for one in _draw_fit(law.fits[rival], law.group, "rival", scale)]
    return series


def _draw_fit(fit: Fit, key: str, role: str, scale: float) -> list[Series]:
    x = np.asarray(fit.x, float)
    if len(x) < 2 or x.max() <= x.min():
        return []
    grid = np.geomspace(x.min(), x.max(), CURVE_POINTS) if x.min() > 0 else np.linspace(x.min(), x.max(), CURVE_POINTS)
    y = np.asarray(fit.predict(grid), float) * scale
    low, high = (None, None) if role == "rival" else (np.asarray(e, float) * scale for e in fit.predict_band(grid))
    return [Series(key, role, grid, y, low, high, dashed=role == "rival", detail=fit.form.replace("_", " "),
                   meaning=PREFERRED)]  # fmt: skip


def _split_ratio(study: Study, group: Members) -> list[Series]:
    beta, change, initial = (
        select_values(study, name, group.runs) for name in ("trace_ratio", "trace_change", "initial_trace")
    )
    usable = select_usable(study, "trace_ratio", group.runs)
    points = [s for s in _draw_points(_place(group), beta, group, study, usable) if s.role == "mean"]
    parts = [find_law(study, name, group.axis, group.label) for name in ("trace_ratio", "initial_trace")]
    if any(law is not None and law.is_same for law in parts):  # nothing of a slope is by Tr Θ_0
        return []
    if len(np.unique(group.x)) < LEAST_POINTS or not np.isfinite(change).any():
        return []
    unique = np.unique(group.x)
    by_place = [average(initial[group.x == place].ravel())[0] for place in unique]
    changes = [average(change[group.x == place].ravel())[0] for place in unique]
    constant = np.nanmean(np.array(changes))
    line = Series(
        group.label, "reference", unique, constant / np.array(by_place),
        detail=f"mean ΔTr = {format_number(float(constant))}", meaning="β if ΔTr were constant",
    )  # fmt: skip
    return [*points, line]
