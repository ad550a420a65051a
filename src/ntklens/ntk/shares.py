"""Kernels and traces from the shares of single leaves, each computed as planned."""

import dataclasses
import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from ntklens.ntk.gradients import Gradients, OuterProducts, Passes, find_convolutions
from ntklens.ntk.gram import CPU_COLUMNS, Gram
from ntklens.ntk.heads import compute_head_kernel, compute_head_trace, form_head
from ntklens.ntk.linearity import SCALINGS, Use
from ntklens.ntk.plan import BLOCKS, FACTORS, GRADIENTS, HEAD, JACOBIAN, PAIRS, Share, Sizes, choose_chunk, plan_shares

Pieces = dict[int, tuple[Array, ...]]  # leaf, or site for its δ → arrays with the samples as their first axis


def compute_kernels(
    passes: Passes, groups: Sequence[Mapping[str, list[int]]], x: Array, x2: Array | None
) -> list[Array]:
    """The kernel [N, C, N2, C] of each group of layers {name: leaves}."""
    sizes = _find_sizes(passes, x, x2)
    plans = [_plan_layers(passes, group, sizes) for group in groups]
    shares = [share for plan in plans for layer in plan for share in layer]
    chunk = functools.partial(_choose_chunk, passes, sizes)

    def collect(x: Array) -> Pieces:
        return _collect_pieces(passes, shares, passes.run(x))

    left = map_chunks(collect, chunk(len(x)), x)
    right = left if x2 is None else map_chunks(collect, chunk(len(x2)), x2)
    return [_sum_shares(passes, plan, left, right, sizes) for plan in plans]


def compute_traces(passes: Passes, layers: Mapping[str, list[int]], x: Array, x2: Array | None) -> dict[str, Array]:
    """Σ_{i,c} of the diagonal of each layer's share, of x against x2 sample by sample."""
    sizes = _find_sizes(passes, x, x2)

    def differentiate(*inputs: Array) -> tuple[Gradients, Gradients]:
        left = passes.run(inputs[0])
        return left, (passes.run(inputs[1]) if len(inputs) > 1 else left)

    return _sum_traces(passes, layers, sizes, differentiate, *((x,) if x2 is None else (x, x2)))


def compute_projected_traces(
    passes: Passes, layers: Mapping[str, list[int]], x: Array, signs: Array
) -> dict[str, Array]:
    """Each layer's Σ_i |∂(signs_i · f(x_i))/∂θ_ℓ|², signs [N, C]: its trace, on average over signs. Without heads."""
    sizes = dataclasses.replace(_find_sizes(passes, x, None), outputs=1)

    def differentiate(x: Array, signs: Array) -> tuple[Gradients, Gradients]:
        gradients = passes.run(x, signs[:, None])
        return gradients, gradients

    return _sum_traces(passes, layers, sizes, differentiate, x, signs)


def _sum_traces(
    passes: Passes,
    layers: Mapping[str, list[int]],
    sizes: Sizes,
    differentiate: Callable[..., tuple[Gradients, Gradients]],
    *inputs: Array,
) -> dict[str, Array]:
    """Each layer's Σ of the products of two gradients, `differentiate` of some samples, over all samples."""
    plans = dict(zip(layers, _plan_layers(passes, layers, sizes), strict=True))

    def collect(*inputs: Array) -> Pieces:
        left, right = differentiate(*inputs)
        shares = [share for plan in plans.values() for share in plan]
        return {share.leaves[0]: _trace_samples(passes, share, left, right) for share in shares}

    terms = map_chunks(collect, _choose_chunk(passes, sizes, len(inputs[0])), *inputs)
    zero = jnp.zeros((), passes.dtype)
    return {layer: sum((_sum_samples(terms[share.leaves[0]]) for share in plan), zero) for layer, plan in plans.items()}


def compute_weighted_trace(
    passes: Passes, layers: Mapping[str, list[int]], weights: Sequence[Array], x: Array
) -> Array:
    """Σ_θ P_θ Σ_{i,c} (∂f_c(x_i)/∂θ)² over the elements θ of the layers' leaves, with the weights P of every leaf."""

    def collect(x: Array) -> Array:
        gradients = passes.run(x)
        parts = [_weigh_samples(gradients, leaf, weights[leaf]) for leaves in layers.values() for leaf in leaves]
        return sum(parts, jnp.zeros(len(x), passes.dtype))

    sizes = _find_sizes(passes, x, None)
    return map_chunks(collect, _choose_chunk(passes, sizes, len(x)), x).sum()


