"""Scalars of one trajectory, as SCIENCE defines them: one function each."""

from typing import NamedTuple

import numpy as np
import xarray as xr


class AdaptationRate(NamedTuple):
    """χ and how well one number describes the path.

    Attributes:
      slope: χ = δ Tr Θ / δ ln L_train; NaN on fewer than two points.
      r2: coefficient of determination of the straight line; NaN where Tr Θ is constant.
    """

    slope: float
    r2: float


def compute_trace_change(trajectory: xr.Dataset) -> float:
    """Return ΔTr = Tr Θ_min − Tr Θ_0."""
    return float(trajectory.minimum_trace - trajectory.trace[0])


def compute_trace_ratio(trajectory: xr.Dataset) -> float:
    """Return β = (Tr Θ_min − Tr Θ_0) / Tr Θ_0, which may be negative."""
    return compute_trace_change(trajectory) / float(trajectory.trace[0])


def compute_adaptation_rate(trajectory: xr.Dataset) -> AdaptationRate:
    """Return the least-squares slope of Tr Θ against ln L_train from record 0 to the minimum.

    The points are spread evenly over the path in ln L_train: each piece of the path between two records, a straight
    line, weighs as much as it is long, |Δ ln L_train|. So the result does not depend on the schedule of records.

        χ = Cov(ln L, Tr) / Var(ln L),  R² = Cov² / (Var(ln L) Var(Tr)),  moments by ∫ … |d ln L| along the path.

    Source: χ as arXiv 2507.05035 defines it, δTrΘ / δ ln L_train.

    Args:
      trajectory: one seed, with `step`, `trace`, `train_loss` and `minimum_step`.

    Returns:
      Slope (in units of the trace) and R².
    """
    path = (trajectory.step <= trajectory.minimum_step) & (trajectory.train_loss > 0) & np.isfinite(trajectory.trace)
    log_loss = np.log(trajectory.train_loss.values[path.values].astype(float))
    return fit_path_slope(log_loss, trajectory.trace.values[path.values].astype(float))


def fit_path_slope(x: np.ndarray, y: np.ndarray) -> AdaptationRate:
    """Fit y ≈ a + slope · x along the polygon through (x_k, y_k), weighted by |dx|.

    Args:
      x: corners, shape (K,).
      y: corners, shape (K,).

    Returns:
      Slope and R²; NaN if the path has no extent in x.
    """
    lengths = np.abs(np.diff(x))
    if not lengths.sum() > 0:
        return AdaptationRate(np.nan, np.nan)
    weights = lengths / lengths.sum()

    def mean(a: np.ndarray) -> float:
        return float(np.sum(weights * (a[:-1] + a[1:]) / 2))

    def covariance(a: np.ndarray, b: np.ndarray) -> float:
        a, b = a - mean(a), b - mean(b)
        return float(np.sum(weights * (2 * a[:-1] * b[:-1] + 2 * a[1:] * b[1:] + a[:-1] * b[1:] + a[1:] * b[:-1]) / 6))

    xx, xy, yy = covariance(x, x), covariance(x, y), covariance(y, y)
    if not xx > 0:
        return AdaptationRate(np.nan, np.nan)
    return AdaptationRate(xy / xx, xy**2 / (xx * yy) if yy > 0 else np.nan)


def compute_observables(trajectory: xr.Dataset) -> dict[str, float]:
    """Return the scalars of one trajectory under the names that tables and trackers use.

    Args:
      trajectory: one seed.

    Returns:
      name → value; `adaptation_rate_r2` below 0.95 means that no single χ exists.
    """
    rate = compute_adaptation_rate(trajectory)
    return {
        "minimum_loss": float(trajectory.minimum_test_loss),
        "minimum_step": float(trajectory.minimum_step),
        "minimum_accuracy": float(trajectory.minimum_test_accuracy),
        "initial_trace": float(trajectory.trace[0]),
        "minimum_trace": float(trajectory.minimum_trace),
        "trace_change": compute_trace_change(trajectory),
        "trace_ratio": compute_trace_ratio(trajectory),
        "adaptation_rate": rate.slope,
        "adaptation_rate_r2": rate.r2,
        "initial_effective_rank": float(trajectory.effective_rank[0]),
        "minimum_effective_rank": float(trajectory.minimum_effective_rank),
    }
