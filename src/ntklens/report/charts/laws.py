"""Observables against the axis: means, seeds, fits and their bands; the affine law of the trace; what makes β fall."""

import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ntklens.analysis.observables import OBSERVABLES, list_observables
from ntklens.analysis.powerlaw import Fit, Law
from ntklens.analysis.study import Study
from ntklens.report.chart import Chart, Key, Panel, Series, make_keys
from ntklens.report.charts.groups import Members, average, list_groups
from ntklens.report.style import format_interval, format_number, label_axis

CURVE_POINTS = 80
MOST_TOGETHER = 12  # groups in one chart
MOST_NOTES = 6  # of their fits, written below a panel
MOST_COLOURS = 4  # groups that are told apart without an order
NUMBER = re.compile(r"[^=,]+=[-+.e0-9]+")
LEAST_POINTS = 3  # of an axis, to speak of a slope
MOST_DOTS = 3000  # single seeds in a panel


def chart_laws(study: Study) -> Iterator[Chart]:
    """Chart the main observables against each axis, groups of the rest side by side, with the fits."""
    for axis, groups in _split_axes(study).items():
        panels = [
            _chart_observable(study, name, axis, groups)
            for name in list_observables("charted")
            if name in study.observables
        ]
        caption = (
            "Means over seeds ± s.e.m., single seeds faint. Solid: the preferred form with its pointwise 95 % band;"
        )
        caption += " dashed: its closest rival; hollow: left out of the fits (unresolved or dead)."
        most = sum(g.axis == axis for g in study.groups)
        if most > len(groups):
            caption += f" {len(groups)} of {most} groups are drawn; fits.csv has all."
        yield Chart(
            "laws", axis, f"laws-{Members(axis, '', [], [], '', np.zeros(0)).stem}", "Scaling laws",
            caption if axis else "Means over seeds ± s.e.m., single seeds faint.",
            _make_group_keys(groups), "", panels, static_seeds=True,
        )  # fmt: skip


def chart_trace_law(study: Study) -> Iterator[Chart]:
    """Chart Tr Θ_0 / (N C) against each axis with its affine fit: its scale is where the two terms are equal."""
    size = count_outputs(study)
    for axis, groups in _split_axes(study).items():
        laws = [
            law for g in groups if (law := find_law(study, "initial_trace", axis, g.label)) and "affine" in law.fits
        ]
        if not laws or not np.isfinite(size):
            continue
        panel = _chart_observable(study, "initial_trace", axis, groups, form="affine", scale=1 / size)
        panel = replace(panel, y_label="Tr Θ_0 / (N C)")
        caption = f"Affine: a + b x, N C = {size:.0f}; at the scale a/b both terms are as large."
        stem = f"trace-law-{Members(axis, '', [], [], '', np.zeros(0)).stem}"
        yield Chart(
            "trace_law", axis, stem, "The trace before training is affine", caption,
            _make_group_keys(groups), "", [panel], static_seeds=True,
        )  # fmt: skip


def chart_ratio_split(study: Study) -> Iterator[Chart]:
    """Chart β beside what it would be if ΔTr were the same everywhere: how much of its slope is Tr Θ_0 alone."""
    for axis, groups in _split_axes(study).items():
        series: list[Series] = []
        for group in groups:
            series += _split_ratio(study, group)
        if not axis or not series:
            continue
        positive = all((s.y[np.isfinite(s.y)] > 0).all() for s in series)
        panel = Panel("trace_ratio", label_axis(axis), "β", series, x_log=_is_positive(groups), y_log=positive)
        caption = "Points: β as measured, ± s.e.m. Dashed: β if ΔTr were constant, mean ΔTr / Tr Θ_0."
        stem = f"ratio-split-{Members(axis, '', [], [], '', np.zeros(0)).stem}"
        yield Chart("ratio_split", axis, stem, "What makes β fall", caption, _make_group_keys(groups), "", [panel])


def find_law(study: Study, observable: str, axis: str, group: str) -> Law | None:
    """Return the law of an observable in a group; None if there is none."""
    return next((law for law in study.laws if (law.observable, law.axis, law.group) == (observable, axis, group)), None)


