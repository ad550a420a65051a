"""The same kernel by neural-tangents, an independent implementation: slower, for tests and for doubters."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ntklens._compat import import_neural_tangents, neural_tangents_settings
from ntklens.ntk.layers import Function, as_function, name_layers


def layer_kernels(f: Function, params: Any, x: Array, x2: Array | None = None) -> dict[str, Array]:
    """Each layer's share of the neural tangent kernel, by neural-tangents with the other layers held fixed.

    Args:
        f: function f(params, x) → [N, C] that treats samples apart, or a `flax.linen.Module`.
        params: pytree of parameters; for a Module what `module.init` returns.
        x: inputs [N, ...].
        x2: inputs [N2, ...] of the second index; x itself if None.

    Returns:
        {layer: array [N, C, N2, C]}, layers as in `structured.layer_kernels`.

    Raises:
        ImportError: if neural-tangents is not installed, with the line that installs it.
    """
    return {layer: _kernel_of_leaves(f, params, leaves, x, x2) for layer, leaves in name_layers(f, params).items()}


def layer_traces(f: Function, params: Any, x: Array) -> dict[str, Array]:
    """Each layer's share of the trace, the diagonal sum of `layer_kernels`.

    Args:
        f: function f(params, x) → [N, C] that treats samples apart, or a `flax.linen.Module`.
        params: pytree of parameters; for a Module what `module.init` returns.
        x: inputs [N, ...].

    Returns:
        {layer: scalar array}.

    Raises:
        ImportError: if neural-tangents is not installed, with the line that installs it.
    """
    return {layer: jnp.einsum("icic->", share) for layer, share in layer_kernels(f, params, x).items()}


def kernel(f: Function, params: Any, x: Array, x2: Array | None = None) -> Array:
    """The neural tangent kernel Θ by neural-tangents' NTK_VECTOR_PRODUCTS. No division by N or C.

    Args:
        f: function f(params, x) → [N, C] that treats samples apart, or a `flax.linen.Module`.
        params: pytree of parameters; for a Module what `module.init` returns.
        x: inputs [N, ...].
        x2: inputs [N2, ...] of the second index; x itself if None.

    Returns:
        Array [N, C, N2, C].

    Raises:
        ImportError: if neural-tangents is not installed, with the line that installs it.
    """
    leaves = sorted(leaf for members in name_layers(f, params).values() for leaf in members)
    return _kernel_of_leaves(f, params, leaves, x, x2)


def _kernel_of_leaves(f: Function, params: Any, chosen: list[int], x: Array, x2: Array | None) -> Array:
    """The kernel of the leaves `chosen`, by number."""
    nt = import_neural_tangents()
    params, x, x2 = jax.tree.map(jnp.asarray, (params, x, x2))
    apply = as_function(f)
    leaves, tree = jax.tree.flatten(params)

    def apply_chosen(values: list[Array], x: Array) -> Array:
        merged = list(leaves)
        for leaf, value in zip(chosen, values, strict=True):
            merged[leaf] = value
        return apply(jax.tree.unflatten(tree, merged), x)

    ntk = nt.empirical_ntk_fn(
        apply_chosen,
        trace_axes=(),  # traced axes would be divided by their size
        vmap_axes=0,
        implementation=nt.NtkImplementation.NTK_VECTOR_PRODUCTS,
    )
    with neural_tangents_settings():
        theta = ntk(x, x2, [leaves[leaf] for leaf in chosen])
    return jnp.transpose(theta, (0, 2, 1, 3))
