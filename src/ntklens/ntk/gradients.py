"""The gradients of a program's outputs with respect to its parameters, sample by sample, in the cheapest exact form."""

import functools
import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from ntklens.ntk.convolution import (
    Filters,
    arrange_gradient,
    extract_patches,
    flip_filters,
    is_convolution,
    make_convolution,
)
from ntklens.ntk.gram import uses_cpu
from ntklens.ntk.heads import Head
from ntklens.ntk.linearity import SCALINGS, Analysis, Use, View
from ntklens.ntk.program import Equation, find_dependent, run_equations

NARROW = 64  # width of a under which gradients are formed output by output: reading δ takes the time


@dataclass(frozen=True)
class OuterProducts:
    """Gradients Σ_t a_it ⊗ δ_ict of one leaf: `a` [N, T, K] and `delta` [N, C, T, F], T positions.

    With several groups, K and F are made of as many parts, and only parts of the same group meet.
    """

    a: Array
    delta: Array
    groups: int = 1

    @property
    def positions(self) -> int:
        """T."""
        return self.a.shape[1]

    def sum_positions(self) -> Array:
        """The gradients themselves, [N, C, P]."""
        (n, t, k), (_, c, _, f) = self.a.shape, self.delta.shape
        if self.groups > 1:
            a = self.a.reshape(n, t, self.groups, k // self.groups)
            delta = self.delta.reshape(n, c, t, self.groups, f // self.groups)
            return jnp.einsum("ntgk,nctgf->ncgfk", a, delta).reshape(n, c, -1)
        if k < NARROW and uses_cpu():
            a = jnp.broadcast_to(self.a.swapaxes(1, 2)[:, None], (n, c, k, t))
            return (a @ self.delta).reshape(n, c, k * f)
        # Explicit transposition: XLA would else make it part of a product that then runs at a fraction of the speed.
        delta = lax.optimization_barrier(self.delta.swapaxes(2, 3).reshape(n, c * f, t))
        return (delta @ self.a).reshape(n, c, f * k)

    def add_biases(self, signs: list[int]) -> "OuterProducts":
        """The gradients of the leaf and of the biases added to its product: columns of ones beside a."""
        if not signs:
            return self
        ones = jnp.broadcast_to(jnp.asarray(signs, self.a.dtype), (*self.a.shape[:2], len(signs)))
        return OuterProducts(jnp.concatenate([self.a, ones], 2), self.delta)


@dataclass(frozen=True)
class Gradients:
    """What one forward and backward pass over N samples leaves, and the gradients of single leaves that follow from it.

    `others` holds the operand beside the view of each use and the sites of heads [N, ...], `deltas` the gradient of the
    C outputs at each site [N, C, ...], `jacobians` that at each plain leaf [N, C, ...], `fixed` the values of slots
    that no sample changes.
    """

    analysis: Analysis
    leaves: list[Array]
    samples: int
    dtype: Any
    others: dict[int, Array]
    deltas: dict[int, Array]
    jacobians: dict[int, Array]
    fixed: dict[int, Any]

    def get_delta(self, site: int) -> Array:
        """∂f_c(x_i)/∂z at a site, [N, C, ...]."""
        return self.deltas[site].astype(self.dtype)

    def get_outer_products(self, leaf: int) -> OuterProducts | None:
        """A leaf's gradients as outer products, if all its uses yield such and add up."""
        uses = self.analysis.get_outer_uses(leaf)
        if not uses:
            return None
        terms = [_read_outer_products(self, use) for use in uses]
        if len(terms) == 1:
            return terms[0]
        a, delta = (jnp.concatenate([term.a for term in terms], 1), jnp.concatenate([term.delta for term in terms], 2))
        return OuterProducts(a, delta, terms[0].groups)

    def get_head(self, head: Head) -> tuple[Array | None, Array]:
        """φ'(z) [N, T, F], None if it is 1, and the cotangent [N, C, ...] of y."""
        slopes = head.compute_slopes(self.others[head.site], self.fixed).astype(self.dtype) if head.region else None
        return slopes, self.get_delta(head.slot)

    def get_jacobian(self, leaf: int) -> Array:
        """A leaf's gradients whole, [N, C, P], summed over its uses."""
        if leaf in self.jacobians:
            jacobian = self.jacobians[leaf].astype(self.dtype)
        else:
            jacobian = functools.reduce(operator.add, map(self._pull_back, self.analysis.uses[leaf]))
        return jacobian.reshape(*jacobian.shape[:2], -1)

    def _pull_back(self, use: Use) -> Array:
        pull = functools.partial(_pull_back_use, use, self.fixed, self.leaves[use.view.leaf])
        delta = self.deltas[use.site]
        if (sums := self._sum_along_axis(use)) is not None:
            return sums
        if use.is_convolution:
            gradients = self._pull_back_filter(use)
        elif use.is_sum:
            gradients = jax.vmap(jax.vmap(functools.partial(pull, None)))(delta)
        else:
            gradients = jax.vmap(jax.vmap(pull, (None, 0)))(self.others[use.other], delta)
        return gradients.astype(self.dtype)

    def _pull_back_filter(self, use: Use) -> Array:
        """The gradient of a convolution's filter, and from it that of the leaf that the filter is a view of."""
        products = _read_products_of_filter(self, use)
        dimensions = use.equation.params["dimension_numbers"]
        (n, t, _), c, groups = products.a.shape, products.delta.shape[1], products.groups
        a, delta = products.a.reshape(n, t, groups, -1), products.delta.reshape(n, c, t, groups, -1)
        shape = self.analysis.program.avals[use.equation.inputs[1]].shape
        order = (dimensions.rhs_spec[0], *dimensions.rhs_spec[2:], dimensions.rhs_spec[1])  # out, taps..., in
        gradients = jnp.einsum("ntgk,nctgf->ncgfk", a, delta).reshape(n, c, *(shape[d] for d in order))
        gradients = gradients.transpose(0, 1, *(2 + order.index(d) for d in range(len(shape))))

        def act(leaf: Array) -> Array:
            values = self.fixed | {use.view.leaf: leaf}
            run_equations(use.view.steps, values)
            return values[use.equation.inputs[1]]

        filter, pull = jax.vjp(act, self.leaves[use.view.leaf])
        return jax.vmap(jax.vmap(lambda gradient: pull(gradient.astype(filter.dtype))[0]))(gradients)

    def _sum_along_axis(self, use: Use) -> Array | None:
        """[N, C, F] of a leaf that shifts or scales the last axis of its site.

        Products with ones: XLA:CPU's own sum over positions takes longer than the convolution before it.

        Returns:
            [N, C, F]; None where the leaf does no such.
        """
        name, delta = use.equation.primitive.name, self.get_delta(use.site)
        if not uses_cpu() or not (use.is_sum or name == "mul") or delta.ndim < 4 or use.is_outer:
            return None
        if use.find_axis(self.analysis.program) != delta.ndim - 3:
            return None
        if not use.is_sum:
            delta = delta * self.others[use.other].astype(self.dtype)[:, None]
        n, c, f = *delta.shape[:2], delta.shape[-1]
        delta = lax.optimization_barrier(delta.reshape(n * c, -1, f))
        ones = lax.optimization_barrier(jnp.full((n * c, 1, delta.shape[1]), use.sign, self.dtype))
        return (ones @ delta).reshape(n, c, f)


@dataclass(frozen=True)
class Passes:
    """A program made ready to be differentiated for any number of samples, again and again.

    `fixed` holds the values of the slots that no sample changes, `filters` the flipped filters of the convolutions that
    gradients pass, by the slot of the result.
    """

    analysis: Analysis
    leaves: list[Array]
    dtype: Any
    fixed: dict[int, Any]
    moving: tuple[Equation, ...]
    filters: Mapping[int, Filters]
    heads: Mapping[int, Head]

    def run(self, x: Array, cotangents: Array | None = None) -> Gradients:
        """Run the program forward, and back from each of its C outputs, for all samples [N, ...] at once.

        Args:
            x: inputs [N, ...].
            cotangents: combinations [N, M, C] of the outputs to go back from, each sample's own; there are M gradients
                of each sample then, in the place of C.

        Returns:
            The gradients.
        """
        analysis, program = self.analysis, self.analysis.program
        kept = {use.other for uses in analysis.uses.values() for use in uses if not use.is_sum}
        kept |= {head.site for head in self.heads.values() if head.region}
        sites = (*analysis.sites, *(head.slot for head in self.heads.values()))
        zeros = {slot: jnp.zeros(program.avals[slot].shape, program.avals[slot].dtype) for slot in dict.fromkeys(sites)}
        plain = {leaf: self.leaves[leaf] for leaf in analysis.plain}
        by_slot = {equation.outputs[0]: equation for equation in self.moving if equation.outputs}
        replaced = {slot: make_convolution(by_slot[slot], filters) for slot, filters in self.filters.items()}

        def run_one(
            sample: Array, cotangents: Array | None
        ) -> tuple[tuple[dict[int, Array], dict[int, Array]], dict[int, Array]]:
            def forward(offsets: dict[int, Array], plain: dict[int, Array]) -> tuple[Array, dict[int, Array]]:
                values = self.fixed | plain
                values[program.sample] = sample
                run_equations(self.moving, values, offsets, replaced)
                return values[program.output], {slot: values[slot] for slot in kept}

            # The gradient with respect to a zero added to z is that with respect to z.
            y, pull_back, others = jax.vjp(forward, zeros, plain, has_aux=True)
            back = jnp.eye(y.shape[0], dtype=y.dtype) if cotangents is None else cotangents.astype(y.dtype)
            return jax.vmap(pull_back)(back), others

        (deltas, jacobians), others = jax.vmap(run_one)(x, cotangents)
        return Gradients(analysis, self.leaves, x.shape[0], self.dtype, others, deltas, jacobians, self.fixed)


def prepare_passes(analysis: Analysis, leaves: list[Array], dtype: Any, heads: Mapping[int, Head]) -> Passes:
    """Compute all that the samples have in common.

    Args:
        analysis: what the program does with the leaves.
        leaves: the parameters, in the program's order.
        dtype: of the kernel to come.
        heads: by leaf, those that will be made use of.

    Returns:
        The passes.
    """
    program = analysis.program
    fixed = dict(program.constants) | dict(enumerate(leaves))
    run_equations(analysis.constants, fixed)
    # What a site's gradient passes through has to be seen by the passes, sample or not.
    starts = {program.sample, *analysis.plain, *analysis.sites, *(head.slot for head in heads.values())}
    slots = find_dependent(analysis.variables, starts)
    moving = tuple(e for e in analysis.variables if slots.intersection((*e.inputs, *e.outputs)))
    run_equations([e for e in analysis.variables if not slots.intersection((*e.inputs, *e.outputs))], fixed)
    filters = {e.outputs[0]: flip_filters(fixed[e.inputs[1]], e) for e in find_convolutions(analysis, heads)}
    return Passes(analysis, leaves, dtype, fixed, moving, filters, heads)


def find_convolutions(analysis: Analysis, heads: Mapping[int, Head]) -> list[Equation]:
    """The convolutions whose input's gradient is computed by `ntklens.ntk.convolution`: on a CPU, of fixed filters."""
    if not uses_cpu():
        return []
    differentiated = {*analysis.plain, *analysis.sites, *(head.slot for head in heads.values())}
    moving = find_dependent(analysis.variables, differentiated)
    unfixed = find_dependent(analysis.variables, {analysis.program.sample, *differentiated})
    return [e for e in analysis.variables if is_convolution(e) and e.inputs[0] in moving and e.inputs[1] not in unfixed]


def _read_outer_products(gradients: Gradients, use: Use) -> OuterProducts:
    delta = gradients.get_delta(use.site)
    n, c = delta.shape[:2]
    scale = use.sign * _read_scale(use.view, gradients.fixed, gradients.dtype)
    if use.is_sum:
        return OuterProducts(jnp.broadcast_to(scale, (n, 1, 1)), delta.reshape(n, c, 1, -1))
    other = gradients.others[use.other].astype(gradients.dtype)
    if use.is_convolution:
        products = _read_products_of_filter(gradients, use)
        return OuterProducts(products.a * scale, products.delta, products.groups)
    contracted, _ = use.dot_dimensions
    # Contracted dimensions go in the view's order, so that all uses of the view lay out its gradient alike.
    inner = [d for _, d in sorted(zip(*contracted, strict=True))]
    free = [d for d in range(other.ndim - 1) if d not in inner]
    positions, width = (math.prod(other.shape[1 + d] for d in dims) for dims in (free, inner))
    a = other.transpose(0, *(1 + d for d in (*free, *inner))).reshape(n, positions, width)
    features = math.prod(delta.shape[2:]) // max(positions, 1)
    if use.side == 1:
        delta = delta.reshape(n, c, positions, features)
    else:
        delta = delta.reshape(n, c, features, positions).swapaxes(2, 3)
    return OuterProducts(a * scale, delta)


def _read_products_of_filter(gradients: Gradients, use: Use) -> OuterProducts:
    equation, other = use.equation, gradients.others[use.other].astype(gradients.dtype)
    dimensions, groups = equation.params["dimension_numbers"], equation.params["feature_group_count"]
    view = gradients.analysis.program.avals[equation.inputs[1]].shape
    a = extract_patches(other, equation, tuple(view[d] for d in dimensions.rhs_spec[2:]))
    return OuterProducts(a, arrange_gradient(gradients.get_delta(use.site), equation), groups)


def _read_scale(view: View, fixed: dict[int, Any], dtype: Any) -> Array:
    """The constant by which a one-to-one view multiplies its leaf."""
    scale = jnp.ones((), dtype)
    of_leaf = {view.leaf, *(slot for step in view.steps for slot in step.outputs)}
    for step in view.steps:
        name = step.primitive.name
        if name == "neg":
            scale = -scale
        elif name in SCALINGS:
            (factor,) = (fixed[slot] for slot in step.inputs if slot not in of_leaf)
            factor = jnp.asarray(factor).astype(dtype).reshape(())
            scale = scale * factor if name == "mul" else scale / factor
    return scale


def _pull_back_use(use: Use, fixed: dict[int, Any], leaf: Array, other: Array | None, delta: Array) -> Array:
    """Gradient of one use with respect to the leaf, for one sample and output: the transpose of its linear function."""

    def act(leaf: Array) -> Array:
        values = fixed | {use.view.leaf: leaf}
        run_equations(use.view.steps, values)
        if use.is_sum:
            return jnp.broadcast_to(use.sign * values[use.equation.inputs[use.side]], delta.shape)
        values[use.other] = other
        run_equations([use.equation], values)
        return values[use.equation.outputs[0]]

    return jax.vjp(act, leaf)[1](delta)[0]