def read_symbol(name: str) -> str:
    """Return an observable's symbol."""
    return OBSERVABLES[name].symbol if name in OBSERVABLES else name


def count_outputs(study: Study) -> float:
    """Return N · C, the size of Θ; NaN if runs differ in it."""
    data = study.data
    if "N" in data and "C" in data:
        sizes = (data["N"] * data["C"]).values
    elif "eigenvalues" in data:
        sizes = np.isfinite(data.eigenvalues.isel(record=0).values).sum(axis=-1)
    else:
        return float("nan")
    unique = np.unique(sizes[np.isfinite(sizes) & (sizes > 0)])
    return float(unique[0]) if len(unique) == 1 else float("nan")


def select_values(study: Study, name: str, runs: list[str]) -> np.ndarray:
    """Return an observable of each run and seed, shape (R, S); NaN unless the seed is done."""
    rows = [int(np.flatnonzero(study.data.run.values == run)[0]) for run in runs]
    done = study.data.state.values[rows].astype(str) == "done"
    return np.where(done, study.observables[name].values[rows], np.nan)


def _split_axes(study: Study) -> dict[str, list[Members]]:
    axes: dict[str, list[Members]] = {}
    for group in list_groups(study):
        axes.setdefault(group.axis, []).append(group)
    return {axis: _spread(groups) for axis, groups in axes.items()}


def _spread(groups: list[Members]) -> list[Members]:
    """Return the groups that are drawn together: all, or some of many."""
    kept = np.unique(np.linspace(0, len(groups) - 1, min(len(groups), MOST_TOGETHER)).round().astype(int))
    return [groups[number] for number in kept]


def _make_group_keys(groups: list[Members]) -> list[Key]:
    """Return a key for each group: along the ramp where they are many values of one number."""
    ordered = len(groups) > MOST_COLOURS and all(NUMBER.fullmatch(g.label) for g in groups)
    return make_keys(((g.label, g.label.replace(",", ", ") or "all runs") for g in groups), ordered)


def _is_positive(groups: list[Members]) -> bool:
    x = np.concatenate([g.x for g in groups])
    return bool((x > 0).all())


def _place(group: Members) -> np.ndarray:
    return group.x if group.axis else np.arange(1.0, len(group.runs) + 1)


