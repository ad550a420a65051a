"""Kernel regression: what a network would predict whose kernel never moved.

    f(x) = f_0(x) + k(x, X) (k(X, X) + λ 1)^(−1) (Y − f_0(X)),  λ = `RIDGE` · Tr k(X, X) / n,

is the end of gradient descent on the mean squared error with a fixed kernel k ⊗ I_C, for λ → 0. Of an empirical kernel
k(x, x') = (1/C) Σ_c Θ[(x,c),(x',c)], n × n: the whole Θ on a training set has (n C)² entries.

Sources: Jacot et al. 2018 (1806.07572); Vyas et al. 2022 (2206.10012), who compare it with the network's own loss.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ntklens.ntk.structured import kernel

RIDGE = 1e-4  # of the mean eigenvalue of k(X, X)
LARGEST = 2000  # training samples


class Regression(NamedTuple):
    """How well a kernel predicts the test samples.

    Attributes:
        loss: mean over samples and outputs of (f_c − [c = y])².
        accuracy: fraction whose largest output is the label.
    """

    loss: float
    accuracy: float


def average_outputs(f: Callable[[Any, jax.Array], jax.Array], params: Any, x1: jax.Array, x2: jax.Array) -> jax.Array:
    """Return k[i,j] = (1/C) Σ_c Θ[(i,c),(j,c)], output by output.

    Args:
        f: function f(params, x) → [N, C].
        params: pytree of parameters.
        x1: inputs [N, …].
        x2: inputs [N2, …].

    Returns:
        Array [N, N2].
    """
    outputs = jax.eval_shape(f, params, x1[:1])

    def add(total: jax.Array, unit: jax.Array) -> tuple[jax.Array, None]:
        return total + kernel(lambda p, x: f(p, x) @ unit[:, None], params, x1, x2)[:, 0, :, 0], None

    start = jnp.zeros((len(x1), len(x2)), outputs.dtype)
    total, _ = jax.lax.scan(add, start, jnp.eye(outputs.shape[1], dtype=outputs.dtype))
    return total / outputs.shape[1]


def regress(
    train_kernel: Any, test_kernel: Any, start: tuple[Any, Any], labels: tuple[Any, Any], ridge: float = RIDGE
) -> Regression:
    """Return how well a kernel predicts test samples, in float64.

    Args:
        train_kernel: k(X, X), [n, n].
        test_kernel: k(x, X), [t, n].
        start: f_0 of the training samples [n, C], and of the test samples [t, C].
        labels: of the training samples [n], and of the test samples [t].
        ridge: λ in units of the mean eigenvalue of k(X, X).
    """
    matrix, across = (np.asarray(one, np.float64) for one in (train_kernel, test_kernel))
    before, after = (np.asarray(one, np.float64) for one in start)
    known, wanted = (np.eye(before.shape[1])[np.asarray(one)] for one in labels)
    damped = matrix + ridge * np.trace(matrix) / len(matrix) * np.eye(len(matrix))
    predicted = after + across @ np.linalg.solve(damped, known - before)
    hits = predicted.argmax(axis=1) == np.asarray(labels[1])
    return Regression(float(np.mean((predicted - wanted) ** 2)), float(hits.mean()))
