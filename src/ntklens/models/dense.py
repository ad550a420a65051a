"""A dense layer with multipliers in the forward pass."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from ntklens.models.parameterization import Rule


class Dense(nn.Module):
    """z = s_W (a W) + s_b b, of one width ratio r: s = r^multiplier, W of variance r^variance / fan_in, b = 0.

    The multiplier stands behind the product, where the kernel's engine sees W enter linearly. Where it is 1 it is left
    out: the program is then that of flax.linen.Dense.

    Attributes:
        units: outputs of the layer.
        kernel_rule: of W.
        bias_rule: of b; None: there is none.
        ratio: width / base_width.
    """

    units: int
    kernel_rule: Rule
    bias_rule: Rule | None
    ratio: float

    @nn.compact
    def __call__(self, a: jax.Array) -> jax.Array:
        """Return z, shape [N, units], of a, shape [N, fan_in]."""
        draw = nn.initializers.variance_scaling(self.ratio**self.kernel_rule.variance, "fan_in", "truncated_normal")
        kernel = self.param("kernel", draw, (a.shape[-1], self.units), jnp.float32)
        product = jax.lax.dot_general(a, kernel, (((1,), (0,)), ((), ())))
        z = _scale(product, self.ratio**self.kernel_rule.multiplier)
        if self.bias_rule is None:
            return z
        bias = self.param("bias", nn.initializers.zeros_init(), (self.units,), jnp.float32)
        return z + _scale(bias.reshape(1, -1), self.ratio**self.bias_rule.multiplier)


def _scale(array: jax.Array, factor: float) -> jax.Array:
    return array if factor == 1 else factor * array
