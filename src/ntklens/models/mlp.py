"""Fully connected networks."""

import jax
from flax import linen as nn

from ntklens.models.activations import Activation
from ntklens.models.network import READOUT_LAYER, Network
from ntklens.models.parameterization import Parameterization


class MLP(Network, nn.Module):
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
    activation: Activation = "relu"
    bias: bool = True
    parameterization: Parameterization = "standard"
    base_width: int = 128
    output_scale: float | None = None
    linearised: bool = False

    INPUTS = ("hidden_0",)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the logits, shape [N, classes], of inputs of shape [N, …]."""
        activate = self._activate()
        h = x.reshape(x.shape[0], -1)
        for layer in range(self.depth):
            h = activate(self._dense(self.width, f"hidden_{layer}")(h))
        return self._dense(self.classes, READOUT_LAYER)(h)
