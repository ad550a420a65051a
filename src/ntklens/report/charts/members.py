"""Runs that are drawn together, and what is needed of each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from ntklens.analysis.groups import Group, name_swept
from ntklens.analysis.settings import is_full_batch, read_configs
from ntklens.analysis.study import Study
from ntklens.report.chart import Key, make_keys
from ntklens.report.style import CATEGORIES, label_axis, label_group, name_setting
from ntklens.stats.samples import PROBE, Samples

LEAST_VALUES = 3  # of an axis that is drawn as one: two points are a comparison
MOST_TICKS = 7  # values of an axis that are all numbered
DRAWN = "dataset.data_seed"  # the override that draws the training set
CLOSEST = 0.09  # share of the axis between two numbers


@dataclass(frozen=True)
class Members:
    """Runs in one chart.

    Attributes:
      axis: the override that they differ in; empty if they differ in none, or in what is not a number.
      label: what else was swept, `key=value`; empty if nothing was.
      runs: their names.
      labels: a label for each.
      title: what the labels are values of.
      x: values of the axis, shape [R]; NaN where there is none.
      full_batch: whether they take their steps on the whole training set.
    """

    axis: str
    label: str
    runs: list[str]
    labels: list[str]
    title: str
    x: np.ndarray
    full_batch: bool = False

    @property
    def words(self) -> str:
        """The label in words: `depth 2`."""
        return label_group(self.label, self.full_batch)

    @property
    def variant(self) -> str:
        """What tells this group from others, in words."""
        along = f"along the {name_setting(self.axis)}" if self.axis else ""
        return ", ".join(part for part in (along, self.words) if part)

    @property
    def stem(self) -> str:
        """What tells this group from others, in a file's name."""
        kept = "".join(c if c.isalnum() or c in ".=-" else "_" for c in f"{self.axis}-{self.label}".strip("-"))
        return kept.replace("=", "")[:80].strip("._-") or "runs"

    def make_keys(self) -> list[Key]:
        """Return one key for each label: runs that differ only in a random factor share it."""
        return make_keys(zip(self.labels, self.labels, strict=True), ordered=bool(self.axis))


def list_groups(study: Study, zeros: bool = False) -> list[Members]:
    """Return the groups to draw, longest axis first: those of the study, or all runs where no number was swept.

    Groups along an axis of two values are left out if longer ones hold all their runs: they would show the same again.

    Args:
      study: what was found.
      zeros: whether runs at x = 0 are among them, first: for figures that need no logarithmic axis.
    """
    groups = sorted((g for g in study.groups if len(g.runs)), key=lambda group: -len(np.unique(group.x)))
    covered = {run for group in groups if len(np.unique(group.x)) >= LEAST_VALUES for run in group.runs}
    kept = [g for g in groups if len(np.unique(g.x)) >= LEAST_VALUES or not covered.issuperset(g.runs)]
    return [_gather(study, group, group.zeros if zeros else ()) for group in kept] or [_join_runs(study)]


def _gather(study: Study, group: Group, zeros: Sequence[str]) -> Members:
    runs = [*zeros, *group.runs]
    x = np.concatenate([np.zeros(len(zeros)), np.asarray(group.x, float)])
    labels, full_batch = [f"{value:g}" for value in x], is_full_batch(read_configs(study.data, group.runs))
    return Members(group.axis, group.label, runs, labels, label_axis(group.axis), x, full_batch)


def make_layer_keys(layers: Sequence[str]) -> list[Key]:
    """Return keys of layers in their order, numbered; their colours follow the depth where they are too many to differ.

    Args:
      layers: names, from the inputs to the outputs.
    """
    labels = ((layer, f"{number} {layer}") for number, layer in enumerate(layers, start=1))
    return make_keys(labels, ordered=len(layers) > len(CATEGORIES))


