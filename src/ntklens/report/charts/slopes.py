"""Local exponents d ln y / d ln x: a power law is a horizontal line, a transition is where it leaves one."""

from collections.abc import Iterator

import numpy as np

from ntklens.analysis.study import Study
from ntklens.recording.observables import OBSERVABLES, list_observables
from ntklens.report.chart import Chart, Panel, Series
from ntklens.report.charts.laws import find_law, make_group_keys, make_stem, split_axes
from ntklens.report.charts.members import choose_ticks
from ntklens.report.charts.setup import describe_setup
from ntklens.report.charts.words import select_curves
from ntklens.report.style import find_symbol, label_axis
from ntklens.stats.powerlaw import Fit, Law

POINTS = 60  # of a curve
REACH = 0.25  # of the extent of the points: how far beyond them a curve is drawn
STEP = 1e-3  # in ln x, of a derivative
NEIGHBOURS = "from mean to next mean ± standard error"
OF_LAW = "of the preferred law"


def chart_slopes(study: Study) -> Iterator[Chart]:
    """Chart the local exponent of each fitted observable against each axis, from means and from the preferred law."""
    for axis, groups in split_axes(study).items():
        panels = []
        for name in list_observables("charted"):
            laws = [law for g in groups if (law := find_law(study, name, axis, g.label)) and law.fits]
            series = [one for law in laws for one in _draw_slopes(law)]
            if series:
                sign = "−" if any(fit.sign < 0 for law in laws for fit in law.fits.values()) else ""
                symbol, x = find_symbol(axis), np.concatenate([group.x for group in groups])
                label = f"d ln({sign}{OBSERVABLES[name].symbol}) / d ln {symbol}"
                panels.append(Panel(name, label_axis(axis), label, series, x_ticks=choose_ticks(x, log=True)))
        if not panels:
            continue
        symbol = find_symbol(axis)
        caption = (
            f"Local exponent d ln y / d ln {symbol}: where it is level, y is a power law; where it turns, one regime"
            " gives way to another. Points: from each mean to the next, at their geometric middle, ± standard error by"
            " the variances of the fits (smoothed along the axis, without what seeds share); lines: of the preferred"
            " law, where it describes the points."
            f" {describe_setup(study, [run for group in groups for run in group.runs])}"
        )
        yield Chart(
            "slopes", f"along the {label_axis(axis)}", f"slopes-{make_stem(axis)}", "Local exponents", caption,
            make_group_keys(groups), "", panels,
        )  # fmt: skip


def _draw_slopes(law: Law) -> list[Series]:
    samples = next(iter(law.fits.values())).samples
    x, slope, error = measure_slopes(samples.x, samples.mean, samples.variance)
    series = [
        Series(law.group, "mean", x, slope, slope - error, slope + error, points=True, meaning=NEIGHBOURS),
    ]
    form = select_curves(law)[0]
    if form is not None:
        grid = np.geomspace(x[0], x[-1], POINTS)
        y = differentiate(law.fits[form], grid)
        room = REACH * float(np.ptp([slope - error, slope + error]))  # beyond, a curve would flatten all others
        y = np.where((y < (slope - error).min() - room) | (y > (slope + error).max() + room), np.nan, y)
        series.append(Series(law.group, "fit", grid, y, detail=form.replace("_", " "), meaning=OF_LAW))
    return series


def measure_slopes(x: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the slopes of ln y between neighbouring values of x.

    Args:
      x: axis values, ascending, shape [K].
      mean: means over seeds, positive, shape [K].
      variance: of ln mean, shape [K].

    Returns:
      Geometric middles, Δ ln y / Δ ln x, and their standard errors, shape (K − 1,).
    """
    step = np.diff(np.log(x))
    error = np.sqrt(variance[1:] + variance[:-1]) / step
    return np.sqrt(x[1:] * x[:-1]), np.diff(np.log(mean)) / step, error


def differentiate(fit: Fit, x: np.ndarray) -> np.ndarray:
    """Return d ln f / d ln x of a fitted curve."""
    above, below = (np.log(fit.predict(x * np.exp(step))) for step in (STEP, -STEP))
    return (above - below) / (2 * STEP)
