"""Which runs of a sweep differ along one axis alone, and what is random among them."""

import math
from dataclasses import dataclass

import numpy as np
import xarray as xr

from ntklens.errors import InputError
from ntklens.recording.observables import OBSERVABLES
from ntklens.stats.samples import DRAW, PROBE, SAME_SEED, SEED

RANDOM = {"dataset.data_seed": DRAW, "dataset.probe_seed": PROBE}  # overrides that draw something anew
NOT_SWEPT = ("run", "config", "key", "data_checksum", "sweep")  # coordinates along run that are no parameters
WIDTH, DATA = "model.width", "dataset.train_size"
ARM, DIVISOR = "protocol.arm", "protocol.step_divisor"
ORDER = (WIDTH, DATA, "model.depth", ARM)  # of two settings that move together the first is meant


@dataclass(frozen=True)
class Group:
    """Runs that differ along one axis alone, apart from random factors.

    Attributes:
      axis: the override that was swept.
      label: what tells it from the axis' other groups, `key=value`, joined by commas; empty if there is no other.
      runs: their names, in the order of x.
      x: axis value of each run, ascending; equal for runs that differ in a random factor.
      tied: other settings that change along with the axis.
      zeros: runs of the same other settings at x = 0: on a logarithmic axis, and in a law, they have no place.
    """

    axis: str
    label: str
    runs: list[str]
    x: np.ndarray
    tied: tuple[str, ...] = ()
    zeros: tuple[str, ...] = ()

    def count_unresolved(self, observables: xr.Dataset) -> int:
        """Return how many of the runs have seeds that are done, but none that is resolved."""
        rows = self.find_rows(observables)
        good, resolved = (select_good(observables, trained)[rows].any(axis=1) for trained in (False, True))
        return int((good & ~resolved).sum())

    def find_rows(self, data: xr.Dataset) -> np.ndarray:
        """Return where the runs stand along `run`: to index one array is a hundred times cheaper than `data.sel`."""
        return data.get_index("run").get_indexer(self.runs)


def find_groups(observables: xr.Dataset) -> list[Group]:
    """Return every axis with every combination of the other settings that were swept.

    An axis is a setting with at least two different positive numbers; runs with others have no place on it. If no two
    runs differ in it alone, settings that it decides are tied to it: they make no groups, and are named.

    Args:
      observables: with one coordinate along `run` for each swept parameter.

    Raises:
      InputError: if the runs have no names, or two the same.
    """
    names = observables.get_index("run")
    if not names.is_unique or not all(isinstance(name, str) for name in names):
        raise InputError(
            "data: along run stand the names of the runs, texts that differ, as ntklens.load returns them; here "
            f"{', '.join(map(repr, names[:3].tolist()))}{', …' * (len(names) > 3)}"
        )
    observables = select_whole_steps(observables)
    swept = list_swept(observables)
    axes = sorted(
        (name for name, values in swept.items() if name not in RANDOM and _is_axis(values)),
        key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name),
    )
    groups: list[Group] = []
    for axis in axes:
        others = [name for name in swept if name != axis and name not in RANDOM]
        tied = [other for other in others if other != "sweep" and _is_tied(swept, axis, other)]
        if own := _split(observables, swept, axis, others, ()):
            groups += own
        elif not any(axis in group.tied for group in groups):
            groups += _split(
                observables, swept, axis, [name for name in others if name not in tied and name != "sweep"], tuple(tied)
            )
    return groups


def select_whole_steps(observables: xr.Dataset) -> xr.Dataset:
    """Return the runs whose step is not divided: the others say whether it is small enough (`convergence`)."""
    if DIVISOR not in observables.coords or not (whole := observables[DIVISOR].values == 1).any():
        return observables
    return observables.isel(run=np.flatnonzero(whole)).drop_vars(DIVISOR)


def name_swept(data: xr.Dataset) -> list[str]:
    """Return the parameters that differ between runs, by their overrides' names."""
    return [str(name) for name, one in data.coords.items() if one.dims == ("run",) and str(name) not in NOT_SWEPT]


def list_swept(observables: xr.Dataset) -> dict[str, list[object]]:
    """Return every swept setting, the sweep itself among them, with its value in each run; numbers as floats."""
    names = name_swept(observables) + [name for name in ("sweep",) if name in observables.coords]
    return {name: [normalise(value) for value in observables[name].values.tolist()] for name in names}