def _weigh_samples(gradients: Gradients, leaf: int, weights: Array) -> Array:
    """Σ_θ P_θ Σ_c (∂f_c(x_i)/∂θ)² of each sample [N]."""
    uses, outer = gradients.analysis.get_outer_uses(leaf), gradients.get_outer_products(leaf)
    # Of a view that arranges the leaf in another way the weights would have to follow.
    is_product = len(uses) == 1 and uses[0].equation.primitive.name == "dot_general"
    if not is_product or outer is None or outer.positions > 1 or not _keeps_places(uses[0]):
        return (gradients.get_jacobian(leaf) ** 2).sum(1) @ weights.ravel()
    contracted = sorted(uses[0].dot_dimensions[0][0])
    matrix = jnp.moveaxis(weights, contracted, range(len(contracted))).reshape(outer.a.shape[-1], -1)
    return (outer.a[:, 0] ** 2 @ matrix * (outer.delta[:, :, 0] ** 2).sum(1)).sum(1)


def _keeps_places(use: Use) -> bool:
    return all(step.primitive.name in (*SCALINGS, "neg", "convert_element_type") for step in use.view.steps)


def map_chunks(function: Callable[..., Any], chunk: int, *inputs: Array) -> Any:
    """Apply a function of samples to `chunk` of them at a time; its results have the samples as their first axis."""
    samples = len(inputs[0])
    if chunk >= samples:
        return function(*inputs)
    missing = -samples % chunk

    def cut(x: Array) -> Array:
        x = jnp.concatenate([x, jnp.broadcast_to(x[-1:], (missing, *x.shape[1:]))]) if missing else x
        return x.reshape(-1, chunk, *x.shape[1:])

    results = lax.map(lambda parts: function(*parts), tuple(map(cut, inputs)))
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:samples], results)


def _find_sizes(passes: Passes, x: Array, x2: Array | None) -> Sizes:
    program = passes.analysis.program
    (outputs,) = program.avals[program.output].shape
    return Sizes(len(x), None if x2 is None else len(x2), outputs, jnp.dtype(passes.dtype).itemsize)


def _plan_layers(passes: Passes, layers: Mapping[str, list[int]], sizes: Sizes) -> list[tuple[Share, ...]]:
    return [plan_shares(passes.analysis, passes.heads, leaves, sizes) for leaves in layers.values()]


def _choose_chunk(passes: Passes, sizes: Sizes, samples: int) -> int:
    convolved = [equation.outputs[0] for equation in find_convolutions(passes.analysis, passes.heads)]
    return choose_chunk(passes.analysis, convolved, sizes, samples)


def _read_outer(passes: Passes, share: Share, gradients: Gradients) -> OuterProducts:
    outer = gradients.get_outer_products(share.leaves[0])
    assert outer is not None  # the plan says so
    return outer.add_biases([passes.analysis.uses[bias][0].sign for bias in share.leaves[1:]])


def _form_head(passes: Passes, share: Share, gradients: Gradients) -> tuple[Array, Array]:
    """S [N, K, F] and g [C, F]."""
    head = passes.heads[share.leaves[0]]
    slopes, delta = gradients.get_head(head)
    return form_head(_read_outer(passes, share, gradients).a, slopes), head.read_cotangent(delta)


def _collect_pieces(passes: Passes, shares: Sequence[Share], gradients: Gradients) -> Pieces:
    """What the Grams need of some samples: of each share, and δ of the sites of dense layers."""
    pieces: Pieces = {}
    for share in shares:
        leaf = share.leaves[0]
        if share.path == JACOBIAN:
            pieces[leaf] = (gradients.get_jacobian(leaf),)
        elif share.path == HEAD:
            s, g = _form_head(passes, share, gradients)
            pieces[leaf] = (s, jnp.broadcast_to(g, (len(s), *g.shape)))
        else:
            outer = _read_outer(passes, share, gradients)
            if share.path == GRADIENTS:
                pieces[leaf] = (outer.sum_positions(),)
            elif share.path == FACTORS:
                site = passes.analysis.uses[leaf][0].site
                pieces[leaf] = (outer.a[:, 0],)
                pieces[site] = (gradients.get_delta(site),)
            else:
                pieces[leaf] = (outer.a, outer.delta)
    return pieces


def _sum_shares(passes: Passes, layers: Sequence[Sequence[Share]], left: Pieces, right: Pieces, sizes: Sizes) -> Array:
    """The kernel [N, C, N2, C] of some layers."""
    n, c, n2 = sizes.samples, sizes.outputs, sizes.columns
    terms = [term for layer in layers for term in _multiply_factors(passes, layer, left, right)]
    shares = [share for layer in layers for share in layer if share.path != FACTORS]
    gram = Gram(n * c, n2 * c, passes.dtype, is_symmetric=right is left)
    total = gram.start()
    rows, columns = (_join_rows(shares, pieces) for pieces in (left, right))
    for z, z2 in zip(rows, columns, strict=True):
        total = gram.add_columns(total, z, z2)
    for share in shares:
        own, other = left[share.leaves[0]], right[share.leaves[0]]
        if share.path == BLOCKS:
            total = gram.add_outer(total, (own[0], own[1]), (other[0], other[1]))
        elif share.path == PAIRS:
            terms.append(sum_pairs(OuterProducts(own[0], own[1]), OuterProducts(other[0], other[1])))
        elif share.path == HEAD:
            terms.append(compute_head_kernel(own[0], other[0], own[1][0]))
    if not terms or len(rows) > 0 or any(share.path == BLOCKS for share in shares):
        terms.append(gram.finish(total).reshape(n, c, n2, c))
    return functools.reduce(operator.add, terms)


