"""The neural tangent kernel from the structure of a program, exact for any JAX function f(params, x) → [N, C].

Θ[(i,c),(j,c')] = ∇_θ f_c(x_i) · ∇_θ f_c'(x_j) is the sum over parameter leaves. For a leaf W entering z = a W,

    Θ_W[(i,c),(j,c')] = (a_i · a_j) (δ_ic · δ_jc'),    δ_ic = ∂f_c(x_i)/∂z,

a product of two Gram matrices, and for a bias the first factor is 1; no Jacobian of NC × P numbers exists.
`analysis.py` finds such uses in the program; one backward pass over the C outputs yields all δ. Positions and shared
weights sum over pairs of uses, or over per-sample gradients of the leaf where these are cheaper; leaves used otherwise
take their plain Jacobian from the same pass. All matrix products run at `highest` precision.

Sources: the layerwise form is that of Jacot et al. 2018 (arXiv 1806.07572) and Novak et al. 2022 (arXiv 2206.08720).
"""

import functools
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ntklens.ntk.analysis import Analysis, analyse_program
from ntklens.ntk.gradients import Gradients, OuterProducts, compute_gradients
from ntklens.ntk.layers import Function, as_function, name_layers
from ntklens.ntk.program import trace_program


def layer_kernels(f: Function, params: Any, x: Array, x2: Array | None = None) -> dict[str, Array]:
    """Each layer's share of the neural tangent kernel.

    Θ_l[(i,c),(j,c')] = Σ_{θ in layer l} ∂f_c(x_i)/∂θ ∂f_c'(x2_j)/∂θ; their sum over l is Θ. No division by N or C.

    A layer is the path of a parameter leaf without its last component, joined by "/" and without flax's leading
    "params"; a path of one component names itself. Layers come in natural order (Dense_2 before Dense_10). Integer
    leaves are no parameters. For a `flax.linen.Module` as f, only the collection "params" is.

    May be called inside jit, vmap and lax.map (which sort the dictionaries they return). With concrete arrays it
    compiles itself once per f and shapes: pass the same function object again to use that.

    Args:
        f: function f(params, x) → [N, C] that treats samples apart, or a `flax.linen.Module`.
        params: pytree of parameters; for a Module what `module.init` returns.
        x: inputs [N, ...].
        x2: inputs [N2, ...] of the second index; x itself if None.

    Returns:
        {layer: array [N, C, N2, C]}, in float32, or float64 if a parameter is.

    Raises:
        ValueError: if f does not return [N, C], if its samples interact (as under batch normalisation; checked once per
            compilation), if x2's samples are not like x's, or if params holds no parameter.
    """
    return _dispatch(_layer_kernels, f, params, x, x2)


def kernel(f: Function, params: Any, x: Array, x2: Array | None = None) -> Array:
    """The neural tangent kernel, Θ[(i,c),(j,c')] = ∇_θ f_c(x_i) · ∇_θ f_c'(x2_j). No division by N or C.

    With concrete arrays it compiles itself once per function object f and shapes: pass the same one again to use that,
    and another one when what it closes over has changed.

    Args:
        f: function f(params, x) → [N, C] that treats samples apart, or a `flax.linen.Module`.
        params: pytree of parameters; for a Module what `module.init` returns.
        x: inputs [N, ...].
        x2: inputs [N2, ...] of the second index; x itself if None.

    Returns:
        Array [N, C, N2, C].

    Raises:
        ValueError: as `layer_kernels`.
    """
    return _dispatch(_kernel, f, params, x, x2)


def layer_traces(f: Function, params: Any, x: Array) -> dict[str, Array]:
    """Each layer's share of the trace, Tr Θ_l = Σ_{i,c} |∂f_c(x_i)/∂θ_l|², without a Gram matrix.

    For a dense layer z = a W + b it is Σ_i (|a_i|² + 1) Σ_c |∂f_c(x_i)/∂z|².

    Args:
        f: function f(params, x) → [N, C] that treats samples apart, or a `flax.linen.Module`.
        params: pytree of parameters; for a Module what `module.init` returns.
        x: inputs [N, ...].

    Returns:
        {layer: scalar array}, layers as in `layer_kernels`.

    Raises:
        ValueError: as `layer_kernels`.
    """
    return _dispatch(_layer_traces, f, params, x)


