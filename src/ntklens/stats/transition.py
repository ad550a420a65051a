"""Where one regime becomes another: a crossover scale with its interval, and breaks only where smooth curves fail.

A scale x* is that of a smooth curve,

    from a plateau to a power:  y = A (1 + x/x*)^α     (β: constant at small width, then falling)
    from a power to a plateau:  y = A x^α (1 + x/x*)^−α  (Γ_min: growing, then saturated)

so at x* the local slope d ln y / d ln x is half-way between its two ends. It is claimed only if a pure power law is
rejected and the interval of x* has two ends. A piecewise power law "finds" a break in any such curve; a break is
claimed only if data made by each smooth rival hardly ever favour the break as much as the data at hand do.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ntklens.errors import InputError
from ntklens.stats.forms import FORMS, SMOOTH
from ntklens.stats.overview import describe_transition
from ntklens.stats.powerlaw import EXACT, NOTHING, Fit, Interval, fit_form
from ntklens.stats.profile import solve_many, thin
from ntklens.stats.samples import Samples, check_names, check_samples, floor_variance

ALTERNATIVES = {"plateau_power": "plateau → power", "power_plateau": "power → plateau"}
ERROR = 0.05  # of the first kind
REPLICATES = 599
THIN = 25  # values of ψ where each needs its own iteration


@dataclass(frozen=True, repr=False)
class Transition:
    """What an observable says of a transition.

    Attributes:
      observable: its name.
      axis: the override that was swept.
      group: what else was swept has this value.
      scale: x* of the smooth curve; NaN if none was fitted.
      within: whether the sweep shows a crossover, with a bound on either side.
      method: which smooth curve gave the scale; empty if none.
      power_p: p-value of a pure power law against it.
      peak: where the observable is largest, if it has a maximum within the sweep; NaN otherwise.
      break_scale: where a piecewise power law breaks; NaN if none was fitted.
      break_p: the largest p-value of a smooth rival against the break; NaN if untestable.
      sentence: all of it in words.
    """

    observable: str
    axis: str
    group: str
    scale: Interval
    within: bool
    method: str
    power_p: float
    peak: Interval
    break_scale: Interval
    break_p: float
    sentence: str

    def __repr__(self) -> str:
        """Return one line; the attributes hold the rest."""
        return describe_transition(self)


def find_transition(
    samples: Samples, observable: str = "", axis: str = "", group: str = "", rng: np.random.Generator | None = None
) -> Transition:
    """Look for a crossover, a maximum and a break of an observable along an axis.

    Args:
      samples: its means.
      observable: its name.
      axis: the override that was swept.
      group: what else was swept has this value.
      rng: random numbers of the bootstrap tests; None: a fixed generator.

    Returns:
      What was found, with the tests' p-values.

    Raises:
      InputError: if `samples` are not what `summarise` returns; without the names of observable and axis.
    """
    check_samples(samples)
    check_names("find_transition", observable, axis)
    rng = rng or np.random.default_rng(0)
    fits = fit_all(samples, ("power", *ALTERNATIVES))
    if len(fits) < 3:
        needed = FORMS["plateau_power"].least_points
        sentence = f"too few points: a crossover needs {needed} along the axis, there are {len(samples.x)}"
        return Transition(observable, axis, group, NOTHING, False, "", math.nan, NOTHING, NOTHING, math.nan, sentence)
    best = min(ALTERNATIVES, key=lambda form: fits[form].aicc)
    power_p = reject_form(fits["power"], tuple(ALTERNATIVES), rng)
    scale = fits[best].parameters["scale"]
    bounded = scale.low > 0 and math.isfinite(scale.high) and samples.x[0] <= scale.value <= samples.x[-1]
    within = power_p < ERROR and bounded
    break_scale, break_p = check_break(samples, rng)
    if power_p >= ERROR:  # what a power law describes is not broken
        break_p = max(break_p, power_p)
    peak = find_peak(samples)
    sentence = _describe(samples, ALTERNATIVES[best], scale, within, bounded, power_p, peak, break_scale, break_p)
    method = ALTERNATIVES[best] if within else ""
    return Transition(
        observable, axis, group, scale if within else NOTHING, within, method, power_p, peak, break_scale, break_p,
        sentence,
    )  # fmt: skip


def fit_all(samples: Samples, forms: Sequence[str]) -> dict[str, Fit]:
    """Return the fits of those forms for which there are points enough."""
    fits = {}
    for form in forms:
        try:
            fits[form] = fit_form(samples, form)
        except InputError:
            continue
    return fits


def find_peak(samples: Samples) -> Interval:
    """Return where the observable is largest, by a parabola in ln x, ln y; NaN if there is no maximum.

    Both ends of the sweep must lie clearly below the largest mean, and the interval within the sweep: a curve that
    flattens has no maximum.
    """
    try:
        fit = fit_form(samples, "parabola")
    except InputError:
        return NOTHING
    peak, curvature = fit.parameters["peak"], fit.parameters["curvature"]
    logs, top = np.log(samples.mean), int(np.argmax(samples.mean))
    error = np.sqrt(samples.variance + samples.variance[top] + 2 * fit.misfit**2)
    below = all(logs[top] - logs[end] > 2 * error[end] for end in (0, -1))
    inside = samples.x[0] < peak.low and peak.high < samples.x[-1]
    return peak if below and curvature.high < 0 and inside else NOTHING


def check_break(samples: Samples, rng: np.random.Generator) -> tuple[Interval, float]:
    """Return where a piecewise power law breaks, and the largest p-value that a smooth rival leaves it.

    Rivals are tried from the best on; the first that is not rejected decides.
    """
    rivals = fit_all(samples, SMOOTH)
    try:
        broken = fit_form(samples, "broken_power")
    except InputError:
        return NOTHING, math.nan
    worst = 0.0
    for rival in sorted(rivals.values(), key=lambda fit: -fit.log_likelihood):
        worst = max(worst, reject_form(rival, ("broken_power",), rng))
        if worst >= ERROR:
            break
    return broken.parameters["scale"], worst


def reject_form(
    null: Fit, alternatives: Sequence[str], rng: np.random.Generator, replicates: int = REPLICATES
) -> float:
    """Return the p-value of a form against others, by a parametric bootstrap.

        T = (S_null − S_alternative) / S_alternative,  S = min Σ w (ln y − ln f)²

    is compared with its values for data made by the null's curve, its intrinsic scatter and the noise of the means.
    S_alternative is the least of all alternatives, in the made data as well: one chosen after looking would reject too
    much.

    Args:
      null: the fitted form that is to be rejected.
      alternatives: the forms against it.
      rng: the random numbers.
      replicates: data made.

    Returns:
      (1 + how often T is as large) / (1 + replicates).
    """
    samples = null.samples
    if float(np.max(np.abs(null.profile.residuals))) < EXACT:
        return 1.0
    variance = floor_variance(samples.variance + null.misfit**2)
    curve = null.profile.predict_logs(samples.x)
    noise = np.sqrt(variance) * rng.standard_normal((replicates, len(samples.x)))
    logs = np.concatenate([np.log(samples.mean)[None], curve + noise])
    least = measure_least(null.form, samples.x, logs, 1 / variance)
    bent = np.min([measure_least(form, samples.x, logs, 1 / variance) for form in alternatives], axis=0)
    statistic = (least - bent) / np.maximum(bent, 1e-300)
    return float((1 + np.sum(statistic[1:] >= statistic[0])) / (1 + replicates))


def measure_least(form: str, x: np.ndarray, logs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return min Σ w (ln y − ln f)² over a form's curves, for many data: logs [R, K] → [R]."""
    family = FORMS[form]
    psi = family.grid(x)
    if family.logarithmic:  # linear in ln y: at each ψ what remains is one projection of the data
        whitened = family.basis(x, psi) * np.sqrt(weights)[:, None]
        directions = np.linalg.qr(whitened)[0]
        data = logs * np.sqrt(weights)
        explained = np.einsum("gkj,rk->rgj", directions, data)
        left = np.sum(data**2, axis=1)[:, None] - np.sum(explained**2, axis=2)
        return np.maximum(left.min(axis=1), 0)
    return solve_many(family, x, thin(psi, THIN), logs, weights)[1].min(axis=1)