def _multiply_factors(passes: Passes, shares: Sequence[Share], left: Pieces, right: Pieces) -> list[Array]:
    """The products of two Gram matrices of a layer's leaves with one position."""
    factors: dict[int, Array] = {}  # site → Σ a·a' [N, N2] over the leaves there
    for share in shares:
        if share.path == FACTORS:
            leaf = share.leaves[0]
            site = passes.analysis.uses[leaf][0].site
            factors[site] = left[leaf][0] @ right[leaf][0].T + factors.get(site, 0)
    return [factor[:, None, :, None] * multiply_rows(left[site][0], right[site][0]) for site, factor in factors.items()]


def _join_rows(shares: Sequence[Share], pieces: Pieces) -> list[Array]:
    """Gradients as matrices [N C, P], the small ones joined to one."""
    whole = [pieces[share.leaves[0]][0] for share in shares if share.path in (GRADIENTS, JACOBIAN)]
    rows = [z.reshape(z.shape[0] * z.shape[1], -1) for z in whole]
    large = [z for z in rows if z.shape[1] >= CPU_COLUMNS]
    small = [z for z in rows if z.shape[1] < CPU_COLUMNS]
    return [*large, jnp.concatenate(small, 1)] if small else large


def multiply_rows(a: Array, b: Array) -> Array:
    """Inner products [N, C, N2, C] of a [N, C, ...] and b [N2, C, ...]."""
    n, c, n2 = *a.shape[:2], b.shape[0]
    return (a.reshape(n * c, -1) @ b.reshape(n2 * c, -1).T).reshape(n, c, n2, c)


def sum_pairs(outer: OuterProducts, outer2: OuterProducts) -> Array:
    """Σ_{t,t'} (a_it · a_jt') (δ_ict · δ_jc't'), one pair at a time so that memory stays that of the kernel."""
    t = outer.positions
    a, a2 = outer.a.swapaxes(0, 1), outer2.a.swapaxes(0, 1)
    delta, delta2 = jnp.moveaxis(outer.delta, 2, 0), jnp.moveaxis(outer2.delta, 2, 0)

    def add_pair(pair: Array, total: Array) -> Array:
        i, j = pair // t, pair % t
        return total + (a[i] @ a2[j].T)[:, None, :, None] * multiply_rows(delta[i], delta2[j])

    n, c, n2 = *outer.delta.shape[:2], outer2.a.shape[0]
    return lax.fori_loop(0, t * t, add_pair, jnp.zeros((n, c, n2, c), a.dtype))


def _trace_samples(passes: Passes, share: Share, left: Gradients, right: Gradients) -> tuple[Array, ...]:
    """Σ_c |∂f_c(x_i)/∂leaf|² of each sample [N], or two arrays [N] whose product it is."""
    if share.trace_path == JACOBIAN:
        jacobian = left.get_jacobian(share.leaves[0])
        other = jacobian if right is left else right.get_jacobian(share.leaves[0])
        return ((jacobian * other).sum((1, 2)),)
    if share.trace_path == HEAD:
        s, g = _form_head(passes, share, left)
        s2, _ = (s, g) if right is left else _form_head(passes, share, right)
        return (compute_head_trace(s, s2, g),)
    outer = _read_outer(passes, share, left)
    outer2 = outer if right is left else _read_outer(passes, share, right)
    if share.trace_path == FACTORS:
        return (outer.a * outer2.a).sum((1, 2)), (outer.delta * outer2.delta).sum((1, 2, 3))
    if share.trace_path == GRADIENTS:
        gradients = outer.sum_positions()
        other = gradients if right is left else outer2.sum_positions()
        return ((gradients * other).sum((1, 2)),)
    a_gram = jnp.einsum("ntk,nuk->ntu", outer.a, outer2.a)
    delta_gram = jnp.einsum("nctf,ncuf->ntu", outer.delta, outer2.delta)
    return ((a_gram * delta_gram).sum((1, 2)),)


def _sum_samples(terms: tuple[Array, ...]) -> Array:
    return terms[0].sum() if len(terms) == 1 else terms[0] @ terms[1]
