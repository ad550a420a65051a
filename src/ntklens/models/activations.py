"""Pointwise nonlinearities by name."""

from collections.abc import Callable
from typing import Literal

import jax
from flax import linen as nn

from ntklens.errors import InputError

Activation = Literal["relu", "tanh", "gelu", "silu", "erf", "linear"]
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "tanh": nn.tanh,
    "gelu": nn.gelu,
    "silu": nn.silu,
    "erf": jax.scipy.special.erf,
    "linear": lambda x: x,
}


def get_activation(name: str) -> Callable[[jax.Array], jax.Array]:
    """Return the function called `name`.

    Raises:
      InputError: if there is none.
    """
    if name not in ACTIVATIONS:
        raise InputError(f"model.activation={name}: must be one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]