def _describe(
    samples: Samples, method: str, scale: Interval, within: bool, bounded: bool, power_p: float, peak: Interval,
    break_scale: Interval, break_p: float,
) -> str:  # fmt: skip
    span = f"{samples.x[0]:g} … {samples.x[-1]:g}"
    if within:
        text = f"crossover ({method}) at {describe_scale(scale)}, p of a power law {power_p:.3f}"
    elif power_p >= ERROR:
        text = f"none within the sweep ({span}): a pure power law is not rejected (p = {power_p:.2f})"
    elif not bounded:
        text = (
            f"no scale within the sweep ({span}): the curve departs from a power law (p = {power_p:.3f}), "
            f"but {method} puts its scale at {describe_scale(scale)}"
        )
    if math.isfinite(peak.value):
        text += f"; largest at {describe_scale(peak)}"
    if break_p < ERROR:
        text += f"; a break at {break_scale.value:.0f} fits better than every smooth curve tried (p = {break_p:.3f})"
    elif math.isfinite(break_p):
        text += f"; no break: a smooth curve does as well (p = {break_p:.2f})"
    return text


def describe_scale(scale: Interval) -> str:
    """Return a scale with its interval as text."""
    value, low, high = (
        "∞" if math.isinf(end) else f"{float(f'{end:.3g}'):,g}" for end in (scale.value, scale.low, scale.high)
    )
    return f"{value} [{low}, {high}]"
