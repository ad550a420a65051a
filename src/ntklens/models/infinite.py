"""The limit of infinite width of our networks: Θ_∞ and the NNGP kernel, by neural-tangents' stax twins.

Infinitely wide networks have the kernel Θ = K_NTK ⊗ I_C, one and the same for every seed, and outputs that are drawn
from a Gaussian process of covariance K_NNGP ⊗ I_C. Under `ntk` and `mup` a layer's share of Θ_0 does not depend on the
width: it is that of the standard network of `base_width`, with products of activations by their mean at infinite width.
Under `standard`, where Θ grows with the width, the shares are taken at the network's own width. The NNGP kernel of
`mup` is zero: its function starts at 0.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ntklens._compat import import_neural_tangents, neural_tangents_settings
from ntklens.errors import InputError
from ntklens.models.cnn import CNN, WINDOW
from ntklens.models.mlp import MLP
from ntklens.models.parameterization import STANDARD

LARGEST_BLOCK = 2**26  # covariances between positions of two samples that are held at once
CLOSED_FORMS = {"relu": "Relu", "erf": "Erf", "linear": "Identity"}  # activation → its layer in stax
POOLINGS = {"average": "AvgPool", "none": None}


class InfiniteKernels(NamedTuple):
    """The kernels of an infinitely wide network.

    Attributes:
        ntk: K of Θ_∞ = K ⊗ I_C at the start, [N, N2]; Tr Θ_∞ = C Tr K, Γ(Θ_∞) = C Γ(K).
        nngp: covariance of an output, [N, N2].
    """

    ntk: jax.Array
    nngp: jax.Array


def infinite_kernels(network: Any, x1: Any, x2: Any = None) -> InfiniteKernels:
    """Return the kernels that a network has at infinite width.

    Args:
        network: an `MLP` or `CNN`; its width matters under the standard parameterisation alone.
        x1: inputs [N, …].
        x2: inputs [N2, …]; x1 itself if None.

    Returns:
        Both kernels, [N, N2], in the precision of the inputs.

    Raises:
        InputError: naming what has no closed form.
        ImportError: if neural-tangents is not installed, with the line that installs it.

    Sources: Jacot et al. 2018 (1806.07572); Lee et al. 2018 (1711.00165); Sohl-Dickstein et al. 2020 (2001.07301) for
    the base width; Arora et al. 2019 (1904.11955) for convolution; Novak et al. 2020 (1912.02803), neural-tangents.
    """
    check_limit(network)
    stax = import_neural_tangents().stax
    with neural_tangents_settings():
        layers = _list_layers(network, stax)
        kernel_fn = stax.serial(*layers)[2]
        return _compute_blocks(kernel_fn, network, np.asarray(x1), np.asarray(x1 if x2 is None else x2))


def check_limit(network: Any) -> None:
    """Raise an InputError unless `infinite_kernels` takes a network."""
    if not isinstance(network, MLP | CNN):
        raise InputError(f"model={type(network).__name__.lower()}: its infinite width is known of mlp and cnn alone")
    if network.activation not in CLOSED_FORMS:
        raise InputError(
            f"model.activation={network.activation}: infinite width has a closed form for {', '.join(CLOSED_FORMS)}"
        )
    if isinstance(network, CNN) and network.pooling not in POOLINGS:
        raise InputError(f"model.pooling={network.pooling}: infinite width has a closed form for {', '.join(POOLINGS)}")


def _list_layers(network: MLP | CNN, stax: Any) -> list[Any]:
    width = network.width if network.parameterization == STANDARD else network.base_width
    # A bias of deviation 0: it adds 1 to the tangent kernel, and nothing to the function.
    options = {"W_std": 1.0, "b_std": 0.0 if network.bias else None, "parameterization": "standard"}
    activation = getattr(stax, CLOSED_FORMS[network.activation])
    readout = stax.Dense(network.classes, **options)
    if isinstance(network, MLP):
        hidden = [layer for _ in range(network.depth) for layer in (stax.Dense(width, **options), activation())]
        return [stax.Flatten(), *hidden, readout]
    size, stride = (network.kernel_size,) * 2, (network.stride,) * 2
    pool = POOLINGS[network.pooling]
    layers = []
    for _ in range(network.depth):
        layers += [stax.Conv(width, size, stride, "SAME", **options), activation()]
        if pool is not None:
            layers.append(getattr(stax, pool)(WINDOW, WINDOW, "VALID"))
    return [*layers, stax.GlobalAvgPool() if network.global_average else stax.Flatten(), readout]


def _compute_blocks(kernel_fn: Callable, network: MLP | CNN, x1: np.ndarray, x2: np.ndarray) -> InfiniteKernels:
    """Compute the kernels by square blocks of one size, whose last are filled up with repeated samples."""
    positions = 1 if isinstance(network, MLP) else int(np.prod(x1.shape[1:3]))
    size = max(1, min(max(len(x1), len(x2)), int((LARGEST_BLOCK / positions**2) ** 0.5)))

    @jax.jit
    def compute(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
        found = kernel_fn(a, b, ("ntk", "nngp"))
        return found.ntk, found.nngp

    cut = functools.partial(_cut, size=size)
    parts = {
        (row, column): compute(jnp.asarray(a), jnp.asarray(b))
        for (row, a), (column, b) in itertools.product(enumerate(cut(x1)), enumerate(cut(x2)))
    }
    rows, columns = (1 + max(place[axis] for place in parts) for axis in (0, 1))
    whole = [
        jnp.block([[parts[row, column][kind] for column in range(columns)] for row in range(rows)])
        for kind in (0, 1)
    ]  # fmt: skip
    ntk, nngp = (kernel[: len(x1), : len(x2)] for kernel in whole)
    return InfiniteKernels(ntk, jnp.zeros_like(nngp) if network.parameterization == "mup" else nngp)


def _cut(x: np.ndarray, size: int) -> list[np.ndarray]:
    filled = np.concatenate([x, np.repeat(x[-1:], -len(x) % size, axis=0)])
    return list(filled.reshape(-1, size, *x.shape[1:]))
