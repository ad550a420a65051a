"""Networks of four kinds on small images [N, H, W, C], as in published work, for estimates and benchmarks."""

import flax.linen as nn
import jax.numpy as jnp

from ntklens.models.mlp import MLP


class CNN(nn.Module):
    width: int
    classes: int
    depth: int = 2

    @nn.compact
    def __call__(self, x):
        for _ in range(self.depth):
            x = nn.relu(nn.Conv(self.width, (3, 3))(x))
        return nn.Dense(self.classes)(x.mean((1, 2)))


class ResNet(nn.Module):
    """Residual blocks before activation, GroupNorm, halved from the second block on."""

    width: int
    classes: int
    depth: int = 2

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(self.width, (3, 3), use_bias=False)(x)
        for block in range(self.depth):
            strides = 1 + (block > 0)
            y = nn.relu(nn.GroupNorm(num_groups=4)(x))
            skip = x if strides == 1 else nn.Conv(self.width, (1, 1), strides, use_bias=False)(y)
            y = nn.Conv(self.width, (3, 3), strides, use_bias=False)(y)
            y = nn.relu(nn.GroupNorm(num_groups=4)(y))
            x = skip + nn.Conv(self.width, (3, 3), use_bias=False)(y)
        x = nn.relu(nn.GroupNorm(num_groups=4)(x))
        return nn.Dense(self.classes)(x.mean((1, 2)))


class Transformer(nn.Module):
    """A vision transformer on patches of 2 × 2."""

    width: int
    classes: int
    depth: int = 2

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(self.width, (2, 2), strides=2)(x)
        x = x.reshape(x.shape[0], -1, self.width)
        x = x + self.param("position", nn.initializers.normal(0.02), x.shape[1:])[jnp.newaxis]
        for _ in range(self.depth):
            x = x + nn.MultiHeadDotProductAttention(num_heads=4)(nn.LayerNorm()(x))
            x = x + nn.Dense(self.width)(nn.gelu(nn.Dense(4 * self.width)(nn.LayerNorm()(x))))
        return nn.Dense(self.classes)(nn.LayerNorm()(x).mean(1))


NETWORKS = {
    "mlp": lambda width, classes: MLP(width, 2, classes),
    "cnn": CNN,
    "resnet": ResNet,
    "transformer": Transformer,
}
