"""The forms that a law may have: curves in x, linear in all their parameters but at most one."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

POINTS = 161  # of a grid over the parameter that is not linear
REACH = 300.0  # how far beyond the sweep, as a factor, a scale is looked for


@dataclass(frozen=True)
class Form:
    """A family of curves f(x).

        logarithmic:  ln f = Σ_j c_j φ_j(x; ψ)
        otherwise:       f = Σ_j c_j φ_j(x; ψ)

    Attributes:
      formula: for people.
      linear: names of the parameters c, or, where the form is logarithmic, of exp(c_0), c_1, ….
      nonlinear: name of ψ, or None.
      logarithmic: see above.
      basis: (x [K], ψ [G]) → φ of shape [G, K, J].
      grid: x → values of ψ to look at, shape [G], ascending.
      margin: points that a fit needs beyond the number of parameters.
    """

    formula: str
    linear: tuple[str, ...]
    nonlinear: str | None
    logarithmic: bool
    basis: Callable[[np.ndarray, np.ndarray], np.ndarray]
    grid: Callable[[np.ndarray], np.ndarray]
    margin: int = 2

    @property
    def size(self) -> int:
        """Number of parameters."""
        return len(self.linear) + (self.nonlinear is not None)

    @property
    def least_points(self) -> int:
        """Points that a fit needs: with fewer, no interval means anything."""
        return self.size + self.margin


def _stack(*columns: np.ndarray) -> np.ndarray:
    return np.stack(np.broadcast_arrays(*columns), axis=-1)


def _no_grid(x: np.ndarray) -> np.ndarray:
    return np.ones(1)


def _scales(x: np.ndarray) -> np.ndarray:
    return np.geomspace(x.min() / REACH, x.max() * REACH, POINTS)


def _knots(x: np.ndarray) -> np.ndarray:
    """Two points on each side of a break, or its slopes would be free to follow noise."""
    return np.geomspace(x[1], x[-2], POINTS)


def _decays(x: np.ndarray) -> np.ndarray:
    return -np.geomspace(6.0, 0.01, POINTS)


def _power(x: np.ndarray, psi: np.ndarray) -> np.ndarray:
    return _stack(np.ones((len(psi), 1)), np.log(x)[None])


def _affine(x: np.ndarray, psi: np.ndarray) -> np.ndarray:
    return _stack(np.ones((len(psi), 1)), x[None])


def _offset_power(x: np.ndarray, psi: np.ndarray) -> np.ndarray:
    return _stack(np.ones((len(psi), 1)), x[None] ** psi[:, None])


def _plateau_power(x: np.ndarray, psi: np.ndarray) -> np.ndarray:
    return _stack(np.ones((len(psi), 1)), np.log1p(x[None] / psi[:, None]))


def _power_plateau(x: np.ndarray, psi: np.ndarray) -> np.ndarray:
    return _stack(np.ones((len(psi), 1)), np.log(x)[None] - np.log1p(x[None] / psi[:, None]))


def _crossover(x: np.ndarray, psi: np.ndarray, sharpness: float = 1.0) -> np.ndarray:
    above = np.log1p((x[None] / psi[:, None]) ** sharpness) / sharpness
    return _stack(np.ones((len(psi), 1)), np.log(x)[None] - above, above)


def _make_crossover(sharpness: float) -> Form:
    return Form(
        f"y = A x^α (1 + (x/x*)^{sharpness:g})^((α'−α)/{sharpness:g})", ("amplitude", "exponent", "exponent_above"),
        "scale", True, functools.partial(_crossover, sharpness=sharpness), _scales,
    )  # fmt: skip


def _broken_power(x: np.ndarray, psi: np.ndarray) -> np.ndarray:
    above = np.maximum(np.log(x)[None] - np.log(psi)[:, None], 0)
    return _stack(np.ones((len(psi), 1)), np.log(x)[None] - above, above)


def _parabola(x: np.ndarray, psi: np.ndarray) -> np.ndarray:
    return _stack(np.ones((len(psi), 1)), np.log(x)[None], np.log(x)[None] ** 2)


FORMS: dict[str, Form] = {
    "power": Form("y = A x^α", ("amplitude", "exponent"), None, True, _power, _no_grid),
    "affine": Form("y = a + b x", ("intercept", "slope"), None, False, _affine, _no_grid),
    "offset_power": Form(
        "y = y_∞ + A x^α, α < 0", ("offset", "amplitude"), "exponent", False, _offset_power, _decays
    ),
    "plateau_power": Form("y = A (1 + x/x*)^α", ("amplitude", "exponent"), "scale", True, _plateau_power, _scales),
    "power_plateau": Form(
        "y = A x^α (1 + x/x*)^−α", ("amplitude", "exponent"), "scale", True, _power_plateau, _scales
    ),
    "crossover": Form(
        "y = A x^α (1 + x/x*)^(α'−α)", ("amplitude", "exponent", "exponent_above"), "scale", True, _crossover, _scales
    ),
    "crossover_2": _make_crossover(2.0),
    "crossover_4": _make_crossover(4.0),
    "broken_power": Form(
        "y = A x^α up to x*, slope α' beyond", ("amplitude", "exponent", "exponent_above"), "scale", True,
        _broken_power, _knots,
    ),
    "parabola": Form(
        "ln y = a + b ln x + c (ln x)²", ("amplitude", "slope", "curvature"), None, True, _parabola, _no_grid
    ),
}  # fmt: skip
SMOOTH = (
    "power", "affine", "offset_power", "plateau_power", "power_plateau", "crossover", "crossover_2", "crossover_4",
)  # fmt: skip
