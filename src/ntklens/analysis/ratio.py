"""What the slope of β = ΔTr / Tr Θ_0 is made of: how much of it is Tr Θ_0 growing, which no learning is."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ntklens.analysis.groups import WIDTH, Group
from ntklens.stats.forms import FORMS
from ntklens.stats.powerlaw import CONSTANT, NOTHING, Fit, Interval, Law
from ntklens.stats.profile import find_quantile
from ntklens.stats.samples import floor_variance

PARTS = ("trace_ratio", "trace_change", "initial_trace")


@dataclass(frozen=True)
class Split:
    """Slopes d ln y / d ln x over the same values of an axis; the first is the difference of the others.

    Attributes:
        x: values of the axis, shape [K].
        ratio: of mean ΔTr / mean Tr Θ_0.
        change: of mean ΔTr.
        initial: of mean Tr Θ_0.
    """

    x: np.ndarray
    ratio: Interval
    change: Interval
    initial: Interval

    @property
    def is_normalised(self) -> bool:
        """Whether Tr Θ_0 grows, so that β falls if ΔTr stays as it is."""
        return self.initial.low > CONSTANT

    @property
    def is_not_normalised(self) -> bool:
        """Whether Tr Θ_0 does not grow, so that no fall of β comes from it."""
        return self.initial.high < CONSTANT

    def name_unresolved(self) -> str:
        """Return which parts lie neither within ± `CONSTANT` nor beyond: `ΔTr`, or their sum."""
        parts, known = {"ΔTr": self.change, "Tr Θ_0": self.initial}, (-CONSTANT, CONSTANT)
        open_ones = [name for name, one in parts.items() if not (one.is_inside(*known) or one.is_outside(*known))]
        return f"the slope of {' and of '.join(open_ones)}" if open_ones else "the sum of the two"

    def describe(self) -> str:
        """Return the two parts with their intervals: `+0.06 [+0.01, +0.11] by ΔTr and −0.28 [−0.36, −0.20] by …`."""
        return f"{describe_slope(self.change)} by ΔTr and {describe_slope(negate(self.initial))} by Tr Θ_0 alone"


def split_ratio(group: Group, laws: Sequence[Law]) -> Split | None:
    """Return what the slope of β along an axis is made of; None where the three laws are not there, or β is negative.

    Slopes are those of least squares with weights that all three share, so that they add up: 1 / (v + τ²) with the
    variances of ln mean by seeds and the intrinsic scatters of ΔTr and Tr Θ_0 together, which is too much where the two
    go together.

    Args:
        group: the runs along the axis.
        laws: along all axes.
    """
    own = _find_fits(group, laws)
    if len(own) < len(PARTS):
        return None
    ratio, change, initial = (own[name] for name in PARTS)
    x = np.array([one for one in ratio.x if one in change.x and one in initial.x])
    if ratio.sign < 0 or len(x) < FORMS["power"].least_points:
        return None
    (grown, grown_variance), (started, started_variance) = (_select(fit, x) for fit in (change, initial))
    variance = grown_variance + started_variance
    weights = 1 / floor_variance(variance + change.misfit**2 + initial.misfit**2)
    return Split(
        x,
        measure_slope(x, grown - started, variance, weights),
        measure_slope(x, grown, grown_variance, weights),
        measure_slope(x, started, started_variance, weights),
    )


def _find_fits(group: Group, laws: Sequence[Law]) -> Mapping[str, Fit]:
    own = {law.observable: law.fits for law in laws if (law.axis, law.group) == (group.axis, group.label)}
    return {name: own[name]["power"] for name in PARTS if "power" in own.get(name, {})}


def _select(fit: Fit, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ln mean at some values of the axis, and its variance."""
    chosen = np.isin(fit.x, x)
    return np.log(fit.mean[chosen]), fit.samples.variance[chosen]


def measure_slope(x: np.ndarray, logs: np.ndarray, variance: np.ndarray, weights: np.ndarray) -> Interval:
    """Return the slope of ln y against ln x by weighted least squares, with its 95 % interval.

        half-width = t · √max(Σ c² v, s² / Σ w z²),  z = ln x − its weighted mean,  c = w z / Σ w z²,
        s² = Σ w r² / (K − 2):  by seeds, or by the scatter about the line, whichever is larger

    Args:
        x: values of the axis, shape [K].
        logs: ln y, shape [K].
        variance: v of ln y by seeds, shape [K].
        weights: w, shape [K].
    """
    place = np.log(x) - np.average(np.log(x), weights=weights)
    extent = float(np.sum(weights * place**2))
    slope = float(np.sum(weights * place * logs)) / extent
    residuals = logs - np.average(logs, weights=weights) - slope * place
    degrees = len(x) - 2
    by_scatter = float(np.sum(weights * residuals**2)) / degrees / extent
    by_seeds = float(np.sum((weights * place / extent) ** 2 * variance))
    half = find_quantile(degrees) * math.sqrt(max(by_scatter, by_seeds))
    return Interval(slope, slope - half, slope + half)


def negate(slope: Interval) -> Interval:
    """Return the interval of −α."""
    return Interval(-slope.value, -slope.high, -slope.low)


def describe_slope(slope: Interval) -> str:
    """Return a slope with its interval as text, signs before all numbers."""
    return f"{slope.value:+.2f} [{slope.low:+.2f}, {slope.high:+.2f}]"


def explain_trace_ratio(group: Group, laws: Sequence[Law]) -> list[str]:
    """Say how much of β's slope is Tr Θ_0 growing: β = ΔTr / Tr Θ_0, so that α_β = α_ΔTr − α_Tr0.

    β alone is not feature learning: were ΔTr the same at every width, β would fall all the same.

    Args:
        group: the runs along the axis.
        laws: along all axes.

    Returns:
        Sentences; none where the three laws are not there.
    """
    split = split_ratio(group, laws)
    if split is None:
        return []
    text = (
        f"Over {split.x[0]:g} … {split.x[-1]:g} mean ΔTr / mean Tr Θ_0 has the slope {describe_slope(split.ratio)}: "
        f"{split.describe()}"
    )
    fits = next(
        law.fits for law in laws if (law.observable, law.axis, law.group) == (PARTS[2], group.axis, group.label)
    )
    affine, initial = fits.get("affine"), fits["power"]
    scale = affine.parameters["scale"] if affine is not None else NOTHING
    if affine is not None and group.axis == WIDTH and scale.is_inside(0, math.inf) and math.isfinite(scale.high):
        text += (
            f"; the affine law Tr Θ_0 = a + b m (intrinsic scatter {affine.misfit:.1%}, the "
            f"power law's {initial.misfit:.1%}) "
            f"has its crossover at a/b = {scale.value:.0f} [{scale.low:.0f}, {scale.high:.0f}]"
        )
    return [f"{text}."]
