"""Images as vectors of another dimension: a control that moves the first layer's share of the kernel alone."""

import numpy as np

from ntklens.data.dataset import Split
from ntklens.errors import InputError

SEED = 20250705  # draws the projection: one for all data, so that sweeps over anything else share it


def change_dimension(split: Split, dim: int) -> Split:
    """Return a split whose inputs are vectors of another dimension d', with mean |x'|² = (d'/d) |x|².

    Above d zeros are appended, and all is multiplied by √(d'/d). With first-layer weights of variance 1/d' the
    function at the start keeps its distribution, and each weight of the first layer counts d'/d times as much in the
    kernel: it is the network of inputs √(d'/d) x and first-layer weights √(d/d') W.

    Below d, x' = √(d'/d) S x with S x a random projection: each of the d inputs, with a random sign, is added to one of
    the d' outputs, as evenly as d/d' allows, so that E⟨S x, S y⟩ = ⟨x, y⟩. Sums are short and in a fixed order: equal
    to the bit on every machine.

    Source: Charikar, Chen & Farach-Colton 2002 (count sketch) for the projection.

    Args:
        split: real inputs [n, …] of d numbers each.
        dim: d', at least 1.

    Returns:
        A split with inputs [n, d'].
    """
    inputs = split.inputs.reshape(len(split), -1)
    size = inputs.shape[1]
    changed = np.zeros((len(inputs), dim), np.float32)
    if dim >= size:
        changed[:, :size] = inputs
    else:
        generator = np.random.default_rng([SEED, size, dim])
        order, signs = generator.permutation(size), generator.choice(np.array([-1, 1], np.float32), size)
        for first in range(0, size, dim):
            block = order[first : first + dim]
            changed[:, : len(block)] += signs[None, first : first + dim] * inputs[:, block]
    np.multiply(changed, np.float32(np.sqrt(dim / size)), out=changed)
    return Split(changed, split.labels)


def check_dimension(value: object) -> None:
    """Raise an InputError unless `dataset.input_dim` is null or a positive integer."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1):
        raise InputError(f"dataset.input_dim={value}: must be a positive integer, or null")
