"""Fully connected networks."""

import jax
from flax import linen as nn

from ntklens.models.activations import get_activation
from ntklens.models.parameterization import get_parameterization


class MLP(nn.Module):
    """flatten → (Dense(width), activation) × depth → Dense(classes).

    h_0 = vec(x);  h_l = φ(W_l h_{l-1} + b_l), l = 1 … depth;  f(x) = W_{depth+1} h_depth + b_{depth+1}.

    Attributes:
      width: units in each hidden layer.
      depth: number of hidden layers.
      classes: number of logits.
      activation: a key of `models.activations.ACTIVATIONS`.
      bias: whether layers have biases.
      parameterization: a key of `models.parameterization.PARAMETERIZATIONS`.
    """

    width: int
    depth: int
    classes: int
    activation: str = "relu"
    bias: bool = True
    parameterization: str = "standard"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the logits, shape (N, classes), of inputs of shape (N, …)."""
        table, activate = get_parameterization(self.parameterization), get_activation(self.activation)

        def dense(units: int, name: str) -> nn.Dense:
            return nn.Dense(
                units, use_bias=self.bias, kernel_init=table.kernel_init, bias_init=table.bias_init, name=name
            )

        h = x.reshape(x.shape[0], -1)
        for layer in range(self.depth):
            h = activate(dense(self.width, f"hidden_{layer}")(h))
        return dense(self.classes, "readout")(h)
