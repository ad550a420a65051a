"""Networks of many outputs: the kernel of a random projection of them."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

MOST_OUTPUTS = 128  # of a kernel: its spectrum costs (N C)³
SEED = 0  # of the projection: one for all runs, so that their kernels compare


@functools.lru_cache(maxsize=4)
def draw_projection(outputs: int, onto: int = MOST_OUTPUTS, seed: int = SEED) -> np.ndarray:
    """Return P, [C, K]: √(C/K) times K orthonormal columns, drawn uniformly (Haar).

    Pᵀ P = (C/K) 1 and E P Pᵀ = 1: Σ_i tr(Pᵀ Θ_ii P), the trace of the kernel of f P, is an unbiased estimate of Tr Θ,
    and exact where Θ_ii is a multiple of 1.

    Args:
        outputs: C.
        onto: K ≤ C.
        seed: of the draw.

    Returns:
        Array [C, K] of float64.

    Source: Stewart 1980, SIAM J. Numer. Anal. 17, 403 (uniform orthonormal matrices from a QR decomposition).
    """
    columns, triangle = np.linalg.qr(np.random.default_rng(seed).standard_normal((outputs, onto)))
    projection = np.sqrt(outputs / onto) * columns * np.sign(np.diag(triangle))
    projection.flags.writeable = False  # it is kept
    return projection


@dataclass(frozen=True)
class Projected:
    """f P of a function f, with `draw_projection`.

    Attributes:
        apply: f, (parameters, inputs [N, …]) → logits [N, C].
    """

    apply: Callable[[Any, Any], jax.Array]

    @property
    def __wrapped__(self) -> Callable[[Any, Any], jax.Array]:
        return self.apply

    def __call__(self, params: Any, x: Any) -> jax.Array:
        """Return f(x) P, [N, K]."""
        logits = self.apply(params, x)
        projection = jnp.asarray(draw_projection(logits.shape[-1]), logits.dtype)
        return jnp.dot(logits, projection, precision="highest")
