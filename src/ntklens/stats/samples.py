"""What a fit sees of a sweep: the logarithms of means over seeds, and how sure they are."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import digamma, polygamma

from ntklens.errors import InputError
from ntklens.stats.overview import describe_samples, describe_samples_html

SEED = "seed"  # drawn anew at every point of the axis; all other factors are shared by the points
SAME_SEED = "same seed"  # the same networks at every point: along an axis that leaves the model as it is
LEAST_TREND = 3  # points beyond which variances may have a trend
ROUNDING = 1e-6  # by how much values that are the same may differ, relative to their size: they are float32
DRAW = "draw"  # of the training set: each has seeds of its own
PROBE = "probe"  # each looks at the same networks


@dataclass(frozen=True, repr=False)
class Samples:
    """Means of an observable along an axis.

    Attributes:
      x: axis values, ascending, shape [K].
      mean: sign · mean over all seeds, draws and probes, shape [K], positive.
      variance: of ln mean, apart from what all points share, shape [K].
      common: variance of ln mean that all points share: one draw of the training set lies high at every width.
      levels: of the shared factor with the fewest levels; 0 without one.
      count: finite values behind each mean, shape [K]; those of one network on several probes are one.
      sign: −1 if the observable is negative everywhere.
      values: sign · observable, shape [K, …, seeds], NaN where missing.
      factors: names of the dimensions of `values` beyond the first.
    """

    x: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    common: float
    levels: int
    count: np.ndarray
    sign: int
    values: np.ndarray
    factors: tuple[str, ...]

    def __repr__(self) -> str:
        """Return one line; the attributes hold the rest."""
        return describe_samples(self)

    def _repr_html_(self) -> str:
        return describe_samples_html(self)

    @property
    def typical_error(self) -> float:
        """The median relative standard error of the means."""
        return float(np.sqrt(np.median(self.variance))) if len(self.x) else math.nan

    @property
    def is_same(self) -> bool:
        """Whether every network has one value at all x, but for rounding: the observable cannot depend on the axis."""
        cells = self.values.reshape(len(self.x), -1) if len(self.x) > 1 else np.zeros((0, 0))
        seen = cells[:, np.isfinite(cells).any(axis=0)]
        if not np.isfinite(seen).all(axis=0).any():
            return False
        low, high = np.nanmin(seen, axis=0), np.nanmax(seen, axis=0)
        return bool(np.all(high - low <= ROUNDING * np.maximum(np.abs(low), np.abs(high))))

    def select(self, chosen: np.ndarray) -> "Samples":
        """Return some of the points, chosen by a mask of shape [K]."""
        return Samples(
            self.x[chosen], self.mean[chosen], self.variance[chosen], self.common, self.levels, self.count[chosen],
            self.sign, self.values[chosen], self.factors,
        )  # fmt: skip


def summarise(x: np.ndarray, y: np.ndarray, factors: Sequence[str] = (SEED,)) -> Samples:
    """Take means over everything random, and say how much each mean may be off.

    Seeds are drawn anew at every point: their share is v_k = Var over seeds of (mean at x_k within a seed) / n. A few
    seeds tell little of their own variance, so variances are drawn towards their trend in x as far as they scatter
    about it no more than chance makes them. A factor that all points share (draws of the training set, probes) moves
    all means together, and each a little on its own: with r[k, l] the mean at x_k within level l, relative to that over
    all levels,

        r[k, l] = b_l + c_kl + noise,   Var(ln mean) = v_k + Var(c)/D,   common = Var(b)/D

    Shares of crossed factors add up, which errs on the side of too much (Owen 2007, pigeonhole bootstrap).

    Args:
      x: axis values, shape [K].
      y: the observable, shape [K, …]; one dimension for each of `factors`; NaN where missing. Shape [K] is one seed.
      factors: names of the random factors; `seed` is nested in x, `same seed` is not.

    Returns:
      The samples, points without a finite value left out, in ascending order of x.

    Raises:
      InputError: if the means do not have one sign, or if the arrays do not belong together.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    if x.ndim != 1 or y.ndim < 1 or len(x) != len(y):
        raise InputError(
            "summarise(x, y) takes x [K] and y [K, seeds], the observable at each x; here they are "
            f"{list(x.shape)} and {list(y.shape)}"
        )
    if y.ndim == 1 and tuple(factors) == (SEED,):
        y = y[:, None]  # one seed at every point
    if y.ndim != len(factors) + 1:
        raise InputError(
            f"summarise(x, y, factors): y has {y.ndim - 1} dimensions beyond the first, and factors names "
            f"{len(factors)}: {', '.join(factors)}"
        )
    there = np.isfinite(y).reshape(len(x), math.prod(y.shape[1:])).any(axis=1) & np.isfinite(np.asarray(x, float))
    order = np.flatnonzero(there)[np.argsort(np.asarray(x, float)[there], kind="stable")]
    x, y = np.asarray(x, float)[order], y[order]
    flat = y.reshape(len(x), math.prod(y.shape[1:]))
    probes = tuple(number + 1 for number, factor in enumerate(factors) if factor == PROBE)
    count = np.isfinite(y).any(axis=probes, keepdims=True).reshape(len(x), -1 if len(x) else 0).sum(axis=1)
    mean = np.nanmean(flat, axis=1) if len(x) else np.zeros(0)
    if len(x) and not (np.all(mean > 0) or np.all(mean < 0)):
        raise InputError("the mean is not of one sign along the axis, so that no power of x describes it")
    sign = -1 if len(x) and mean[0] < 0 else 1
    relative = flat.reshape(y.shape) / mean.reshape(-1, *[1] * (y.ndim - 1)) - 1
    variance, common, levels = np.zeros(len(x)), 0.0, 0
    for number in sorted(range(len(factors)), key=lambda number: factors[number] not in (SEED, SAME_SEED)):
        size = y.shape[number + 1]
        if size < 2 or not len(x):
            continue
        rows = _average_within_levels(relative, number + 1)
        if factors[number] == SEED:
            variance = _measure_nested(rows, x)
        elif factors[number] == SAME_SEED:
            variance, common = _measure_same(rows, x)
            levels = size
        else:
            noise = variance * size if factors[number] == DRAW else np.zeros(len(x))
            own, together = _measure_shared(rows, noise)
            variance, common = variance + own / size, common + together / size
            levels = min(levels or size, size)
    return Samples(x, sign * mean, variance, common, levels, count, sign, sign * y, tuple(factors))


