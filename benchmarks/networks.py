"""Convolutional networks and a vision transformer on 28 × 28 images, as functions of (params, x) → [N, C]."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

OUTPUTS = 10


class CNN(nn.Module):
    """Three 3 × 3 convolutions, of stride 1, 2, 2, and a mean over positions."""

    channels: int

    @nn.compact
    def __call__(self, x: Any) -> Any:
        """Logits [N, C] of images [N, 28, 28, 1]."""
        for stride in (1, 2, 2):
            x = jax.nn.relu(nn.Conv(self.channels, (3, 3), strides=stride)(x))
        return nn.Dense(OUTPUTS)(x.mean((1, 2)))


class ResNet(nn.Module):
    """A convolution of stride 2, two residual blocks of two convolutions after GroupNorm, a mean over positions."""

    channels: int

    @nn.compact
    def __call__(self, x: Any) -> Any:
        """Logits [N, C] of images [N, 28, 28, 1]."""
        convolve = functools.partial(nn.Conv, self.channels, (3, 3))
        norm = functools.partial(nn.GroupNorm, num_groups=8, force_float32_reductions=False)
        x = convolve(strides=2)(x)
        for _ in range(2):
            x = x + convolve()(jax.nn.relu(norm()(convolve()(jax.nn.relu(norm()(x))))))
        return nn.Dense(OUTPUTS)(x.mean((1, 2)))


class ViT(nn.Module):
    """Patches of 7 × 7, two blocks of attention (4 heads) and perceptron (4 times as wide), a mean over patches."""

    width: int

    @nn.compact
    def __call__(self, x: Any) -> Any:
        """Logits [N, C] of images [N, 28, 28, 1]."""
        norm = functools.partial(nn.LayerNorm, force_float32_reductions=False)
        x = nn.Conv(self.width, (7, 7), strides=7)(x).reshape(x.shape[0], -1, self.width)
        x = x + self.param("position", nn.initializers.normal(0.1), x.shape[1:])[None]
        for _ in range(2):
            x = x + nn.MultiHeadDotProductAttention(num_heads=4)(norm()(x))
            x = x + nn.Dense(self.width)(jax.nn.gelu(nn.Dense(4 * self.width)(norm()(x))))
        return nn.Dense(OUTPUTS)(x.mean(1))


NETWORKS = {
    "cnn 32": CNN(32),
    "cnn 64": CNN(64),
    "resnet 32": ResNet(32),
    "vit 64": ViT(64),
    "vit 128": ViT(128),
}


def make_network(name: str, samples: int) -> tuple[Callable, Any, Any]:
    """(apply, params, x) of a network by name, in float32, every parameter moved a little from where it starts."""
    module = NETWORKS[name]
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.random((samples, 28, 28, 1)), jnp.float32)
    params = jax.jit(module.init)(jax.random.key(0), x[:1])
    params = jax.tree.map(lambda a: a + 0.05 * jnp.asarray(rng.normal(size=a.shape), a.dtype), params)
    return module.apply, params, x