@dataclass(frozen=True)
class _Problem:
    """A function taken apart: what its program does with the leaves of `params`, and which layer they belong to."""

    analysis: Analysis
    leaves: list[Array]
    layers: dict[str, list[int]]
    dtype: Any  # of the kernel

    def differentiate(self, x: Array) -> Gradients:
        return compute_gradients(self.analysis, self.leaves, x, self.dtype)

    def list_acting(self, layer: str) -> list[int]:
        """The layer's leaves that have an effect on the outputs."""
        acting = {*self.analysis.uses, *self.analysis.plain}
        return [leaf for leaf in self.layers[layer] if leaf in acting and self.leaves[leaf].size > 0]


def _analyse(f: Function, params: Any, x: Array) -> _Problem:
    layers = name_layers(f, params)
    if not layers:
        raise ValueError("params holds no floating-point array, so there is nothing to differentiate")
    leaves = jax.tree.leaves(params)
    parameters = tuple(sorted(leaf for members in layers.values() for leaf in members))
    analysis = analyse_program(trace_program(as_function(f), params, x), parameters)
    is_double = any(leaves[leaf].dtype == jnp.float64 for leaf in parameters)
    return _Problem(analysis, leaves, layers, jnp.float64 if is_double else jnp.float32)


def _kernel(f: Function, params: Any, x: Array, x2: Array | None = None) -> Array:
    layers = _layer_kernels(f, params, x, x2)
    return functools.reduce(operator.add, layers.values())


def _layer_kernels(f: Function, params: Any, x: Array, x2: Array | None = None) -> dict[str, Array]:
    problem = _analyse(f, params, x)
    left = problem.differentiate(x)
    right = left if x2 is None else problem.differentiate(x2)
    return {layer: _layer_kernel(problem, layer, left, right) for layer in problem.layers}


def _layer_kernel(problem: _Problem, layer: str, left: Gradients, right: Gradients) -> Array:
    """Sum over the layer's leaves of their shares [N, C, N2, C]."""
    program = problem.analysis.program
    n, n2, (c,) = left.samples, right.samples, program.avals[program.output].shape
    total = jnp.zeros((n, c, n2, c), problem.dtype)
    factors: dict[int, Array] = {}  # site → Σ a·a' [N, N2] over the leaves with one position there
    for leaf in problem.list_acting(layer):
        outer = left.get_outer_products(leaf)
        outer2 = outer if right is left else right.get_outer_products(leaf)
        if outer is None or outer2 is None:
            jacobian = left.get_jacobian(leaf)
            total += _gram(jacobian, jacobian if right is left else right.get_jacobian(leaf))
        elif outer.positions == 1:
            site = problem.analysis.uses[leaf][0].site
            factors[site] = outer.a[:, 0] @ outer2.a[:, 0].T + factors.get(site, 0)
        elif _pairs_are_cheaper(outer, outer2):
            total += _sum_pairs(outer, outer2)
        else:
            jacobian = outer.sum_positions()
            total += _gram(jacobian, jacobian if right is left else outer2.sum_positions())
    for site, factor in factors.items():
        total += factor[:, None, :, None] * _gram(left.get_delta(site), right.get_delta(site))
    return total


def _gram(a: Array, b: Array) -> Array:
    """Inner products [N, C, N2, C] of a [N, C, ...] and b [N2, C, ...]."""
    n, c, n2 = *a.shape[:2], b.shape[0]
    return (a.reshape(n * c, -1) @ b.reshape(n2 * c, -1).T).reshape(n, c, n2, c)


def _pairs_are_cheaper(outer: OuterProducts, outer2: OuterProducts) -> bool:
    """Whether summing over pairs of positions takes fewer operations than forming the gradients and their Gram."""
    (n, t, k), (_, c, _, f), n2 = outer.a.shape, outer.delta.shape, outer2.a.shape[0]
    pairs = t * t * (n * n2 * k + n * c * n2 * c * (f + 1))
    gradients = (n + n2) * c * t * k * f + n * c * n2 * c * k * f
    return pairs < gradients


def _sum_pairs(outer: OuterProducts, outer2: OuterProducts) -> Array:
    """Σ_{t,t'} (a_it · a_jt') (δ_ict · δ_jc't'), one pair at a time so that memory stays that of the kernel."""
    t = outer.positions
    a, a2 = outer.a.swapaxes(0, 1), outer2.a.swapaxes(0, 1)
    delta, delta2 = jnp.moveaxis(outer.delta, 2, 0), jnp.moveaxis(outer2.delta, 2, 0)

    def add_pair(pair: Array, total: Array) -> Array:
        i, j = pair // t, pair % t
        return total + (a[i] @ a2[j].T)[:, None, :, None] * _gram(delta[i], delta2[j])

    n, c, n2 = *outer.delta.shape[:2], outer2.a.shape[0]
    return jax.lax.fori_loop(0, t * t, add_pair, jnp.zeros((n, c, n2, c), a.dtype))