def choose_places(count: int, most: int) -> tuple[float, ...]:
    """Return which of the places 1 … count along an axis are numbered: the first, and multiples of a round number."""
    steps = (step * 10**power for power in range(9) for step in (1, 2, 5))
    step = next(step for step in steps if count // step <= most)
    return tuple(float(place) for place in sorted({1, *range(step, count + 1, step)}))


def choose_ticks(x: np.ndarray, log: bool) -> tuple[float, ...] | None:
    """Return the values of an axis, if they are few and far apart enough to be numbered one by one; else None."""
    values = np.unique(x[np.isfinite(x)])
    if not 1 < len(values) <= MOST_TICKS or (log and values[0] <= 0):
        return None
    places = np.log(values) if log else values
    return tuple(values.tolist()) if np.diff(places).min() >= CLOSEST * np.ptp(places) else None


def _join_runs(study: Study) -> Members:
    swept = name_swept(study.data)
    runs = [str(run) for run in study.data.run.values]
    if swept:
        labels = [", ".join(str(study.data[name].values[row]) for name in swept) for row in range(len(runs))]
    else:
        labels = runs
    return Members("", "", runs, labels, ", ".join(label_axis(name) for name in swept), np.full(len(runs), np.nan))


def select_run(data: xr.Dataset, name: str) -> xr.Dataset:
    """Return one run, its seeds that are there; diverged ones only if all are."""
    row = int(np.flatnonzero(data.run.values == name)[0])
    state = data.state.values[row].astype(str)
    there = state == "done" if (state == "done").any() else state == "diverged"
    return data.isel(run=row, seed=slice(None) if there.all() else np.flatnonzero(there))


def select_runs(data: xr.Dataset, groups: Sequence[Members]) -> dict[str, xr.Dataset]:
    """Return the runs of groups by their names, as `select_run` does: charts of several families share them."""
    return {name: select_run(data, name) for name in dict.fromkeys(run for group in groups for run in group.runs)}


def average(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean, s.e.m. (NaN for one seed) and count over seeds, which are the first dimension; NaN is left out."""
    count = np.isfinite(values).sum(axis=0)
    filled = np.where(np.isfinite(values), values, 0.0).astype(float)
    mean = np.where(count > 0, filled.sum(axis=0) / np.maximum(count, 1), np.nan)
    square = np.where(np.isfinite(values), (values - mean) ** 2, 0.0).sum(axis=0)
    error = np.sqrt(square / np.maximum(count - 1, 1) / np.maximum(count, 1))
    # A bar that reaches zero reaches it exactly: a logarithmic axis would go down to what rounding leaves of it.
    error = np.where(np.isclose(error, np.abs(mean), rtol=1e-6, atol=0.0), np.abs(mean), error)
    return mean, np.where(count > 1, error, np.nan), count


def average_samples(samples: Samples) -> np.ndarray:
    """Return the s.e.m. over networks of each mean that was fitted, shape [K], as `average_networks`; 0 for one."""
    networks = samples.values
    if PROBE in samples.factors:
        networks = average(np.moveaxis(networks, samples.factors.index(PROBE) + 1, 0))[0]
    return np.nan_to_num(average(networks.reshape(len(samples.x), -1).T)[1])


def find_draws(data: xr.Dataset, runs: Sequence[str]) -> np.ndarray:
    """Return which draw of the training set each run has, shape [R]: runs of one draw differ in their probe alone."""
    if DRAWN not in data.coords:
        return np.zeros(len(runs), int)
    drawn = data[DRAWN].values[data.get_index("run").get_indexer(list(runs))]
    return np.unique(drawn.astype(str), return_inverse=True)[1]


def average_networks(values: np.ndarray, draws: np.ndarray) -> tuple[float, float, int]:
    """Return the mean at one value of an axis, its s.e.m. over networks (NaN for one), and how many networks there are.

    Every mean that a figure draws has this error bar: s.d. over networks (n − 1) / √n. Weights of fits have variances
    of their own, `Samples.variance`.

    Args:
      values: of each run and seed, shape [R, S], NaN where missing.
      draws: of the training set, shape [R]: runs of one draw are the same networks on several probes.
    """
    networks = np.concatenate([average(values[draws == draw])[0] for draw in np.unique(draws)])
    _, error, count = average(networks)
    return float(average(values.ravel())[0]), float(error), int(count)
