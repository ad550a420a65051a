"""How a layer's weights are drawn and scaled with its width: one entry per parameterisation."""

from collections.abc import Callable
from dataclasses import dataclass

from flax import linen as nn

from ntklens.errors import InputError


@dataclass(frozen=True)
class Parameterization:
    """Initialisers of a dense layer."""

    kernel_init: Callable
    bias_init: Callable


PARAMETERIZATIONS = {
    # W ~ truncated normal of variance 1 / fan_in (LeCun et al. 1998), b = 0, no scale in the forward pass.
    "standard": Parameterization(nn.initializers.lecun_normal(), nn.initializers.zeros_init()),
}


def get_parameterization(name: str) -> Parameterization:
    """Return the entry called `name`.

    Raises:
      InputError: if there is none.
    """
    if name not in PARAMETERIZATIONS:
        raise InputError(f"model.parameterization={name}: must be one of {', '.join(PARAMETERIZATIONS)}")
    return PARAMETERIZATIONS[name]
