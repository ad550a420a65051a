"""How runs learn: losses, trace and Γ against epoch; the trace against the logarithm of the train loss."""

import math
from collections.abc import Mapping

import numpy as np
import xarray as xr

from ntklens.analysis.study import Study
from ntklens.recording.observables import OBSERVABLES, list_observables
from ntklens.recording.quantities import QUANTITIES
from ntklens.report.chart import Chart, Panel, Series
from ntklens.report.charts.members import Members, average
from ntklens.report.charts.setup import describe_setup

BEYOND = 4.0  # factor of the train loss by which paths are drawn beyond the minimum: χ ends there
MINIMUM = "minimum of the test loss"
MOST_RECORDS = 160  # points of a curve: more than a screen has room for on a logarithmic axis
PLURALS = {"loss": "losses", "accuracy": "accuracies"}
CURVES = (
    ("loss", "loss", True, (("test_loss", False, "test"), ("train_loss", True, "train"))),
    ("trace", "Tr Θ", True, (("trace", False, ""),)),
    ("effective_rank", "effective rank Γ", False, (("effective_rank", False, ""),)),
    ("accuracy", "accuracy", False, (("test_accuracy", False, "test"), ("train_accuracy", True, "train"))),
)


def chart_trajectories(study: Study, group: Members, selected: Mapping[str, xr.Dataset], lines: int) -> Chart:
    """Chart losses, Tr Θ, Γ and accuracies against epoch, means and at most `lines` seeds, and the minimum."""
    runs = [selected[run] for run in group.runs]
    panels = []
    asked = [OBSERVABLES[name].asked for name in list_observables("asked")]
    recorded = [(name, QUANTITIES[name].write_symbol(), False, ((name, False, ""),)) for name in asked]
    recorded = [one for one in recorded if any(len(_find_records(run, one[0])) for run in runs)]
    for name, label, log, curves in (*CURVES, *recorded):
        series = []
        for key, run in zip(group.labels, runs, strict=True):
            for variable, dashed, detail in curves:
                series += _draw_curve(run, variable, key, dashed, detail, share_seeds(lines, len(runs)))
            series += _mark_minimum(run, curves[0][0], key)
        if any(np.isfinite(one.y).any() for one in series):  # a loop of one's own may record no accuracy
            panels.append(Panel(name, "epoch", label, series, y_log=log))
    shown = [PLURALS.get(panel.name, panel.y_label) for panel in panels]
    listed = " and ".join(filter(None, (", ".join(shown[:-1]), *shown[-1:])))
    caption = (
        f"{listed[:1].upper()}{listed[1:]} against epoch. Lines: means over seeds, band ± s.e.m.; solid: on"
        " test samples, dashed: on the training set; the symbol marks the minimum of the test loss."
        f" {describe_setup(study, group.runs)}{describe_left_out(runs, lines)}"
    )
    return Chart(
        "trajectories", group.variant, f"trajectories-{group.stem}", "Learning curves", caption,
        group.make_keys(), group.title, panels,
    )  # fmt: skip


def chart_adaptation(study: Study, group: Members, selected: Mapping[str, xr.Dataset], lines: int) -> Chart:
    """Chart Tr Θ against ln L_train and, from the start to the minimum, the straight line whose slope is χ."""
    runs = [selected[run] for run in group.runs]
    series = []
    for name, key, run in zip(group.runs, group.labels, runs, strict=True):
        rate = study.observables.adaptation_rate.sel(run=name, seed=run.seed)
        series += _draw_path(run, key, share_seeds(lines, len(runs)))
        series += _draw_slope(run, key, average(rate.values)[0].item())
    panel = Panel("trace", "train loss L_train", "Tr Θ", series, x_reversed=True)
    caption = (
        "Tr Θ against the train loss; training runs from left to right. Solid: means over seeds, band ± s.e.m. Dashed:"
        " the straight line in ln L_train whose slope is χ, the mean over seeds, from the start to the minimum of the"
        " test loss (symbol). Paths end where the train loss is a quarter of that at the minimum."
        f" {describe_setup(study, group.runs)}{describe_left_out(runs, lines)}"
    )
    return Chart(
        "adaptation", group.variant, f"adaptation-{group.stem}", "Trace against train loss: χ", caption,
        group.make_keys(), group.title, [panel],
    )  # fmt: skip


