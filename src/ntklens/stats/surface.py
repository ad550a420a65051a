"""Loss over two axes at once, width m and number of training samples D: a joint surface, and where each limit holds."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from ntklens.errors import InputError
from ntklens.stats.overview import describe_interval, describe_joint_law
from ntklens.stats.powerlaw import Interval
from ntklens.stats.profile import find_quantile

MARGIN = 2  # points beyond the number of parameters
DOMINANT = 3.0  # one term over the other: beyond this factor a limit holds
FIRST_STEP, FARTHEST, NEAREST = 0.02, 30.0, 1e-6  # of a parameter, where the ends of its interval are looked for
ABSENT = -60.0  # ln of the size of a term that is left out
CLOSE = 0.02  # of the distance to an end, to which it is found
STARTS = ((0.3, 0.3), (0.5, 0.5), (1.0, 0.5), (0.5, 1.0), (1.0, 1.0))


@dataclass(frozen=True, repr=False)
class Surface:
    """A joint law y(m, D).

    Attributes:
      observable: what y is.
      axes: the overrides behind m and D.
      group: values of what else was swept.
      form: `additive` or `combined`.
      formula: for people.
      parameters: name → interval.
      misfit: r.m.s. of ln y − ln f.
      aicc: on the means, for comparing forms with each other.
      n: points.
      limited: (m, D) → `width`, `data` or `both`: what limits the loss there; shape of the grid's points.
      x: m, D of each point, shape [n, 2].
      mean: y of each point, shape [n].
    """

    observable: str
    axes: tuple[str, str]
    group: str
    form: str
    formula: str
    parameters: dict[str, Interval]
    misfit: float
    aicc: float
    n: int
    limited: tuple[str, ...]
    x: np.ndarray
    mean: np.ndarray

    def __repr__(self) -> str:
        """Return one line; the attributes hold the rest."""
        return describe_joint_law(self)


def _terms(theta: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return A m^−a and B D^−b with A, a, B, b = theta[:4], the sizes as logarithms."""
    return np.exp(theta[0] - theta[1] * np.log(x[:, 0])), np.exp(theta[2] - theta[3] * np.log(x[:, 1]))


def _additive(theta: np.ndarray, x: np.ndarray) -> np.ndarray:
    width, data = _terms(theta, x)
    return np.exp(theta[4]) + width + data


def _combined(theta: np.ndarray, x: np.ndarray) -> np.ndarray:
    width, data = _terms(theta, x)
    power = 1 / max(abs(theta[3]), 1e-6)
    return (width**power + data**power) ** (1 / power)


FORMS: dict[str, tuple[str, Callable[[np.ndarray, np.ndarray], np.ndarray], tuple[str, ...]]] = {
    # Hoffmann et al. 2022 (2203.15556), equation 10.
    "additive": ("y = E + A m^−a + B D^−b", _additive, ("A", "a", "B", "b", "E")),
    # Kaplan et al. 2020 (2001.08361), equation 1.5; its limits are the resolution-limited laws of Bahri et al. 2021.
    "combined": ("y = [(A m^−a)^(1/b) + B^(1/b)/D]^b", _combined, ("A", "a", "B", "b")),
}


