"""Slow, obvious float64 oracles."""

import functools

import jax
import jax.numpy as jnp
import numpy as np


def compute_jacobians(f, params, x):
    """Per-sample Jacobians of every floating-point leaf, {path: [N, C, P]}, by `jax.jacrev` on one sample at a time."""
    leaves, tree = jax.tree.flatten(params)
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    floating = tuple(k for k, leaf in enumerate(leaves) if jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.floating))
    differentiate = compile_jacobian(f, tree, floating)
    rows = [differentiate([leaves[k] for k in floating], leaves, sample) for sample in x]
    jacobians = [np.stack([np.asarray(row[j]) for row in rows]) for j in range(len(floating))]
    return {paths[k]: j.reshape(*j.shape[:2], -1) for k, j in zip(floating, jacobians, strict=True)}


@functools.cache
def compile_jacobian(f, tree, floating):
    """Compiled, and kept per function, only to keep the tests short."""

    def apply_one(values, leaves, sample):
        merged = list(leaves)
        for k, value in zip(floating, values, strict=True):
            merged[k] = value
        return f(jax.tree.unflatten(tree, merged), sample[None])[0]

    return jax.jit(jax.jacrev(apply_one))


def compute_layer_kernels(f, params, x, x2=None):
    """{tuple of a leaf's path without its last key: [N, C, N2, C]}."""
    left = compute_jacobians(f, params, x)
    right = left if x2 is None else compute_jacobians(f, params, x2)
    layers = {}
    for path, jacobian in left.items():
        keys = tuple(str(getattr(key, "key", getattr(key, "idx", None))) for key in path)
        keys = keys[1:] if keys[0] == "params" and len(keys) > 1 else keys
        share = np.einsum("icp,jdp->icjd", jacobian, right[path])
        layer = "/".join(keys[:-1] or keys)
        layers[layer] = layers.get(layer, 0) + share
    return layers


def compute_effective_rank(matrix):
    """exp of the von Neumann entropy, by the eigenvalues of numpy in float64, one at a time."""
    values = [max(value, 0.0) for value in np.linalg.eigvalsh(np.asarray(matrix, np.float64))]
    total = sum(values)
    return float(np.exp(-sum(value / total * np.log(value / total) for value in values if value > 0)))
