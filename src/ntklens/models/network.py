"""What the networks of ntklens share: the width ratio, the rules of a parameterisation, factors of Adam's rate."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import jax

from ntklens.models.activations import get_activation
from ntklens.models.layers import Convolution, Dense, Norm
from ntklens.models.parameterization import (
    HIDDEN,
    HIDDEN_BIAS,
    INPUT,
    READOUT,
    READOUT_BIAS,
    STANDARD,
    Rule,
    get_parameterization,
)

READOUT_LAYER = "readout"


class Network:
    """Layers of a flax.linen.Module that has these attributes, by the rules of its parameterisation.

    The kind of a leaf follows from its name: the layer "readout" is the readout, layers whose first name is in `INPUTS`
    take the inputs, all others are hidden.
    """

    INPUTS: ClassVar[tuple[str, ...]]  # the layers that take the inputs
    width: int
    base_width: int
    activation: str
    bias: bool
    parameterization: str

    def _activate(self) -> Callable[[jax.Array], jax.Array]:
        return get_activation(self.activation)

    def _dense(self, units: int, name: str, bias: bool | None = None) -> Dense:
        kernel, shift = self._get_rules(name)
        return Dense(units, kernel, shift if _choose(bias, self.bias) else None, self._ratio, name=name)

    def _convolution(self, units: int, size: int, stride: int, name: str, bias: bool | None = None) -> Convolution:
        kernel, shift = self._get_rules(name)
        shift_rule = shift if _choose(bias, self.bias) else None
        return Convolution(units, size, stride, kernel, shift_rule, self._ratio, name=name)

    def _norm(self, name: str, groups: int | None = None) -> Norm:
        rule = self._get_rules(name)[1]
        return Norm(groups, rule, rule if self.bias else None, self._ratio, name=name)

    def _get_rules(self, name: str) -> tuple[Rule, Rule]:
        rules = get_parameterization(self.parameterization)
        return rules[self._find_kind(name, "kernel")], rules[self._find_kind(name, "bias")]

    def _find_kind(self, layer: str, leaf: str) -> str:
        if layer == READOUT_LAYER:
            return READOUT_BIAS if leaf == "bias" else READOUT
        if leaf != "kernel":  # scales of norms are vectors over hidden units, too
            return HIDDEN_BIAS
        return INPUT if layer in self.INPUTS else HIDDEN

    @property
    def _ratio(self) -> float:
        return self.width / self.base_width

    def list_adam_factors(self, params: Any) -> Any:
        """Return by what the rate of Adam and AdamW is multiplied, leaf by leaf; None: the parameterisation has none.

        Args:
          params: what `init` returns.

        Returns:
          Numbers, in a tree like `params`.
        """
        if self.parameterization == STANDARD:
            return None
        rules = get_parameterization(self.parameterization)

        def compute(path: tuple, _leaf: Any) -> float:
            layer, leaf = (key.key for key in path[-2:])
            return self._ratio ** rules[self._find_kind(layer, leaf)].adam

        return jax.tree_util.tree_map_with_path(compute, params)


def check_images(x: jax.Array) -> None:
    """Raise a ValueError unless x has the shape of images, [N, H, W, channels]."""
    if x.ndim != 4 or math.prod(x.shape[1:]) == 0:
        raise ValueError(f"takes images [N, H, W, channels], not inputs of shape {list(x.shape)}; type model=mlp")


def _choose(given: bool | None, default: bool) -> bool:
    return default if given is None else given
