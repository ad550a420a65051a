"""Slope and curvature of the mean loss over a set of samples; products with the Hessian, never the matrix."""

from collections.abc import Callable
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import eigh_tridiagonal

from ntklens.training.ensemble import PRECISION, Params
from ntklens.training.losses import Loss
from ntklens.training.products import differentiate_by_products

BATCH = 2048  # samples whose activations are held at once
TOLERANCE = 1e-3  # relative, of the eigenvalue
MOST_PRODUCTS = 100  # with the Hessian

Apply = Callable[[Params, jax.Array], jax.Array]


class Slope(NamedTuple):
    """The mean loss, and its gradient: a tree like the parameters."""

    loss: jax.Array
    gradient: Params


@partial(jax.jit, static_argnames=("apply", "loss"))
def measure_slope(params: Params, inputs: jax.Array, labels: jax.Array, *, apply: Apply, loss: Loss) -> Slope:
    """Return L = (1/D) Σ_i loss(f(x_i), y_i) and ∇L.

    Args:
        params: of one network.
        inputs: shape [D, …].
        labels: shape [D].
        apply: (parameters, inputs [B, …]) → logits [B, C].
        loss: per-sample loss.
    """

    def add(total: Slope, batch: tuple[jax.Array, jax.Array]) -> tuple[Slope, None]:
        value, gradient = jax.value_and_grad(_sum_loss(apply, loss, *batch))(params)
        return jax.tree.map(jnp.add, total, Slope(value, gradient)), None

    dtype = jnp.result_type(*jax.tree.leaves(params))
    nothing = Slope(jnp.zeros((), dtype), jax.tree.map(jnp.zeros_like, params))
    with jax.default_matmul_precision(PRECISION):
        total, _ = jax.lax.scan(add, nothing, _split(inputs, labels))
    return jax.tree.map(lambda leaf: leaf / len(labels), total)


def measure_sharpness(params: Params, inputs: jax.Array, labels: jax.Array, *, apply: Apply, loss: Loss) -> float:
    """Return λ_max of ∇²L, the Hessian of the mean loss, to 0.1 %, by Lanczos' method.

    Three vectors of the parameters' size are held; the basis is not kept, because copies of an eigenvalue that rounding
    makes leave the largest one as it is.

    Args:
        params: of one network.
        inputs: shape [D, …].
        labels: shape [D].
        apply: (parameters, inputs [B, …]) → logits [B, C].
        loss: per-sample loss.

    Returns:
        The largest eigenvalue, not the largest in magnitude; NaN where a product is not finite.

    Source:
        Lanczos 1950; Golub & Van Loan, Matrix Computations, 10.1.
    """
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    drawn = [jax.random.normal(key, leaf.shape, leaf.dtype) for key, leaf in zip(keys, leaves, strict=True)]
    vector = jax.tree.unflatten(tree, drawn)
    vector = jax.tree.map(lambda leaf: leaf / jnp.sqrt(_dot(vector, vector)).astype(leaf.dtype), vector)
    previous = jax.tree.map(jnp.zeros_like, vector)
    diagonal, beside, size = [], [], jnp.zeros(())
    size_parameters = sum(leaf.size for leaf in leaves)
    largest = np.nan
    for count in range(1, min(MOST_PRODUCTS, size_parameters) + 1):
        vector, previous, share, size = multiply_once(
            vector, previous, size, params, inputs, labels, apply=apply, loss=loss
        )
        diagonal.append(float(share))
        beside.append(float(size))
        if not (np.isfinite(diagonal[-1]) and np.isfinite(beside[-1])):
            return np.nan
        values, vectors = eigh_tridiagonal(diagonal, beside[:-1], select="i", select_range=(count - 1, count - 1))
        largest = float(values[0])
        # The distance of an eigenvalue is at most the residual, and near the square of it over the gap.
        if beside[-1] * abs(vectors[-1, 0]) <= TOLERANCE * abs(largest):
            break
    return largest


@partial(jax.jit, static_argnames=("apply", "loss"))
def multiply_once(
    vector: Params, previous: Params, size: jax.Array, params: Params, inputs: jax.Array, labels: jax.Array, *,
    apply: Apply, loss: Loss,
) -> tuple[Params, Params, jax.Array, jax.Array]:  # fmt: skip
    """Return the next vector, this one, and the new entries of the tridiagonal matrix: on the diagonal, and beside."""
    product = _multiply(params, vector, inputs, labels, apply, loss)
    share = _dot(vector, product)

    def subtract(image: jax.Array, now: jax.Array, before: jax.Array) -> jax.Array:
        return image - share.astype(image.dtype) * now - size.astype(image.dtype) * before

    rest = jax.tree.map(subtract, product, vector, previous)
    length = jnp.sqrt(_dot(rest, rest))
    following = jax.tree.map(lambda leaf: leaf / jnp.where(length > 0, length, 1).astype(leaf.dtype), rest)
    return following, vector, share, length


def _multiply(params: Params, vector: Params, inputs: jax.Array, labels: jax.Array, apply: Apply, loss: Loss) -> Params:
    """Return ∇²L v: the derivative of the gradient along v."""

    def add(total: Params, batch: tuple[jax.Array, jax.Array]) -> tuple[Params, None]:
        _, product = jax.jvp(jax.grad(_sum_loss(apply, loss, *batch)), (params,), (vector,))
        return jax.tree.map(jnp.add, total, product), None

    with jax.default_matmul_precision(PRECISION):
        total, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), _split(inputs, labels))
    return jax.tree.map(lambda leaf: leaf / len(labels), total)


def _sum_loss(apply: Apply, loss: Loss, inputs: jax.Array, labels: jax.Array) -> Callable[[Params], jax.Array]:
    """Return parameters → the sum of the loss over samples whose label is not negative."""
    apply = differentiate_by_products(apply)

    def total(params: Params) -> jax.Array:
        return jnp.sum(jnp.where(labels >= 0, loss(apply(params, inputs), jnp.maximum(labels, 0)), 0))

    return total


def _split(inputs: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the samples in batches; the last is filled up with samples of label −1."""
    size = len(labels)
    batch = min(size, BATCH)
    padding = -size % batch
    inputs = jnp.pad(inputs, [(0, padding)] + [(0, 0)] * (inputs.ndim - 1))
    labels = jnp.pad(labels, (0, padding), constant_values=-1)
    return inputs.reshape(-1, batch, *inputs.shape[1:]), labels.reshape(-1, batch)


def _dot(left: Any, right: Any) -> jax.Array:
    products = [jnp.vdot(a, b) for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)]
    return reduce(jnp.add, products)
