"""The one type that every loader returns."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import jax


@dataclass(frozen=True, eq=False)
class Split:
    """Labelled samples in a fixed order.

    Attributes:
        inputs: float32 [n, *shape]; images as [n, height, width, channels], pixel values in [0, 1] unless standardised.
            Integers are tokens and reach the model as int32; bytes (uint8) do as real numbers.
        labels: int32 [n], each in 0 … classes − 1.
    """

    inputs: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def holds_tokens(self) -> bool:
        """Whether the inputs stay integers."""
        return self.inputs.dtype.kind in "iu" and self.inputs.dtype != np.uint8

    def convert(self, inputs: np.ndarray) -> "jax.Array":
        """Return some of the inputs as the model takes them, real numbers in the precision that is switched on."""
        import jax.numpy as jnp  # not above: who only loads data does not wait for it

        return jnp.asarray(inputs, jnp.int32 if self.holds_tokens else float)


@dataclass(frozen=True, eq=False)
class Dataset:
    """What an experiment is fed with.

    No held-out sample stands in two splits, but for those that `probe_seed` draws into a probe.

    Attributes:
        name: what the samples are called in messages and results.
        train: what the networks are trained on.
        selection: the first half of the test samples: chooses the minimum of the loss.
        test: the other half: reports the loss there.
        probe: where the tangent kernel is measured; the same for all seeds.
        classes: number of classes C.
        provenance: plain values for a result's attributes: `source`, `files` (SHA-256 of each), sizes, `data_seed`,
            `probe_seed`, `standardize`, and `checksum`, the SHA-256 of the arrays above, order included. Of published
            files also `content`, the SHA-256 of all that they hold, and `published`, whether it is what was published.
    """

    name: str
    train: Split
    selection: Split
    test: Split
    probe: Split
    classes: int
    provenance: dict[str, Any]