def fit_surface(
    x: np.ndarray, mean: np.ndarray, observable: str, axes: tuple[str, str], form: str, group: str = ""
) -> Surface:
    """Fit a joint surface to means by least squares on their logarithms.

    An interval holds the values of a parameter that leave the sum of squares, least over the others, below
    (1 + t²/(n − p)) times its minimum; it is infinite where no value that could be told apart ends it.

    Args:
      x: m and D of each configuration, shape [n, 2], positive.
      mean: y, shape [n], positive.
      observable: what y is.
      axes: the overrides behind m and D.
      form: a name in `FORMS`.
      group: values of what else was swept.

    Returns:
      The surface with its parameters' intervals.

    Raises:
      InputError: on too few points, or fewer than three values along either axis; or if y is not positive.
    """
    formula, function, names = FORMS[form]
    if len(mean) < len(names) + MARGIN:
        raise InputError(f"needs {len(names) + MARGIN} configurations, there are {len(mean)}")
    if min(len(np.unique(x[:, 0])), len(np.unique(x[:, 1]))) < 3:
        raise InputError("needs three values along either axis")
    if not np.all(mean > 0):
        raise InputError("is not positive everywhere")
    logs = np.log(mean)

    def measure(theta: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore", divide="ignore"):
            return np.clip(np.log(function(theta, x)), -50, 50) - logs

    best = min((least_squares(measure, start) for start in _make_starts(x, mean, names)), key=lambda fit: fit.cost)
    allowed = best.cost * (1 + find_quantile(degrees := len(mean) - len(names)) ** 2 / degrees)
    without = {
        size: theta
        for size in range(0, len(names), 2)
        if (theta := _leave_out(measure, size, best.x, _make_starts(x, mean, names), allowed)) is not None
    }
    parameters = {}
    for index, name in enumerate(names):
        low, high = (
            side * math.inf
            if index - 1 in without or (index in without and side < 0)  # of a term that may be absent
            else _find_end(measure, best.x, index, side, allowed, list(without.values()))
            for side in (-1, 1)
        )
        ends = (float(best.x[index]), low, high)
        with np.errstate(over="ignore"):
            parameters[name] = Interval(*(map(float, np.exp(ends)) if name in ("A", "B", "E") else ends))
    size, n = len(names) + 1, len(mean)
    variance = max(2 * best.cost / n, 1e-300)
    aicc = n * math.log(variance) + 2 * size + (2 * size * (size + 1) / (n - size - 1) if n > size + 1 else math.inf)
    return Surface(
        observable, axes, group, form, formula, parameters, math.sqrt(2 * best.cost / n), aicc, n,
        tuple(_name_limit(*terms) for terms in zip(*_terms(best.x, x), strict=True)), x, mean,
    )  # fmt: skip


def _leave_out(
    measure: Callable[[np.ndarray], np.ndarray], size: int, best: np.ndarray, starts: list[np.ndarray], allowed: float
) -> np.ndarray | None:
    """Return the parameters of the best fit without one term, its exponent left as it is; None if that fit is too bad.

    Args:
      measure: of parameters → residuals.
      size: which parameter is the size of the term; its exponent stands behind it.
      best: the parameters with all terms.
      starts: where to look from.
      allowed: half sum of squares.
    """
    fixed = [size, size + 1] if size + 1 < len(best) else [size]
    free = [index for index in range(len(best)) if index not in fixed]

    def join(rest: np.ndarray) -> np.ndarray:
        theta = best.copy()
        theta[size], theta[free] = ABSENT, rest
        return theta

    fits = [least_squares(lambda rest: measure(join(rest)), start[free], method="lm") for start in [best, *starts]]
    found = min(fits, key=lambda fit: fit.cost)
    return join(found.x) if found.cost <= allowed else None


def _find_end(
    measure: Callable[[np.ndarray], np.ndarray],
    best: np.ndarray,
    index: int,
    side: int,
    allowed: float,
    others: list[np.ndarray],
) -> float:
    """Return how far one parameter can move to a side while the rest keep the half sum of squares below `allowed`.

    Args:
      measure: of parameters → residuals.
      best: the parameters of the best fit.
      index: which parameter.
      side: −1 or 1.
      allowed: half sum of squares.
      others: parameters of fits from which the rest are looked for as well.
    """

    def refit(value: float, start: np.ndarray) -> tuple[float, np.ndarray]:
        fits = [
            least_squares(lambda rest: measure(np.insert(rest, index, value)), np.delete(one, index), method="lm")
            for one in (start, *others)
        ]
        fit = min(fits, key=lambda fit: fit.cost)
        return float(fit.cost), np.insert(fit.x, index, value)

    theta, course, step = best, np.zeros_like(best), FIRST_STEP  # course: how the rest follow
    inside, outside = float(best[index]), None
    while outside is None or abs(outside - inside) > max(CLOSE * abs(outside - best[index]), NEAREST):
        trial = inside + side * step if outside is None else (inside + outside) / 2
        cost, found = refit(trial, theta + (trial - inside) * course)
        if cost > allowed:
            outside = trial
        elif abs(trial - best[index]) > FARTHEST:
            return side * math.inf
        else:
            course = (found - theta) / (trial - inside)
            inside, theta, step = trial, found, 2 * step
    return (inside + outside) / 2


def _make_starts(x: np.ndarray, mean: np.ndarray, names: tuple[str, ...]) -> list[np.ndarray]:
    starts = []
    for a, b in STARTS:
        centre = np.log(x).mean(axis=0)
        size = math.log(float(np.median(mean)) / 2)
        start = [size + a * centre[0], a, size + b * centre[1], b]
        starts.append(np.array(start + [math.log(float(mean.min()) / 2)] * (len(names) - 4)))
    return starts


def _name_limit(width: float, data: float) -> str:
    """Return which of the two terms is the larger one by the factor `DOMINANT`."""
    if width > DOMINANT * data:
        return "width"
    return "data" if data > DOMINANT * width else "both"


def describe_surface(surface: Surface) -> str:
    """Return one sentence: the exponents, and where each limit holds."""
    listed = ", ".join(
        f"{name} = {describe_interval(surface.parameters[name])}"
        for name in surface.parameters
        if name in ("a", "b", "E")
    )
    counts = {kind: surface.limited.count(kind) for kind in ("width", "data", "both")}
    return (
        f"{f'at {surface.group}, ' if surface.group else ''}{surface.formula}: {listed}; r.m.s. error "
        f"{surface.misfit:.1%}; of {surface.n} configurations {counts['width']} are "
        f"limited by {surface.axes[0]}, {counts['data']} by {surface.axes[1]}, {counts['both']} by both"
    )
