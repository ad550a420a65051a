"""Is the step small enough? Runs beside others whose step is divided, compared member by member."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr

from ntklens.analysis.groups import DIVISOR, list_swept, select_good
from ntklens.recording.observables import OBSERVABLES, trace_path

LIMIT = 0.07  # of the mean: a change beyond it, and beyond twice its standard error, means that the step is too large
COMPARED = ("minimum_loss", "trace_change", "trace_ratio", "adaptation_rate", "minimum_effective_rank")
AT_EQUAL_LOSS = "trace_change_equal_loss"
NAMES = {name: OBSERVABLES[name].symbol for name in COMPARED} | {AT_EQUAL_LOSS: "ΔTr at equal L_train"}


@dataclass(frozen=True)
class Change:
    """How an observable changes where the step is divided.

    Attributes:
        observable: its name; `trace_change_equal_loss`: ΔTr up to the larger of the two train losses at the minimum.
        run: the run whose step is whole.
        divided: the run whose step is divided.
        divisor: by how much.
        mean: mean over the members of (y′ − y) / ȳ, y′ with the divided step, ȳ the mean of y.
        error: its standard error.
        count: members compared.
    """

    observable: str
    run: str
    divided: str
    divisor: float
    mean: float
    error: float
    count: int

    @property
    def is_large(self) -> bool:
        """Whether the mean change exceeds 7 % and twice its standard error; one member alone decides nothing."""
        return self.count > 1 and abs(self.mean) > max(LIMIT, 2 * self.error)

    @property
    def is_small(self) -> bool:
        """Whether the mean change is within 7 %; one member alone decides nothing."""
        return self.count > 1 and abs(self.mean) <= LIMIT

    @property
    def symbol(self) -> str:
        """What the observable is called: `χ`."""
        return NAMES[self.observable]

    def __str__(self) -> str:
        """Return such as `χ −2.3 ± 0.5 %`; of one member without an error."""
        error = "" if math.isnan(self.error) else f" ± {100 * self.error:.1f}"
        return f"{self.symbol} {100 * self.mean:+.1f}{error} %"


def compare_steps(data: xr.Dataset, observables: xr.Dataset) -> list[Change]:
    """Compare each run whose step is divided with the one that differs from it in that alone, of whichever sweep.

    Args:
        data: as `ntklens.load` returns it.
        observables: of every trajectory.

    Returns:
        The changes, pair by pair; of seeds that are done in both runs.
    """
    changes = []
    for whole, divided, divisor in _find_pairs(observables):
        both = select_good(observables.isel(run=[whole, divided]), trained=False).all(axis=0)
        names = [str(observables["run"].values[place]) for place in (whole, divided)]
        values = {
            name: tuple(observables[name].values[place][both] for place in (whole, divided))
            for name in COMPARED
            if name in observables
        }
        values[AT_EQUAL_LOSS] = _measure_at_equal_loss(data.isel(run=[whole, divided], seed=np.flatnonzero(both)))
        for name, (before, after) in values.items():
            known = np.isfinite(before) & np.isfinite(after)
            if not known.any() or not (scale := float(np.mean(before[known]))):
                continue
            relative = (after[known] - before[known]) / scale
            count = int(known.sum())
            error = float(np.std(relative, ddof=1)) / math.sqrt(count) if count > 1 else math.nan
            changes.append(Change(name, names[0], names[1], divisor, float(np.mean(relative)), error, count))
    return changes


def _find_pairs(observables: xr.Dataset) -> Iterator[tuple[int, int, float]]:
    """Yield (run, run with the divided step, divisor), by their places; both of one sweep if it has them."""
    swept = list_swept(observables)
    divisors = swept.pop(DIVISOR, [])
    sweeps = swept.pop("sweep", [None] * len(divisors))
    settings = list(zip(*swept.values(), strict=True)) if swept else [()] * len(divisors)
    for place, divisor in enumerate(divisors):
        if not (isinstance(divisor, float) and divisor > 1):
            continue
        whole = [one for one, other in enumerate(divisors) if other == 1.0 and settings[one] == settings[place]]
        if whole:
            yield min(whole, key=lambda one: sweeps[one] != sweeps[place]), place, divisor


def _measure_at_equal_loss(pair: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return Tr Θ − Tr Θ_0 of two runs where each first has the larger of their train losses at the minimum."""
    log_loss, trace = trace_path(pair)
    level = log_loss[..., -1].max(axis=0) if log_loss.size else np.zeros(0)
    changes = [
        np.array([_interpolate(*path) for path in zip(log_loss[run], trace[run], level, strict=True)])
        for run in range(2)
    ]
    return changes[0], changes[1]


def _interpolate(log_loss: np.ndarray, trace: np.ndarray, level: float) -> float:
    """Return how much the trace has grown where the path first reaches a level, along straight lines."""
    below = np.flatnonzero(log_loss <= level)
    if not below.size or below[0] == 0:
        return math.nan
    after = below[0]
    share = (log_loss[after - 1] - level) / (log_loss[after - 1] - log_loss[after])
    return float(trace[after - 1] + share * (trace[after] - trace[after - 1]) - trace[0])