def _chart_observable(
    study: Study, name: str, axis: str, groups: list[Members], form: str | None = None, scale: float = 1.0
) -> Panel:
    laws = {g.label: find_law(study, name, axis, g.label) for g in groups}
    sign = _find_sign(study, name, groups, laws)
    series: list[Series] = []
    notes: list[str] = []
    for group in groups:
        law = laws[group.label]
        values = sign * scale * select_values(study, name, group.runs)
        fit = next(iter(law.fits.values()), None) if law is not None else None
        series += _draw_points(_place(group), values, group, study, fit, scale)
        if law is not None:
            series += _draw_fits(law, form, scale)
            notes.append(_describe_law(law, form, group.label if len(groups) > 1 else ""))
    if len({note.split(": ", 1)[-1] for note in notes}) == 1:
        notes = [notes[0].split(": ", 1)[-1]] if len(notes) > 1 else notes
    means = [s.y for s in series if s.role == "mean"]
    log = all(bool((mean[np.isfinite(mean)] > 0).all()) for mean in means)
    label = ("−" if sign < 0 else "") + read_symbol(name)
    title = label_axis(axis) if axis else groups[0].title or "run"
    return Panel(
        name,
        title,
        label,
        series,
        x_log=bool(axis) and _is_positive(groups),
        y_log=log,
        note="\n".join(_shorten(notes)),
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
    x: np.ndarray, values: np.ndarray, group: Members, study: Study, fit: Fit | None = None, scale: float = 1.0
) -> list[Series]:
    """Return the seeds, the means as they were fitted, and hollow the means of what was left out of the fits."""
    seeds = np.broadcast_to(study.data.seed.values[None, :], values.shape)
    places = np.broadcast_to(x[:, None], values.shape)
    there = np.isfinite(values)
    if not there.any():
        return []
    step = max(1, int(there.sum()) // MOST_DOTS)
    dots = Series(
        group.label, "seed", places[there][::step], values[there][::step], seeds=seeds[there][::step], points=True
    )
    series = [dots]
    fitted = np.zeros(0) if fit is None else fit.x
    if fit is not None:
        mean, error = scale * fit.mean, scale * fit.sem
        counts = ", ".join(f"{count}" for count in fit.count) if len(fitted) <= 12 else ""
        series.append(Series(group.label, "mean", fitted, mean, mean - error, mean + error, points=True, detail=counts))
    unique = np.setdiff1d(np.unique(x[there.any(axis=1)]), fitted)
    if not len(unique):
        return series
    together = [average(values[x == place].ravel()) for place in unique]
    mean, error = (np.array([part[number] for part in together], float) for number in (0, 1))
    error = np.nan_to_num(error)
    counts = ", ".join(f"{part[2]}" for part in together) if len(together) <= 12 else ""
    left_out = fit is not None
    series.append(
        Series(
            group.label, "mean", unique, mean, mean - error, mean + error, points=True, hollow=left_out, detail=counts
        )
    )
    return series


def _draw_fits(law: Law, form: str | None, scale: float) -> list[Series]:
    chosen = form or law.preferred
    if chosen is None or chosen not in law.fits:
        return []
    drawn = _draw_fit(law.fits[chosen], law.group, "fit", scale)
    rival = None if form else find_rival(law)
    return drawn + (_draw_fit(law.fits[rival], law.group, "rival", scale) if rival else [])


def find_rival(law: Law) -> str | None:
    """Return the form that comes closest to the preferred one, by AICc."""
    rest = [form for form in law.fits if form != law.preferred]
    return min(rest, key=lambda form: (np.isnan(law.fits[form].aicc), law.fits[form].aicc)) if rest else None


def _draw_fit(fit: Fit, key: str, role: str, scale: float) -> list[Series]:
    x = np.asarray(fit.x, float)
    if len(x) < 2 or x.max() <= x.min():
        return []
    grid = np.geomspace(x.min(), x.max(), CURVE_POINTS) if x.min() > 0 else np.linspace(x.min(), x.max(), CURVE_POINTS)
    y = np.asarray(fit.predict(grid), float) * scale
    low, high = (None, None) if role == "rival" else (np.asarray(e, float) * scale for e in fit.predict_band(grid))
    return [Series(key, role, grid, y, low, high, dashed=role == "rival", detail=fit.form.replace("_", " "))]


def _describe_law(law: Law, form: str | None, prefix: str) -> str:
    """Return the exponent with its interval, or why there is none, in a few words."""
    lead = f"{prefix.replace(',', ', ')}: " if prefix else ""
    chosen = form or law.preferred
    if chosen is None or chosen not in law.fits:
        reason = next(iter(law.refusals.values()), law.finding)
        return f"{lead}no fit: {reason}"
    fit = law.fits[chosen]
    words = chosen.replace("_", " ")
    for name, symbol in (("exponent", "α"), ("scale", "scale")):
        interval = fit.parameters.get(name)
        if interval is not None and not (np.isinf(interval.low) and np.isinf(interval.high)):
            return f"{lead}{words}, {symbol} = {format_interval(interval.value, interval.low, interval.high)}"
    return f"{lead}{words}"


def _split_ratio(study: Study, group: Members) -> list[Series]:
    beta, change, initial = (
        select_values(study, name, group.runs) for name in ("trace_ratio", "trace_change", "initial_trace")
    )
    points = [s for s in _draw_points(_place(group), beta, group, study) if s.role == "mean"]
    if len(np.unique(group.x)) < LEAST_POINTS or not np.isfinite(change).any():
        return []
    unique = np.unique(group.x)
    by_place = [average(initial[group.x == place].ravel())[0] for place in unique]
    changes = [average(change[group.x == place].ravel())[0] for place in unique]
    constant = np.nanmean(np.array(changes))
    line = Series(
        group.label, "reference", unique, constant / np.array(by_place), dashed=True,
        detail=f"mean ΔTr = {format_number(float(constant))}",
    )  # fmt: skip
    return [*points, line]