def _layer_traces(f: Function, params: Any, x: Array, x2: None = None) -> dict[str, Array]:
    problem = _analyse(f, params, x)
    gradients = problem.differentiate(x)
    zero = jnp.zeros((), problem.dtype)
    return {
        layer: sum((_leaf_trace(gradients, leaf) for leaf in problem.list_acting(layer)), zero)
        for layer in problem.layers
    }


def _leaf_trace(gradients: Gradients, leaf: int) -> Array:
    """Σ_{i,c} |∂f_c(x_i)/∂leaf|²."""
    outer = gradients.get_outer_products(leaf)
    if outer is None:
        return jnp.square(gradients.get_jacobian(leaf)).sum()
    if outer.positions == 1:
        return jnp.square(outer.a).sum((1, 2)) @ jnp.square(outer.delta).sum((1, 2, 3))
    (_, t, k), (_, c, _, f) = outer.a.shape, outer.delta.shape
    if t * (k + c * f) > c * k * f:
        return jnp.square(outer.sum_positions()).sum()
    a_gram = jnp.einsum("ntk,nuk->ntu", outer.a, outer.a)
    delta_gram = jnp.einsum("nctf,ncuf->ntu", outer.delta, outer.delta)
    return (a_gram * delta_gram).sum()


def _dispatch(compute: Callable[..., Any], f: Function, params: Any, x: Array, x2: Array | None = None) -> Any:
    """Run `compute` at the precision kernels need: inside another trace as it is, else compiled."""
    params, x, x2 = jax.tree.map(jnp.asarray, (params, x, x2))
    if x2 is not None and (x2.shape[1:], x2.dtype) != (x.shape[1:], x.dtype):
        raise ValueError(f"x2 holds samples {x2.dtype}{list(x2.shape[1:])}, x others: {x.dtype}{list(x.shape[1:])}")
    with jax.default_matmul_precision("highest"):
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((params, x, x2))):
            return compute(f, params, x, x2)
        result = _compiled(compute, f, params, x, x2)
        _refuse_mixing(f, params, x)
    if isinstance(result, dict):  # jit sorts dictionaries
        return {layer: result[layer] for layer in name_layers(f, params)}
    return result


@functools.partial(jax.jit, static_argnums=(0, 1))
def _compiled(compute: Callable[..., Any], f: Function, params: Any, x: Array, x2: Array | None) -> Any:
    return compute(f, params, x, x2)


_CHECKED: dict[Any, None] = {}  # (f, tree and shapes of its arguments) found to treat samples apart, the latest
CHECKED_KEPT = 64


def _refuse_mixing(f: Function, params: Any, x: Array) -> None:
    leaves, tree = jax.tree.flatten(params)
    key = (f, tree, tuple((a.shape, a.dtype) for a in (*leaves, x)))
    if key in _CHECKED:
        return
    difference, scale, tolerance = _compare_batch_with_singles(f, params, x)
    if difference > tolerance * scale:
        raise ValueError(
            "f(params, x) mixes samples (batch normalisation, or noise that depends on the batch?): its outputs differ "
            f"by {float(difference):.2g} from those for each sample alone, so a kernel between samples is undefined"
        )
    _CHECKED[key] = None
    if len(_CHECKED) > CHECKED_KEPT:
        del _CHECKED[next(iter(_CHECKED))]


@functools.partial(jax.jit, static_argnums=0)
def _compare_batch_with_singles(f: Function, params: Any, x: Array) -> tuple[Array, Array, float]:
    """(largest difference, largest output, relative difference that rounding may make); NaN never exceeds."""
    apply = as_function(f)
    batch = apply(params, x)
    singles = jax.vmap(lambda sample: apply(params, sample[None])[0])(x)
    if batch.shape != singles.shape:
        raise ValueError(f"f(params, x) must return one array [N, C]; for {x.shape[0]} samples it gave {batch.shape}")
    return jnp.abs(batch - singles).max(), jnp.abs(singles).max(), math.sqrt(jnp.finfo(batch.dtype).eps)