def check_samples(samples: Any) -> None:
    """Raise an InputError where arrays or something else stand in the place of samples."""
    if not isinstance(samples, Samples):
        kind = type(samples).__name__
        raise InputError(f"samples: takes what ntklens.summarise(x, y) returns, x [K] and y [K, seeds]; here a {kind}")


def check_names(function: str, observable: str, axis: str) -> None:
    """Raise an InputError where a law would have no name of its observable or axis."""
    if not observable or not axis:
        raise InputError(
            f"{function}(samples, observable, axis): name the observable and the axis that was swept, "
            f'as in {function}(samples, "minimum_loss", "model.width")'
        )


def _average_within_levels(values: np.ndarray, dimension: int) -> np.ndarray:
    """Return the means within each level of a factor, shape [K, levels], NaN where there is none."""
    rows = np.moveaxis(values, dimension, 1).reshape(len(values), values.shape[dimension], -1)
    number = np.isfinite(rows).sum(axis=2)
    return np.where(number > 0, np.nansum(rows, axis=2) / np.maximum(number, 1), np.nan)


def _measure_nested(rows: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the variance of the mean over levels that are drawn anew at each point, [K, levels] → [K]."""
    number = np.isfinite(rows).sum(axis=1)
    centred = rows - np.nanmean(rows, axis=1, keepdims=True)
    degrees = np.maximum(number - 1, 0)
    variance = np.where(degrees > 0, np.nansum(centred**2, axis=1) / np.maximum(degrees, 1), np.nan)
    return squeeze_variances(variance, degrees, x) / np.maximum(number, 1)


def _measure_same(rows: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, float]:
    """Return what the mean over seeds owes to chance at each point, [K], and what at all points together.

    With r[k, s] = b_s + c_ks: the b_s, weighted means over k, are taken out before the scatter about them is measured.
    """
    own, size, there = _measure_nested(rows, x), rows.shape[1], np.isfinite(rows)
    if size < 2 or len(rows) < 2:
        return own, 0.0
    centred = np.where(there, rows - np.nanmean(rows, axis=1, keepdims=True), 0.0)
    weights = np.where(there, 1 / floor_variance(own)[:, None], 0.0)
    weights = weights / np.maximum(weights.sum(axis=0), 1e-300)
    together = np.sum(weights * centred, axis=0)
    degrees = np.maximum(there.sum(axis=1) - 1, 0)
    left = np.sum(there * (centred - together) ** 2 / np.maximum(1 - weights, 0.1), axis=1) / np.maximum(degrees, 1)
    own = squeeze_variances(left, degrees, x)
    seen = there.any(axis=0)
    common = float(np.sum(together[seen] ** 2)) / max(1, int(seen.sum()) - 1)  # its noise left in, as for draws
    return own / np.maximum(there.sum(axis=1), 1), common / max(1, int(seen.sum()))


def _measure_shared(rows: np.ndarray, noise: np.ndarray) -> tuple[float, float]:
    """Return Var(c) and Var(b) of r[k, l] = b_l + c_kl + noise_kl; rows [K, levels], variance of the noise [K]."""
    there = np.isfinite(rows)
    rows, there = rows[:, there.any(axis=0)], there[:, there.any(axis=0)]
    points, size = rows.shape
    if size < 2:
        return 0.0, 0.0
    rows = rows - np.nanmean(rows, axis=1, keepdims=True)
    weights = np.where(there, (1 / (noise + max(float(noise.mean()) / 20, 1e-12)))[:, None], 0.0)
    together = np.nansum(weights * np.nan_to_num(rows), axis=0) / weights.sum(axis=0)
    degrees = int(there.sum()) - points - size + 1
    own = 0.0
    if degrees > 0:
        left = (rows - together)[there]
        own = solve_excess(left, np.broadcast_to(noise[:, None], rows.shape)[there], degrees)
    # The noise of the weighted means is left in: a few levels tell too little of Var(b) to take it out.
    return own, float(np.sum((together - together.mean()) ** 2)) / (size - 1)


def solve_excess(residuals: np.ndarray, variance: np.ndarray, degrees: float) -> float:
    """Return τ² with Σ r² / (τ² + v) = degrees; 0 if v alone explains the residuals.

    Source: Paule & Mandel 1982, Journal of Research of the National Bureau of Standards 87(5).
    """

    def excess(square: float) -> float:
        return float(np.sum(residuals**2 / floor_variance(variance + square))) - degrees

    high = float(np.sum(residuals**2))
    if excess(0.0) <= 0 or high == 0:
        return 0.0
    return float(brentq(excess, 0.0, high, xtol=1e-12 * high)) if excess(high) < 0 else high


def floor_variance(variance: np.ndarray) -> np.ndarray:
    """Keep exact data, whose variance is zero, apart from division by zero."""
    return np.maximum(variance, max(1e-24, 1e-9 * float(variance.max(initial=0.0))))


def squeeze_variances(variance: np.ndarray, degrees: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Draw variances towards their trend in x, as far as they scatter about it no more than chance makes them.

        s̃² = (d₀ s₀²(x) + d s²) / (d₀ + d),  ln s₀² straight in ln x, d₀ from the scatter of ln s² about it

    Source: Smyth 2004, Statistical Applications in Genetics and Molecular Biology 3(1), section 6 (there no trend).

    Args:
      variance: s², shape [K]; NaN where there are no degrees of freedom.
      degrees: d, shape [K].
      x: axis values, shape [K].

    Returns:
      s̃², shape [K], finite.
    """
    known = (degrees > 0) & (variance > 0)
    if not known.any():
        return np.zeros_like(variance)
    half = degrees[known] / 2
    logs = np.log(variance[known]) - digamma(half) + np.log(half)
    trended = known.sum() > LEAST_TREND and np.all(x > 0)
    design = np.stack([np.ones_like(x), np.log(np.where(x > 0, x, 1))], axis=1)[:, : 1 + trended]
    line = np.linalg.lstsq(design[known], logs, rcond=None)[0]
    scatter = float(np.sum((logs - design[known] @ line) ** 2)) / max(1, known.sum() - design.shape[1])
    excess = scatter - float(np.mean(polygamma(1, half))) if known.sum() > design.shape[1] else 0.0
    prior = 2 * _invert_trigamma(excess) if excess > 0 else np.inf
    shift = digamma(prior / 2) - np.log(prior / 2) if np.isfinite(prior) else 0.0
    trend = np.exp(design @ line + shift)
    if np.isinf(prior):
        return trend
    degrees = np.where(known, degrees, 0)
    return (prior * trend + degrees * np.where(known, variance, 0.0)) / (prior + degrees)


def _invert_trigamma(value: float) -> float:
    """Return a with ψ'(a) = value."""
    low, high = -15.0, 15.0
    if polygamma(1, np.exp(high)) >= value:
        return float(np.exp(high))
    if polygamma(1, np.exp(low)) <= value:
        return float(np.exp(low))
    return float(np.exp(brentq(lambda log: polygamma(1, np.exp(log)) - value, low, high)))
