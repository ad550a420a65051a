"""Convolutional networks."""

from typing import Literal

import jax
from flax import linen as nn

from ntklens.errors import InputError
from ntklens.models.activations import Activation
from ntklens.models.network import READOUT_LAYER, Network, check_images
from ntklens.models.parameterization import Parameterization

Pooling = Literal["average", "max", "none"]
POOLINGS = {"average": nn.avg_pool, "max": nn.max_pool, "none": None}
WINDOW = (2, 2)


class CNN(Network, nn.Module):
    """(Conv(width), activation, pooling) × depth → mean over positions → Dense(classes).

    h_0 = x;  h_l = pool(φ(W_l ∗ h_{l-1} + b_l)), l = 1 … depth;  f(x) = W_{depth+1} ⟨h_depth⟩ + b_{depth+1}.

    Filters are `kernel_size` × `kernel_size` pixels with zero padding, so fan_in = kernel_size² · channels; pooling is
    over 2 × 2 pixels, an odd row or column left out.

    Attributes:
      width: channels of each convolution.
      depth: number of convolutions.
      classes: number of logits.
      kernel_size: height and width of the filters, in pixels.
      stride: of every convolution, in pixels.
      pooling: a key of `POOLINGS`.
      global_average: whether the readout reads the mean over positions; else all positions.
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
    kernel_size: int = 3
    stride: int = 1
    pooling: Pooling = "average"
    global_average: bool = True
    activation: Activation = "relu"
    bias: bool = True
    parameterization: Parameterization = "standard"
    base_width: int = 128
    output_scale: float | None = None
    linearised: bool = False

    INPUTS = ("conv_0",)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the logits [N, classes] of images [N, H, W, channels]."""
        check_images(x)
        if self.pooling not in POOLINGS:
            raise InputError(f"model.pooling={self.pooling}: must be one of {', '.join(POOLINGS)}")
        activate, pool = self._activate(), POOLINGS[self.pooling]
        h = x
        for layer in range(self.depth):
            h = activate(self._convolution(self.width, self.kernel_size, self.stride, f"conv_{layer}")(h))
            if pool is not None:
                if min(h.shape[1:3]) < WINDOW[0]:
                    raise InputError(
                        f"model.depth={self.depth}: images of {x.shape[1]} × {x.shape[2]} pixels are too small to pool "
                        f"{self.depth} times; type model.depth={layer}, or model.pooling=none"
                    )
                h = pool(h, WINDOW, WINDOW)
        h = h.mean((1, 2)) if self.global_average else h.reshape(h.shape[0], -1)
        return self._dense(self.classes, READOUT_LAYER)(h)
