"""The gradients of a program's outputs with respect to its parameters, sample by sample, in the cheapest exact form."""

import functools
import math
import operator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ntklens.ntk.linearity import SCALINGS, Analysis, Use, View
from ntklens.ntk.program import run_equations


@dataclass(frozen=True)
class OuterProducts:
    """Gradients Σ_t a_it ⊗ δ_ict of one leaf: `a` [N, T, K] and `delta` [N, C, T, F], T positions."""

    a: Array
    delta: Array

    @property
    def positions(self) -> int:
        """T."""
        return self.a.shape[1]

    def sum_positions(self) -> Array:
        """The gradients themselves, [N, C, K F]."""
        gradients = jnp.einsum("ntk,nctf->nckf", self.a, self.delta)
        return gradients.reshape(*gradients.shape[:2], -1)


@dataclass(frozen=True)
class Gradients:
    """What one forward and backward pass over N samples leaves, and the gradients of single leaves that follow from it.

    `others` holds the operand beside the view of each use [N, ...], `deltas` the gradient of the C outputs at each site
    [N, C, ...], `jacobians` that at each plain leaf [N, C, ...], `constants` the values of constant slots.
    """

    analysis: Analysis
    leaves: list[Array]
    samples: int
    dtype: Any
    others: dict[int, Array]
    deltas: dict[int, Array]
    jacobians: dict[int, Array]
    constants: dict[int, Any]

    def get_delta(self, site: int) -> Array:
        """∂f_c(x_i)/∂z at a site, [N, C, ...]."""
        return self.deltas[site].astype(self.dtype)

    def get_outer_products(self, leaf: int) -> OuterProducts | None:
        """A leaf's gradients as outer products, if all its uses yield such and add up."""
        uses = self.analysis.uses.get(leaf, ())
        if not uses or not all(use.is_outer and use.adds_up_with(uses[0]) for use in uses):
            return None
        terms = [_read_outer_products(self, use) for use in uses]
        if len(terms) == 1:
            return terms[0]
        return OuterProducts(
            jnp.concatenate([term.a for term in terms], 1), jnp.concatenate([term.delta for term in terms], 2)
        )

    def get_jacobian(self, leaf: int) -> Array:
        """A leaf's gradients whole, [N, C, P], summed over its uses."""
        if leaf in self.jacobians:
            jacobian = self.jacobians[leaf].astype(self.dtype)
        else:
            jacobian = functools.reduce(operator.add, map(self._pull_back, self.analysis.uses[leaf]))
        return jacobian.reshape(*jacobian.shape[:2], -1)

    def _pull_back(self, use: Use) -> Array:
        pull = functools.partial(_pull_back_use, use, self.constants, self.leaves[use.view.leaf])
        delta = self.deltas[use.site]
        if use.is_sum:
            gradients = jax.vmap(jax.vmap(functools.partial(pull, None)))(delta)
        else:
            gradients = jax.vmap(jax.vmap(pull, (None, 0)))(self.others[use.other], delta)
        return gradients.astype(self.dtype)


def compute_gradients(analysis: Analysis, leaves: list[Array], x: Array, dtype: Any) -> Gradients:
    """Run the program forward, and back from each of its C outputs, for all samples at once.

    Args:
        analysis: what the program does with the leaves.
        leaves: the parameters, in the program's order.
        x: inputs [N, ...].
        dtype: of the kernel to come.

    Returns:
        The gradients at all sites and with respect to the plain leaves.
    """
    program = analysis.program
    constants = dict(program.constants)
    run_equations(analysis.constants, constants)
    kept = {use.other for uses in analysis.uses.values() for use in uses if not use.is_sum}
    zeros = {slot: jnp.zeros(program.avals[slot].shape, program.avals[slot].dtype) for slot in analysis.sites}
    plain = {leaf: leaves[leaf] for leaf in analysis.plain}

    def run_one(sample: Array) -> tuple[tuple[dict[int, Array], dict[int, Array]], dict[int, Array]]:
        def forward(offsets: dict[int, Array], plain: dict[int, Array]) -> tuple[Array, dict[int, Array]]:
            values = constants | dict(enumerate(leaves)) | plain
            values[program.sample] = sample
            run_equations(analysis.variables, values, offsets)
            return values[program.output], {slot: values[slot] for slot in kept}

        # The gradient with respect to a zero added to z is that with respect to z.
        y, pull_back, others = jax.vjp(forward, zeros, plain, has_aux=True)
        return jax.vmap(pull_back)(jnp.eye(y.shape[0], dtype=y.dtype)), others

    (deltas, jacobians), others = jax.vmap(run_one)(x)
    return Gradients(analysis, leaves, x.shape[0], dtype, others, deltas, jacobians, constants)


def _read_outer_products(gradients: Gradients, use: Use) -> OuterProducts:
    delta = gradients.get_delta(use.site)
    n, c = delta.shape[:2]
    scale = use.sign * _read_scale(use.view, gradients.constants, gradients.dtype)
    if use.is_sum:
        return OuterProducts(jnp.broadcast_to(scale, (n, 1, 1)), delta.reshape(n, c, 1, -1))
    other = gradients.others[use.other].astype(gradients.dtype)
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


def _read_scale(view: View, constants: dict[int, Any], dtype: Any) -> Array:
    """The constant by which a one-to-one view multiplies its leaf."""
    scale = jnp.ones((), dtype)
    for step in view.steps:
        name = step.primitive.name
        if name == "neg":
            scale = -scale
        elif name in SCALINGS:
            (factor,) = (constants[slot] for slot in step.inputs if slot in constants)
            factor = jnp.asarray(factor).astype(dtype).reshape(())
            scale = scale * factor if name == "mul" else scale / factor
    return scale


def _pull_back_use(use: Use, constants: dict[int, Any], leaf: Array, other: Array | None, delta: Array) -> Array:
    """Gradient of one use with respect to the leaf, for one sample and output: the transpose of its linear function."""

    def act(leaf: Array) -> Array:
        values = constants | {use.view.leaf: leaf}
        run_equations(use.view.steps, values)
        if use.is_sum:
            return jnp.broadcast_to(use.sign * values[use.equation.inputs[use.side]], delta.shape)
        values[use.other] = other
        run_equations([use.equation], values)
        return values[use.equation.outputs[0]]

    return jax.vjp(act, leaf)[1](delta)[0]
