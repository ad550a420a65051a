"""Training losses, per sample; a batch takes their mean."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

Loss = Callable[[jax.Array, jax.Array], jax.Array]


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return −ln softmax(f)_y, shape [N], of logits [N, C] and labels [N]."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def mse(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return (1/C) Σ_c (f_c − [c = y])², shape [N], of logits [N, C] and labels [N]."""
    targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return jnp.mean((logits - targets) ** 2, axis=-1)


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "mse": mse}
