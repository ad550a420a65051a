"""Vision transformers, and the blocks that transformers share."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from ntklens.errors import InputError
from ntklens.models.activations import Activation
from ntklens.models.layers import Embedding
from ntklens.models.network import READOUT_LAYER, Network, check_images
from ntklens.models.parameterization import ATTENTION, INPUT, Parameterization, get_parameterization

PATCHES, POSITIONS, NORM = "patches", "positions", "norm"
IMAGE_POSITIONS = 0.02**2  # variance of the positions' vectors, that of Dosovitskiy et al.


class Blocks(Network):
    """Attention and perceptron, each after a LayerNorm and added to what it reads; of a flax.linen.Module.

    h ← h + W_o Σ_k softmax_k(s q_t · k_k) v_k of each head, of LayerNorm(h); h ← h + W_2 φ(W_1 LayerNorm(h)).
    With d = width / heads, s = d^(−1/2) · r^exponent: 1/√d under `standard` and `ntk`, ∝ 1/d under `mup`, where keys
    and queries align (`parameterization.ATTENTION`).
    """

    depth: int
    heads: int
    mlp_ratio: int

    def _apply_blocks(self, h: jax.Array, causal: bool) -> jax.Array:
        if self.width % self.heads:
            raise InputError(f"model.width={self.width}: must be a multiple of model.heads={self.heads}")
        activate = self._activate()
        for block in range(self.depth):
            name = f"block_{block}"
            h = h + self._attend(self._norm(f"{name}_norm_0")(h), name, causal)
            a = activate(self._dense(self.mlp_ratio * self.width, f"{name}_mlp_0")(self._norm(f"{name}_norm_1")(h)))
            h = h + self._dense(self.width, f"{name}_mlp_1")(a)
        return self._norm(NORM)(h)

    def _attend(self, a: jax.Array, name: str, causal: bool) -> jax.Array:
        shape = (*a.shape[:-1], self.heads, self.width // self.heads)
        query = self._dense(self.width, f"{name}_query")(a).reshape(shape)
        key = self._dense(self.width, f"{name}_key", bias=False)(a).reshape(shape)  # its bias would change nothing
        value = self._dense(self.width, f"{name}_value")(a).reshape(shape)
        exponent = ATTENTION[self.parameterization]
        scores = (shape[-1] ** -0.5 * self._ratio**exponent) * jnp.einsum("nqhd,nkhd->nhqk", query, key)
        if causal:
            past = jnp.tril(jnp.ones(scores.shape[-2:], bool))
            scores = jnp.where(past[None, None], scores, -jnp.inf)
        mixed = jnp.einsum("nhqk,nkhd->nqhd", jax.nn.softmax(scores), value)
        return self._dense(self.width, f"{name}_out")(mixed.reshape(a.shape))

    def _add_positions(self, h: jax.Array, variance: float) -> jax.Array:
        rule = get_parameterization(self.parameterization)[INPUT]
        embed = Embedding(h.shape[1], self.width, variance, rule, self._ratio, name=POSITIONS)
        return h + embed(jnp.arange(h.shape[1])[None])


class Transformer(Blocks, nn.Module):
    """Dense(width) of each patch, plus its position → blocks → LayerNorm → mean over patches → Dense(classes).

    Pre-norm blocks of attention and a perceptron of `mlp_ratio` · width units, see `Blocks`. All patches are averaged:
    there is no class token.

    Sources: Vaswani et al. 2017 (1706.03762), Dosovitskiy et al. 2021 (2010.11929); mean pooling: Beyer et al. 2022
    (2205.01580).

    Attributes:
      width: length of a patch's vector.
      depth: number of blocks.
      classes: number of logits.
      patch_size: height and width of a patch, in pixels; those of the image are multiples of it.
      heads: attention heads; width is a multiple of it.
      mlp_ratio: units of a perceptron / width.
      activation: of the perceptrons, a key of `models.activations.ACTIVATIONS`.
      bias: whether layers have biases.
      parameterization: a key of `models.parameterization.TABLE`, which says how W and b are drawn, multiplied, stepped.
      base_width: the width at which all parameterisations are the same.
      output_scale: α of α (f − f_0), which then trains in place of f; None: f itself. See `training.controls`.
      linearised: whether the expansion of first order at the start trains beside the network.
    """

    width: int
    depth: int
    classes: int
    patch_size: int = 4
    heads: int = 4
    mlp_ratio: int = 4
    activation: Activation = "gelu"
    bias: bool = True
    parameterization: Parameterization = "standard"
    base_width: int = 128
    output_scale: float | None = None
    linearised: bool = False

    INPUTS = (PATCHES, POSITIONS)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the logits [N, classes] of images [N, H, W, channels]."""
        check_images(x)
        samples, height, width, channels = x.shape
        size = self.patch_size
        if height % size or width % size:
            raise InputError(f"model.patch_size={size}: must divide images of {height} × {width} pixels")
        cut = x.reshape(samples, height // size, size, width // size, size, channels).transpose(0, 1, 3, 2, 4, 5)
        h = self._dense(self.width, PATCHES)(cut.reshape(samples, -1, size * size * channels))
        h = self._apply_blocks(self._add_positions(h, IMAGE_POSITIONS), causal=False)
        return self._dense(self.classes, READOUT_LAYER)(h.mean(1))