def share_seeds(lines: int, runs: int) -> int:
    """Return how many seeds of each run may be drawn one by one."""
    return max(1, lines // max(1, runs))


def describe_left_out(runs: list[xr.Dataset], lines: int) -> str:
    """Return what a chart leaves out of seeds and records, in words; empty if nothing."""
    text = ""
    seeds, most = sum(run.sizes["seed"] for run in runs), share_seeds(lines, len(runs))
    drawn = sum(min(most, run.sizes["seed"]) for run in runs)
    if drawn < seeds:
        text += f" Of single seeds {drawn:,} of {seeds:,} are drawn; means are of all."
    if any(run.sizes["record"] > MOST_RECORDS for run in runs):
        text += f" Curves are drawn by at most {MOST_RECORDS} of their records."
    return text


def thin(count: int, most: int = MOST_RECORDS) -> np.ndarray:
    """Return at most `most` of the numbers 0 … count − 1, evenly spread, ends included."""
    return np.arange(count) if count <= most else np.unique(np.linspace(0, count - 1, most).round().astype(int))


def _find_records(run: xr.Dataset, variable: str) -> np.ndarray:
    """Return the records at which every seed was measured: beyond its shortest seed a mean would be of other seeds."""
    if variable not in run or not run.sizes["seed"]:
        return np.zeros(0, int)
    measured = np.flatnonzero(np.isfinite(run[variable].values).all(axis=0))
    return measured[thin(len(measured))]


def _draw_curve(run: xr.Dataset, variable: str, key: str, dashed: bool, detail: str, seeds: int) -> list[Series]:
    records = _find_records(run, variable)
    if not len(records):
        return []
    values = run[variable].values[:, records]
    epoch = run.epoch.values[0, records]
    mean, error, _ = average(values)
    alone = np.isnan(error).all()
    curve = Series(
        key, "mean", epoch, mean, None if alone else mean - error, None if alone else mean + error,
        dashed=dashed, bare=True, detail=detail, start=True, meaning=_name_curve(detail, alone),
    )  # fmt: skip
    return [curve, join_seeds(run, key, np.broadcast_to(epoch, values.shape), values, seeds, dashed, detail)]


def _name_curve(detail: str, alone: bool) -> str:
    """Return what the line of a curve stands for, whether it comes in two kinds (test and train) or in one."""
    spread = "" if alone else " ± s.e.m."
    return f"mean over seeds{spread}, training set" if detail == "train" else f"mean over seeds{spread}"


def join_seeds(
    run: xr.Dataset, key: str, x: np.ndarray, y: np.ndarray, most: int, dashed: bool = False, detail: str = ""
) -> Series:
    """Return the curves of single seeds, [S, K] each, as one series with gaps: far fewer objects for a browser."""
    gap = np.full((min(most, len(y)), 1), np.nan)
    numbers = np.repeat(run.seed.values[:most, None], x.shape[1] + 1, axis=1)
    x, y = (np.concatenate([values[:most], gap], axis=1).ravel() for values in (x, y))
    return Series(key, "seed", x, y, seeds=numbers.ravel(), dashed=dashed, detail=detail)


def _mark_minimum(run: xr.Dataset, variable: str, key: str) -> list[Series]:
    name = f"minimum_{variable}"
    if name not in run or not run.sizes["seed"]:
        return []
    x, y = average(run.minimum_epoch.values)[0], average(run[name].values)[0]
    return [Series(key, "minimum", x[None], y[None], points=True, detail="minimum", meaning=MINIMUM)]


def _draw_path(run: xr.Dataset, key: str, seeds: int) -> list[Series]:
    records = _find_records(run, "trace")
    if not len(records):
        return []
    loss, trace = run.train_loss.values[:, records].astype(float), run.trace.values[:, records].astype(float)
    least = average(run.minimum_train_loss.values)[0] / BEYOND if "minimum_train_loss" in run else 0.0
    loss = np.where((loss > 0) & (loss >= least), loss, np.nan)
    mean, error, _ = average(trace)
    alone = np.isnan(error).all()
    path = Series(
        key, "mean", _average_losses(loss), mean,
        None if alone else mean - error, None if alone else mean + error, bare=True, meaning=_name_curve("", alone),
    )  # fmt: skip
    return [path, join_seeds(run, key, loss, trace, seeds)]


def _average_losses(loss: np.ndarray) -> np.ndarray:
    """Return the geometric mean over seeds, NaN from where a seed's path has ended."""
    return np.exp(np.log(loss).mean(axis=0))


def _draw_slope(run: xr.Dataset, key: str, rate: float) -> list[Series]:
    """Return the line of slope χ through the middle of the path to the minimum, and the minimum."""
    if not run.sizes["seed"] or not math.isfinite(rate):
        return []
    step = average(run.minimum_step.values)[0].item()
    there = np.isfinite(run.trace.values).all(axis=0) & (run.step.values[0] <= step)
    log_loss = average(np.log(run.train_loss.values[:, there].astype(float)))[0]
    trace = average(run.trace.values[:, there].astype(float))[0]
    if len(log_loss) < 2 or not np.isfinite(log_loss).all() or np.ptp(log_loss) == 0:
        return []
    weights = np.abs(np.diff(log_loss)) / np.abs(np.diff(log_loss)).sum()
    middle_x, middle_y = (float(np.sum(weights * (a[:-1] + a[1:]) / 2)) for a in (log_loss, trace))
    # Not only its ends: on a linear axis of the loss the line is a curve.
    ends = np.linspace(log_loss.max(), log_loss.min(), 24)
    line = Series(key, "fit", np.exp(ends), middle_y + rate * (ends - middle_x), dashed=True, detail=f"χ = {rate:.4g}",
                  meaning="slope χ in ln L_train, start to minimum")  # fmt: skip
    x = np.exp(average(np.log(run.minimum_train_loss.values.astype(float)))[0])
    return [line, Series(key, "minimum", x[None], average(run.minimum_trace.values)[0][None], points=True,
                         detail="minimum", meaning=MINIMUM)]  # fmt: skip
