"""Kernels whose leaves count with factors: with rates of their own, Σ_ℓ η_ℓ Θ_ℓ drives training, not Θ."""

from collections.abc import Sequence
from typing import Any

import jax
from jax import Array

from ntklens.ntk.layers import Function, call_function


def weigh_leaves(f: Function, params: Any, factors: Sequence[float]) -> tuple[Function, Any]:
    """Return a function and parameters whose kernel is Σ_ℓ η_ℓ Θ_ℓ, Θ_ℓ the share of leaf ℓ of the kernel of f.

    It is the kernel of φ ↦ f(s φ) at φ = θ / s with s_ℓ = √η_ℓ: ∂/∂φ_ℓ = s_ℓ ∂/∂θ_ℓ. So each function of a kernel takes
    any factors as it is, without a plain Jacobian.

    Args:
        f: function f(params, x) → [N, C], or a `flax.linen.Module`.
        params: pytree of parameters θ.
        factors: η_ℓ ≥ 0, in the order of `jax.tree.leaves(params)`; a leaf of factor 0 is held fixed.

    Returns:
        The function, and φ, a tree like `params`.

    Raises:
        ValueError: if there are not as many factors as leaves, or one is negative.
    """
    leaves, tree = jax.tree.flatten(params)
    if len(factors) != len(leaves) or not all(factor >= 0 for factor in factors):
        raise ValueError(f"factors must be {len(leaves)} numbers of at least 0, one for each leaf of params")
    sizes = [float(factor) ** 0.5 for factor in factors]

    def scaled(values: Any, x: Array) -> Array:
        found = [
            leaf if size == 1 else size * leaf if size else held
            for size, leaf, held in zip(sizes, jax.tree.leaves(values), leaves, strict=True)
        ]
        return call_function(f, jax.tree.unflatten(tree, found), x)

    values = [leaf / size if size not in (0, 1) else leaf for size, leaf in zip(sizes, leaves, strict=True)]
    return scaled, jax.tree.unflatten(tree, values)
