"""Layers with multipliers in the forward pass: dense, convolution, norm, embedding.

Each leaf w of a layer counts as r^multiplier · w and is drawn by its rule, with r the width ratio of the network
(`parameterization`). The multiplier stands behind the product, where the kernel's engine sees w enter linearly. Where
it is 1 it is left out: the program is then that of flax.linen.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from ntklens.models.parameterization import Rule

IMAGES = ("NHWC", "HWIO", "NHWC")
EPSILON = 1e-6  # of norms, as flax has it


class Dense(nn.Module):
    """z = s_W (a W) + s_b b, of one width ratio r: s = r^multiplier, W of variance r^variance / fan_in, b = 0.

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
        """Return z, shape [N, …, units], of a, shape [N, …, fan_in]."""
        kernel = self.param("kernel", _draw(self.kernel_rule, self.ratio), (a.shape[-1], self.units), jnp.float32)
        product = jax.lax.dot_general(a, kernel, (((a.ndim - 1,), (0,)), ((), ())))
        return _add_bias(self, _scale(product, self.ratio**self.kernel_rule.multiplier))


class Convolution(nn.Module):
    """z = s_W (a ∗ W) + s_b b: `Dense` over patches of `size` × `size` pixels, fan_in = size² · channels, zero padding.

    Attributes:
        units: channels of the result.
        size: height and width of the filter.
        stride: pixels from one patch to the next.
        kernel_rule: of W.
        bias_rule: of b; None: there is none.
        ratio: width / base_width.
    """

    units: int
    size: int
    stride: int
    kernel_rule: Rule
    bias_rule: Rule | None
    ratio: float

    @nn.compact
    def __call__(self, a: jax.Array) -> jax.Array:
        """Return z, shape [N, ⌈H / stride⌉, ⌈W / stride⌉, units], of a, shape [N, H, W, channels]."""
        shape = (self.size, self.size, a.shape[-1], self.units)
        kernel = self.param("kernel", _draw(self.kernel_rule, self.ratio), shape, jnp.float32)
        dtype = jnp.promote_types(a.dtype, kernel.dtype)
        a, kernel, strides = a.astype(dtype), kernel.astype(dtype), (self.stride, self.stride)
        product = jax.lax.conv_general_dilated(a, kernel, strides, "SAME", dimension_numbers=IMAGES)
        return _add_bias(self, _scale(product, self.ratio**self.kernel_rule.multiplier))


class Norm(nn.Module):
    """z = s_g g (a − mean) / √(variance + 10⁻⁶) + s_b b, with s_g g = 1 and b = 0 at the start.

    Attributes:
        groups: into how many groups of channels a is cut; mean and variance are of a group, over all positions. None:
            of all channels, at each position alone (LayerNorm).
        scale_rule: of g.
        bias_rule: of b; None: there is none.
        ratio: width / base_width.

    Raises:
        ValueError: if the channels are no multiple of the groups.

    Sources: Ba et al. 2016 (1607.06450); Wu & He 2018 (1803.08494) for groups.
    """

    groups: int | None
    scale_rule: Rule
    bias_rule: Rule | None
    ratio: float

    @nn.compact
    def __call__(self, a: jax.Array) -> jax.Array:
        """Return z of a, both of shape [N, …, channels]."""
        channels, shape = a.shape[-1], a.shape
        axes: tuple[int, ...] = (-1,)
        if self.groups is not None:
            if channels % self.groups:
                raise ValueError(f"{channels} channels are not a multiple of groups={self.groups}")
            a = a.reshape(*shape[:-1], self.groups, channels // self.groups)
            axes = (*range(1, a.ndim - 2), a.ndim - 1)
        centred = a - a.mean(axes, keepdims=True)
        normal = centred * jax.lax.rsqrt(jnp.mean(jnp.square(centred), axes, keepdims=True) + EPSILON)
        multiplier = self.ratio**self.scale_rule.multiplier
        scale = self.param("scale", nn.initializers.constant(1 / multiplier), (channels,), jnp.float32)
        return _add_bias(self, _scale(normal.reshape(shape) * _as_last(scale, len(shape)), multiplier))


class Embedding(nn.Module):
    """One vector for each token: row t of s_W W, W of variance r^variance · `variance`; NaN for what is no token.

    Attributes:
        count: number of tokens; tokens are 0 … count − 1.
        units: length of a vector.
        variance: of W where r = 1.
        kernel_rule: of W.
        ratio: width / base_width.
    """

    count: int
    units: int
    variance: float
    kernel_rule: Rule
    ratio: float

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Return the vectors [N, T, units] of tokens [N, T]."""
        deviation = (self.variance * self.ratio**self.kernel_rule.variance) ** 0.5
        draw = nn.initializers.truncated_normal(deviation / TRUNCATED, lower=-2.0, upper=2.0)
        kernel = self.param("kernel", draw, (self.count, self.units), jnp.float32)
        known = (tokens >= 0) & (tokens < self.count)
        chosen = jnp.where(known[..., None], jax.nn.one_hot(tokens, self.count, dtype=kernel.dtype), jnp.nan)
        product = jax.lax.dot_general(chosen, kernel, (((tokens.ndim,), (0,)), ((), ())))
        return _scale(product, self.ratio**self.kernel_rule.multiplier)


TRUNCATED = 0.87962566103423978  # standard deviation of a standard normal cut at ± 2, as in jax.nn.initializers


def _draw(rule: Rule, ratio: float) -> nn.initializers.Initializer:
    return nn.initializers.variance_scaling(ratio**rule.variance, "fan_in", "truncated_normal")


def _add_bias(layer: "Dense | Convolution | Norm", z: jax.Array) -> jax.Array:
    if layer.bias_rule is None:
        return z
    bias = layer.param("bias", nn.initializers.zeros_init(), (z.shape[-1],), jnp.float32)
    return z + _scale(_as_last(bias, z.ndim), layer.ratio**layer.bias_rule.multiplier)


def _as_last(array: jax.Array, rank: int) -> jax.Array:
    return array.reshape((1,) * (rank - 1) + (-1,))


def _scale(array: jax.Array, factor: float) -> jax.Array:
    return array if factor == 1 else factor * array
