"""Transformers that read a sequence of tokens and predict what follows it."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from ntklens.models.activations import Activation
from ntklens.models.layers import Embedding
from ntklens.models.network import READOUT_LAYER
from ntklens.models.parameterization import INPUT, Parameterization, get_parameterization
from ntklens.models.transformer import POSITIONS, Blocks

TOKENS = "tokens"
VARIANCE = 1.0  # of the vectors of tokens and of positions


class CausalTransformer(Blocks, nn.Module):
    """Token's vector plus its position's → causal blocks → LayerNorm → Dense(classes) at the last position.

    Pre-norm blocks, see `transformer.Blocks`, in which a position reads itself and those before it. The logits, the
    loss and the kernel are those of the last position: what follows the sequence.

    Source: Vaswani et al. 2017 (1706.03762), Radford et al. 2019 (GPT-2: norms first); vectors of variance 1.

    Attributes:
      width: length of a token's vector.
      depth: number of blocks.
      classes: number of logits.
      heads: attention heads; width is a multiple of it.
      mlp_ratio: units of a perceptron / width.
      vocabulary: number of tokens; None: classes + 1, the classes and the mark that data sets of ours set beside them.
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
    heads: int = 4
    mlp_ratio: int = 4
    vocabulary: int | None = None
    activation: Activation = "gelu"
    bias: bool = True
    parameterization: Parameterization = "standard"
    base_width: int = 128
    output_scale: float | None = None
    linearised: bool = False

    INPUTS = (TOKENS, POSITIONS)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the logits [N, classes] of what follows sequences of tokens [N, T]."""
        if x.ndim != 2 or not jnp.issubdtype(x.dtype, jnp.integer):
            raise ValueError(
                f"takes tokens, integers [N, T], not inputs of type {x.dtype} and shape {list(x.shape)}; type "
                "dataset=modular or dataset=markov"
            )
        rule = get_parameterization(self.parameterization)[INPUT]
        count = self.classes + 1 if self.vocabulary is None else self.vocabulary
        h = Embedding(count, self.width, VARIANCE, rule, self._ratio, name=TOKENS)(x)
        h = self._apply_blocks(self._add_positions(h, VARIANCE), causal=True)
        return self._dense(self.classes, READOUT_LAYER)(h[:, -1])
