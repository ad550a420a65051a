"""A model of one's own: any class or function whose result has `init(key, inputs)` and `apply(parameters, inputs)`."""

import jax
from flax import linen as nn


class ConvNet(nn.Module):
    """(Conv 3 × 3 (channels), relu, average pooling by 2) × depth → Dense(classes), for images [N, H, W, C]."""

    channels: int
    classes: int  # given by ntklens: the data's number of classes
    depth: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the logits [N, classes]."""
        if x.ndim != 4:
            raise ValueError(f"takes images [N, H, W, C], not inputs of shape {x.shape}")
        for _ in range(self.depth):
            x = nn.avg_pool(nn.relu(nn.Conv(self.channels, (3, 3))(x)), (2, 2), (2, 2))
        return nn.Dense(self.classes)(x.reshape(x.shape[0], -1))
