"""Fully connected networks."""

from typing import Any

import jax
from flax import linen as nn

from ntklens.models.activations import get_activation
from ntklens.models.dense import Dense
from ntklens.models.parameterization import (
    HIDDEN,
    HIDDEN_BIAS,
    INPUT,
    READOUT,
    READOUT_BIAS,
    STANDARD,
    get_parameterization,
)


class MLP(nn.Module):
    """flatten → (Dense(width), activation) × depth → Dense(classes).

    h_0 = vec(x);  h_l = φ(W_l h_{l-1} + b_l), l = 1 … depth;  f(x) = W_{depth+1} h_depth + b_{depth+1}.

    Attributes:
      width: units in each hidden layer.
      depth: number of hidden layers.
      classes: number of logits.
      activation: a key of `models.activations.ACTIVATIONS`.
      bias: whether layers have biases.
      parameterization: a key of `models.parameterization.TABLE`, which says how W and b are drawn, multiplied, stepped.
      base_width: the width at which all parameterisations are the same.
      output_scale: α of α (f − f_0), which then trains in place of f; None: f itself. See `training.controls`.
      linearised: whether the expansion of first order at the start trains beside the network.
    """

    width: int
    depth: int
    classes: int
    activation: str = "relu"
    bias: bool = True
    parameterization: str = "standard"
    base_width: int = 128
    output_scale: float | None = None
    linearised: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the logits, shape (N, classes), of inputs of shape (N, …)."""
        rules, activate = get_parameterization(self.parameterization), get_activation(self.activation)

        def dense(units: int, kernel: str, bias: str, name: str) -> Dense:
            return Dense(units, rules[kernel], rules[bias] if self.bias else None, self._ratio, name=name)

        h = x.reshape(x.shape[0], -1)
        for layer in range(self.depth):
            h = activate(dense(self.width, HIDDEN if layer else INPUT, HIDDEN_BIAS, f"hidden_{layer}")(h))
        return dense(self.classes, READOUT, READOUT_BIAS, "readout")(h)

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
            if layer == "readout":
                kind = READOUT_BIAS if leaf == "bias" else READOUT
            elif leaf == "bias":
                kind = HIDDEN_BIAS
            else:
                kind = INPUT if layer == "hidden_0" else HIDDEN
            return self._ratio ** rules[kind].adam

        return jax.tree_util.tree_map_with_path(compute, params)
