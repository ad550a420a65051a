"""Generalised least squares of a form by variable projection, and intervals from the profile of what it minimises."""

import functools
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from ntklens.stats.forms import Form

LEVEL = 0.95
STEPS = 12  # of Gauss–Newton; the first is already right to the square of the relative noise
RIDGE = 1e-13  # beside ones on the diagonal: columns that nearly agree are no error
FINE = 121  # points of the refined grid
LEAST_SCALE = 0.25  # chosen by coverage at five seeds without intrinsic scatter, where weights are least sure
WIDENING = 1.2  # without it intervals of crossover scales cover the truth in 91.7 % at worst
ROUNDS = 3  # in which the grid is refined about the minimum


@dataclass(frozen=True)
class Profile:
    """The least sum of squares that each ψ allows, and the linear parameters there.

    Attributes:
      form: what was fitted.
      psi: ψ, ascending, shape [G].
      coefficients: c at each ψ, shape [G, J].
      whitened: √W ∂ ln f/∂c at each ψ, shape [G, K, J].
      loss: Σ w (ln y − ln f)² at each ψ, shape [G].
      degrees: K − number of parameters.
      residuals: ln y − ln f at the best ψ, shape [K].
    """

    form: Form
    psi: np.ndarray
    coefficients: np.ndarray
    whitened: np.ndarray
    loss: np.ndarray
    degrees: int
    residuals: np.ndarray

    @functools.cached_property  # most fits are rounds on the way to another, and never asked for it
    def covariance(self) -> np.ndarray:
        """(Jᵀ W J)⁻¹ at each ψ, shape [G, J, J]."""
        return np.linalg.pinv(np.einsum("gki,gkj->gij", self.whitened, self.whitened), hermitian=True)

    @property
    def best(self) -> int:
        """Where the sum of squares is least."""
        return int(np.argmin(self.loss))

    @property
    def scale(self) -> float:
        """Σ w r² / (K − p): 1 if the weights are right; the factor of Knapp & Hartung 2003.

        Few points may lie much closer to a curve than their own errors, by chance: not believed beyond a limit.
        """
        return max(LEAST_SCALE, float(self.loss[self.best] / self.degrees))

    @property
    def threshold(self) -> float:
        """By how much Σ w r² may grow within the interval: scale · t², a little more for curves that are not linear."""
        widening = WIDENING if self.form.nonlinear else 1.0
        return widening * self.scale * find_quantile(self.degrees) ** 2

    def find_psi_interval(self) -> tuple[float, float]:
        """Return where the profile stays below the threshold; infinite where it does so to the end of the grid."""
        slack = self.threshold - (self.loss - self.loss[self.best])
        inside = np.flatnonzero(slack >= 0)
        first, last = int(inside[0]), int(inside[-1])
        return self._cross(first, -1, slack), self._cross(last, 1, slack)

    def _cross(self, index: int, step: int, slack: np.ndarray) -> float:
        other = index + step
        if not 0 <= other < len(self.psi):
            return step * np.inf
        if not np.isfinite(slack[other]):
            return float(self.psi[other])
        share = slack[index] / (slack[index] - slack[other])
        return float(self.psi[index] + share * (self.psi[other] - self.psi[index]))

    def find_interval(self, gradient: np.ndarray) -> tuple[float, float, float]:
        """Return value, low and high of g·c.

        The set of all values that some ψ allows: at each ψ, g·c is known to ± √(slack · gᵀ cov g).

        Args:
          gradient: g at each ψ, shape [G, J].
        """
        values = np.einsum("gj,gj->g", gradient, self.coefficients)
        slack = self.threshold - (self.loss - self.loss[self.best])
        spread = np.einsum("gi,gij,gj->g", gradient, self.covariance, gradient)
        half = np.sqrt(np.clip(slack, 0, None) * np.clip(spread, 0, None))
        inside = slack >= 0
        return float(values[self.best]), float((values - half)[inside].min()), float((values + half)[inside].max())

    def predict_logs(self, x: np.ndarray) -> np.ndarray:
        """Return ln f(x) at the best ψ, shape like x."""
        at = slice(self.best, self.best + 1)
        return evaluate(self.form.basis(x, self.psi[at]), self.coefficients[at], self.form.logarithmic)[0]

    def predict_band(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the ends of the interval of ln f at each x, shape like x."""
        basis = self.form.basis(x, self.psi)
        low, high = np.empty(len(x)), np.empty(len(x))
        for number in range(len(x)):
            _, low[number], high[number] = self.find_interval(basis[:, number])
        if not self.form.logarithmic:
            with np.errstate(invalid="ignore", divide="ignore"):
                low, high = np.log(np.where(low > 0, low, np.nan)), np.log(np.where(high > 0, high, np.nan))
        return low, high


@functools.cache
def find_quantile(degrees: float) -> float:
    """Return the quantile of Student's t that a two-sided interval at `LEVEL` reaches to."""
    return float(student.ppf((1 + LEVEL) / 2, degrees))


def evaluate(basis: np.ndarray, coefficients: np.ndarray, logarithmic: bool) -> np.ndarray:
    """Return ln f, shape [G, K], NaN where f is not positive; basis [G, K, J], coefficients [G, J]."""
    f = np.einsum("gkj,gj->gk", basis, coefficients)
    if logarithmic:
        return f
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.log(np.where(f > 0, f, np.nan))


def solve(
    basis: np.ndarray, logs: np.ndarray, weights: np.ndarray, logarithmic: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Minimise Σ w (ln y − ln f)² over the linear parameters, for many bases or many y at once.

    Args:
      basis: φ, shape [G, K, J].
      logs: ln y, shape [K] or [G, K].
      weights: w, shape [K].
      logarithmic: whether Σ c φ is ln f, and not f.

    Returns:
      Coefficients [G, J], loss [G] (infinite where no f is positive everywhere), and the Jacobian of ln f [G, K, J].
    """
    root = np.sqrt(weights)
    logs = np.broadcast_to(logs, basis.shape[:2])
    if logarithmic:
        coefficients = _least_squares(basis * root[:, None], logs * root)
        loss = np.sum(weights * (logs - evaluate(basis, coefficients, True)) ** 2, axis=1)
        return coefficients, loss, basis
    relative = basis / np.exp(logs)[:, :, None]
    coefficients = _least_squares(relative * root[:, None], np.broadcast_to(root, logs.shape))
    loss = _measure_loss(basis, coefficients, logs, weights)
    moving = np.flatnonzero(np.isfinite(loss))  # those that a step does not improve have arrived
    for _ in range(STEPS):
        if not len(moving):
            break
        own = basis[moving]
        f = np.einsum("gkj,gj->gk", own, coefficients[moving])
        change = _least_squares(own / f[:, :, None] * root[:, None], (logs[moving] - np.log(f)) * root)
        trial = coefficients[moving] + change
        trial_loss = _measure_loss(own, trial, logs[moving], weights)
        better = trial_loss < loss[moving]
        moving = moving[better]
        coefficients[moving], loss[moving] = trial[better], trial_loss[better]
    f = np.einsum("gkj,gj->gk", basis, coefficients)
    jacobian = basis / np.where(np.isfinite(loss)[:, None], f, np.exp(logs))[:, :, None]
    return coefficients, loss, jacobian


def solve_many(
    form: Form, x: np.ndarray, psi: np.ndarray, logs: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a form at each ψ to many data.

    Args:
      form: the family.
      x: axis values, shape [K].
      psi: ψ, shape [G].
      logs: ln y, shape [R, K].
      weights: w, shape [K].

    Returns:
      Coefficients [R, G, J] and loss [R, G].
    """
    basis = form.basis(x, psi)
    if form.logarithmic:  # linear in ln y: one solution operator at each ψ serves all data
        root = np.sqrt(weights)
        operator = _least_squares(basis * root[:, None], np.broadcast_to(np.diag(root), (len(psi), len(x), len(x))))
        found = operator @ logs.T
        loss = np.sum(weights[:, None] * (logs.T - basis @ found) ** 2, axis=1)
        return np.moveaxis(found, 2, 0), loss.T
    shape = (len(logs), *basis.shape)
    coefficients, loss, _ = solve(
        np.broadcast_to(basis, shape).reshape(-1, *basis.shape[1:]),
        np.broadcast_to(logs[:, None], shape[:3]).reshape(-1, len(x)),
        weights,
        form.logarithmic,
    )
    return coefficients.reshape(*shape[:2], -1), loss.reshape(shape[:2])


def thin(psi: np.ndarray, most: int) -> np.ndarray:
    """Return at most so many values of a grid, its ends among them."""
    return psi[np.unique(np.linspace(0, len(psi) - 1, most).astype(int))]


def _least_squares(matrix: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the least-squares solutions of many small systems: [G, K, J], [G, K] → [G, J], or [G, K, M] → [G, J, M].

    By normal equations of columns scaled to length 1, which for two or three columns are accurate enough, and by
    elimination in all systems at once: numpy's loops run along the last axis, over systems and not over two columns.
    """
    columns = target if target.ndim == 3 else target[..., None]
    basis, right = (np.ascontiguousarray(a.transpose(1, 2, 0)) for a in (matrix, columns))  # (K, J, G), (K, M, G)
    size = np.sqrt(np.sum(basis**2, axis=0))
    size = np.where(size > 0, size, 1.0)
    scaled = (basis / size)[:, :, None]
    equations = np.sum(scaled * np.concatenate([scaled[:, :, 0], right], axis=1)[:, None], axis=0)  # (J, J + M, G)
    for row in range(len(equations)):  # Gauss–Jordan; no pivots: the matrix is symmetric and positive
        equations[row, row] += RIDGE
    for row, pivot in enumerate(equations):
        pivot /= pivot[row].copy()
        factor = equations[:, row].copy()
        factor[row] = 0.0
        equations -= factor[:, None] * pivot
    found = (equations[:, len(equations) :] / size[:, None]).transpose(2, 0, 1)  # (G, J, M)
    return found if target.ndim == 3 else found[..., 0]


def _measure_loss(basis: np.ndarray, coefficients: np.ndarray, logs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    residuals = logs - evaluate(basis, coefficients, False)
    return np.where(np.isfinite(residuals).all(axis=1), np.sum(weights * residuals**2, axis=1), np.inf)


def profile(form: Form, x: np.ndarray, logs: np.ndarray, weights: np.ndarray, rounds: int = ROUNDS) -> Profile | None:
    """Fit a form, and follow the least loss over ψ.

    Args:
      form: the family.
      x: axis values, shape [K], ascending.
      logs: ln y, shape [K].
      weights: inverse variances of ln y, shape [K].
      rounds: in which the grid of ψ is refined.

    Returns:
      The profile; None if no member of the family is positive at every x.
    """
    psi = form.grid(x)
    coefficients, loss, jacobian = solve(form.basis(x, psi), logs, weights, form.logarithmic)
    if not np.isfinite(loss).any():
        return None
    degrees = len(x) - form.size
    for _ in range(rounds if len(psi) > 1 else 0):
        new = _refine(psi, loss, degrees)
        added = solve(form.basis(x, new), logs, weights, form.logarithmic)
        psi, order = np.unique(np.concatenate([psi, new]), return_index=True)
        coefficients, loss, jacobian = (
            np.concatenate([old, more])[order] for old, more in zip((coefficients, loss, jacobian), added, strict=True)
        )
    best = slice(int(np.argmin(loss)), int(np.argmin(loss)) + 1)
    residuals = logs - evaluate(form.basis(x, psi[best]), coefficients[best], form.logarithmic)[0]
    return Profile(form, psi, coefficients, jacobian * np.sqrt(weights)[:, None], loss, degrees, residuals)


def _refine(psi: np.ndarray, loss: np.ndarray, degrees: int) -> np.ndarray:
    """Return points to add to the grid: between the neighbours of the minimum, and across the interval's ends."""
    best = int(np.argmin(loss))
    allowed = loss[best] + WIDENING * max(LEAST_SCALE, loss[best] / degrees) * find_quantile(degrees) ** 2
    inside = np.flatnonzero(loss <= allowed)
    spans = {(max(best - 1, 0), min(best + 1, len(psi) - 1))}
    spans |= {(max(inside[0] - 1, 0), inside[0]), (inside[-1], min(inside[-1] + 1, len(psi) - 1))}
    if len(inside) < FINE // 4:
        spans.add((max(inside[0] - 1, 0), min(inside[-1] + 1, len(psi) - 1)))
    share = np.linspace(0, 1, FINE // 4 + 2)[1:-1]
    return np.concatenate([psi[low] + share * (psi[high] - psi[low]) for low, high in spans if high > low])
