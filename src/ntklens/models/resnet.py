"""Residual convolutional networks."""

import jax
from flax import linen as nn

from ntklens.errors import InputError
from ntklens.models.activations import Activation
from ntklens.models.network import READOUT_LAYER, Network, check_images
from ntklens.models.parameterization import Parameterization

SIZE = 3  # of the filters, in pixels
STEM, NORM, SHORTCUT = "stem", "norm", "shortcut"


class ResNet(Network, nn.Module):
    """Conv(width) → pre-activation blocks → norm, activation → mean over positions → Dense(classes).

    A block of two 3 × 3 convolutions: h ← S h + W_2 ∗ φ(norm(W_1 ∗ φ(norm(h)))), S the identity. Stage s = 0, 1, … has
    `depth` blocks of 2^s · width channels; from the second on, its first block halves height and width, and its S is a
    1 × 1 convolution. Norms are GroupNorms, which couple no samples. Convolutions have no biases: norms have.

    Source: He et al. 2016 (1603.05027, the pre-activation unit); Wu & He 2018 (1803.08494, GroupNorm in its place).

    Attributes:
      width: channels of the first stage.
      depth: blocks of each stage.
      classes: number of logits.
      stages: number of stages.
      groups: groups of each norm; width is a multiple of it.
      activation: a key of `models.activations.ACTIVATIONS`.
      bias: whether norms and the readout have biases.
      parameterization: a key of `models.parameterization.TABLE`, which says how W and b are drawn, multiplied, stepped.
      base_width: the width at which all parameterisations are the same.
      output_scale: α of α (f − f_0), which then trains in place of f; None: f itself. See `training.controls`.
      linearised: whether the expansion of first order at the start trains beside the network.
    """

    width: int
    depth: int
    classes: int
    stages: int = 2
    groups: int = 8
    activation: Activation = "relu"
    bias: bool = True
    parameterization: Parameterization = "standard"
    base_width: int = 128
    output_scale: float | None = None
    linearised: bool = False

    INPUTS = (STEM,)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the logits [N, classes] of images [N, H, W, channels]."""
        check_images(x)
        if self.width % self.groups:
            raise InputError(f"model.width={self.width}: must be a multiple of model.groups={self.groups}")
        activate = self._activate()
        h = self._convolution(self.width, SIZE, 1, STEM, bias=False)(x)
        for stage in range(self.stages):
            channels = 2**stage * self.width
            for block in range(self.depth):
                stride, name = 2 if stage and not block else 1, f"stage_{stage}_block_{block}"
                a = activate(self._norm(f"{name}_norm_0", self.groups)(h))
                if h.shape[-1] != channels:
                    h = self._convolution(channels, 1, stride, f"{name}_{SHORTCUT}", bias=False)(a)
                a = self._convolution(channels, SIZE, stride, f"{name}_conv_0", bias=False)(a)
                a = activate(self._norm(f"{name}_norm_1", self.groups)(a))
                h = h + self._convolution(channels, SIZE, 1, f"{name}_conv_1", bias=False)(a)
        h = activate(self._norm(NORM, self.groups)(h)).mean((1, 2))
        return self._dense(self.classes, READOUT_LAYER)(h)
