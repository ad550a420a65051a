"""What a conclusion depends on: the exponents of one axis under every setting and for every draw, side by side."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import xarray as xr

from ntklens.analysis.claims import Claim, find_papers, find_span
from ntklens.analysis.claims.paper import Exponent, Paper, restrict
from ntklens.analysis.groups import RANDOM, Group, arrange_samples, normalise
from ntklens.errors import InputError
from ntklens.recording.observables import OBSERVABLES, list_observables
from ntklens.stats.powerlaw import NOTHING, Fit, Interval, Law, fit_form, judge_course
from ntklens.stats.samples import summarise

MOST_SETTINGS = 60  # groups and draws, beyond which draws are only pooled
NUMBER = re.compile(r"-?[\d.]+(?:e[-+]?\d+)?")
WORDS = {"dataset.data_seed": ("first samples", "draw"), "dataset.probe_seed": ("first probe", "probe")}


@dataclass(frozen=True)
class Column:
    """An exponent that is compared.

    Attributes:
        observable: whose.
        sign: of the observable, as it is stated; the exponent of −y is that of |y|.
        low, high: what a paper states of it; NaN where none does.
        paper: which; empty where none does.
        claim: in its words.
    """

    observable: str
    sign: int = 1
    low: float = math.nan
    high: float = math.nan
    paper: str = ""
    claim: str = ""


@dataclass(frozen=True)
class Setting:
    """A row of the comparison.

    Attributes:
        group: the label of its group of runs.
        draw: one draw of what is random (`draw 1`, `first samples`); empty for all draws together.
        exponents: one for each column; NaN where no power law could be fitted.
        opposite: for each column, whether the observable has the other sign than is stated.
        unsure: for each column, whether the exponent is a mean slope alone: the points bend about the power law, or
            are too few to tell.
    """

    group: str
    draw: str
    exponents: tuple[Interval, ...]
    opposite: tuple[bool, ...]
    unsure: tuple[bool, ...]


@dataclass(frozen=True)
class Sensitivity:
    """The exponents along one axis: settings by columns."""

    axis: str
    columns: tuple[Column, ...]
    settings: tuple[Setting, ...]


def compare_settings(
    data: xr.Dataset,
    observables: xr.Dataset,
    groups: Sequence[Group],
    laws: Sequence[Law],
    claims: Sequence[Claim],
) -> list[Sensitivity]:
    """Return the exponents of each axis under every setting that was swept beside it, and for each draw alone.

    The exponent of a group is the number that the paper's claim is judged by, where there is a claim, else that of its
    power law. The exponent of a single draw is fitted in the same way to the runs of this draw.

    Args:
        data: as `ntklens.load` returns it.
        observables: of every trajectory.
        groups: runs that differ along one axis alone.
        laws: of every fitted observable in every group.
        claims: as `judge_claims` returns them.

    Returns:
        One comparison for each axis that has at least two rows and any exponent.
    """
    found = []
    for axis in dict.fromkeys(group.axis for group in groups):
        own = [group for group in groups if group.axis == axis]
        columns = _list_columns(axis, observables, laws)
        parts = {group.label: _split_draws(observables, group) for group in own}
        if sum(1 + len(draws) for draws in parts.values()) > MOST_SETTINGS:
            parts = {label: {} for label in parts}
        settings = []
        for group in own:
            whole = _read_group(group, columns, laws, claims)
            draws = (_fit_draw(data, observables, part, columns, draw) for draw, part in parts[group.label].items())
            settings.append(whole)
            settings += [replace(one, unsure=_join(one.unsure, whole.unsure)) for one in draws]
        there = any(math.isfinite(one.value) for setting in settings for one in setting.exponents)
        if len(settings) > 1 and there:
            found.append(Sensitivity(axis, tuple(columns), tuple(settings)))
    return found


def _join(own: tuple[bool, ...], whole: tuple[bool, ...]) -> tuple[bool, ...]:
    """Return whether the exponents of a draw are unsure: alone, or as those of all draws, which tell more, are."""
    return tuple(map(any, zip(own, whole, strict=True)))


def _list_columns(axis: str, observables: xr.Dataset, laws: Sequence[Law]) -> list[Column]:
    """Return the exponents that papers state of an axis, and those that it takes to read them, if they depend on it."""
    columns = [
        Column(one.observable, one.sign, one.low, one.high, paper.name, one.text)
        for paper in find_papers()
        for one in paper.statements
        if isinstance(one, Exponent) and one.axis == axis
    ]
    stated = {column.observable for column in columns}
    negative = {law.observable for law in laws if law.axis == axis for fit in law.fits.values() if fit.sign < 0}
    columns += [
        Column(name, -1 if name in negative else 1) for name in list_observables("compared") if name not in stated
    ]
    order = list(OBSERVABLES)
    moved = {law.observable for law in laws if law.axis == axis and not law.is_same}
    columns = [one for one in columns if one.observable in observables and (one.paper or one.observable in moved)]
    return sorted(columns, key=lambda column: order.index(column.observable))


def _split_draws(observables: xr.Dataset, group: Group) -> dict[str, Group]:
    """Return the part of a group that each draw of the data and of the probe has, by its name in words."""
    rows = group.find_rows(observables)
    drawn = {
        key: [normalise(value) for value in observables[key].values[rows].tolist()]
        for key in RANDOM
        if key in observables.coords
    }
    drawn = {key: values for key, values in drawn.items() if len(set(values)) > 1}
    parts: dict[str, list[int]] = {}
    for place in range(len(rows)) if drawn else ():
        words = ", ".join(_name_draw(key, values[place]) for key, values in drawn.items())
        parts.setdefault(words, []).append(place)
    return {
        words: replace(group, runs=[group.runs[place] for place in places], x=group.x[places])
        for words, places in sorted(parts.items(), key=lambda item: rank_draw(item[0]))
    }


def rank_draw(words: str) -> tuple[object, ...]:
    """Return what draws are sorted by: all together, the first samples, then by number."""
    numbers = [float(number) for number in NUMBER.findall(words)]
    return bool(words), not words.startswith("first"), numbers, words


def _name_draw(key: str, value: object) -> str:
    first, word = WORDS[key]
    return first if value is None else f"{word} {value:g}" if isinstance(value, float) else f"{word} {value}"


def _read_group(group: Group, columns: Sequence[Column], laws: Sequence[Law], claims: Sequence[Claim]) -> Setting:
    exponents, opposite, unsure = [], [], []
    for column in columns:
        law = next(
            (
                one
                for one in laws
                if (one.observable, one.axis, one.group) == (column.observable, group.axis, group.label)
            ),
            None,
        )
        fit = law.fits.get("power") if law else None
        claim = next(
            (
                one
                for one in claims
                if (one.paper, one.claim, one.axis, one.group) == (column.paper, column.claim, group.axis, group.label)
            ),
            None,
        )
        exponents.append(claim.measured if claim else fit.exponent if fit else NOTHING)
        opposite.append(_is_opposite(fit, column))
        unsure.append(law is not None and fit is not None and not law.course.is_straight)
    return Setting(group.label, "", tuple(exponents), tuple(opposite), tuple(unsure))


def _fit_draw(data: xr.Dataset, observables: xr.Dataset, part: Group, columns: Sequence[Column], draw: str) -> Setting:
    papers = {paper.name: paper for paper in find_papers()}
    exponents, opposite, unsure = [], [], []
    for column in columns:
        fit = _fit_power(data, observables, part, column.observable, papers.get(column.paper))
        exponents.append(fit.exponent if fit else NOTHING)
        opposite.append(_is_opposite(fit, column))
        unsure.append(fit is not None and not judge_course({"power": fit}).is_straight)
    return Setting(part.label, draw, tuple(exponents), tuple(opposite), tuple(unsure))


def _fit_power(data: xr.Dataset, observables: xr.Dataset, group: Group, name: str, paper: Paper | None) -> Fit | None:
    """Return the power law of an observable over what a paper states it for; None if there is none."""
    try:
        fit = fit_form(summarise(*arrange_samples(observables, group, name)), "power")
    except InputError:
        return None
    return restrict(fit, find_span(data, group, paper) if paper else None)[0]


def _is_opposite(fit: Fit | None, column: Column) -> bool:
    return bool(column.paper) and fit is not None and fit.sign != column.sign