def _split(
    observables: xr.Dataset, swept: dict[str, list[object]], axis: str, others: list[str], tied: tuple[str, ...]
) -> list[Group]:
    """Return the runs of each combination of the other settings, as far as they differ along the axis."""
    found: dict[tuple[object, ...], list[int]] = {}
    zeros: dict[tuple[object, ...], list[str]] = {}
    for run, value in enumerate(swept[axis]):
        key = tuple(swept[name][run] for name in others)
        if isinstance(value, float) and value > 0:
            found.setdefault(key, []).append(run)
        elif value == 0.0 and not isinstance(value, bool):
            zeros.setdefault(key, []).append(str(observables["run"].values[run]))
    found = {key: runs for key, runs in found.items() if len({swept[axis][run] for run in runs}) > 1}
    telling = select_telling(others, list(found))
    groups = []
    for key, runs in found.items():
        x = np.array([swept[axis][run] for run in runs], float)
        order = np.argsort(x, kind="stable")
        names = [str(observables["run"].values[run]) for run in np.array(runs)[order]]
        label = ", ".join(
            f"{name}={describe_value(value)}" for name, value in zip(others, key, strict=True) if name in telling
        )
        groups.append(Group(axis, label, names, x[order], tied, tuple(zeros.get(key, ()))))
    return groups


def select_telling(names: list[str], keys: list[tuple[object, ...]]) -> list[str]:
    """Return the settings that it takes to tell groups from each other, the best known ones if there is a choice."""
    telling = sorted(names, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    for name in reversed(telling.copy()):
        rest = [names.index(one) for one in telling if one != name]
        if len({tuple(key[number] for number in rest) for key in keys}) == len(keys):
            telling.remove(name)
    return telling


def normalise(value: object) -> object:
    """Return numbers as floats, and NaN, which differs from itself, as None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return None if math.isnan(value) else float(value)


def describe_value(value: object) -> str:
    """Return a setting's value as it is typed."""
    return f"{value:g}" if isinstance(value, float) else "null" if value is None else str(value)


def _is_axis(values: list[object]) -> bool:
    return len({value for value in values if isinstance(value, float) and value > 0}) > 1


def _is_tied(swept: dict[str, list[object]], axis: str, other: str) -> bool:
    """Return whether the value along the axis decides the other setting's."""
    if len(set(swept[other])) < 2:
        return False
    seen: dict[object, object] = {}
    return all(seen.setdefault(x, y) == y for x, y in zip(swept[axis], swept[other], strict=True))


def select_good(observables: xr.Dataset, trained: bool) -> np.ndarray:
    """Return which seeds a fit may use, shape [run, seed]: done, alive, and, where training matters, resolved."""
    known = observables.variables
    good = known["state"].values == "done"
    good &= ~(known["dead"].values > 0) if "dead" in known else True
    if trained and "unresolved" in known:
        good &= ~(known["unresolved"].values > 0)
    return good


def arrange_samples(observables: xr.Dataset, group: Group, name: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Return an observable of a group for `summarise`: x [K], y [K, draws, probes, seeds], and the factors' names.

    Seeds that diverged, are dead or missing are NaN; so are unresolved ones where the observable depends on training.
    """
    rows, known = group.find_rows(observables), observables.variables
    trained = OBSERVABLES[name].trained if name in OBSERVABLES else not name.startswith("initial_")
    values = np.where(select_good(observables, trained), known[name].values, np.nan)[rows]
    x = np.unique(group.x)
    levels = {}
    for key, factor in RANDOM.items():
        drawn = (
            [normalise(value) for value in known[key].values[rows].tolist()]
            if key in observables.coords
            else [None] * len(group.x)
        )
        distinct = list(dict.fromkeys(drawn))
        levels[factor] = [distinct.index(value) for value in drawn]
    shape = (len(x), *(1 + max(numbers) for numbers in levels.values()), values.shape[1])
    y = np.full(shape, np.nan)
    for run, place in enumerate(np.searchsorted(x, group.x)):
        y[(place, *(numbers[run] for numbers in levels.values()))] = values[run]
    # A seed is the same initial network wherever the model is the same.
    return x, y, (*levels, SEED if group.axis.startswith("model.") else SAME_SEED)
