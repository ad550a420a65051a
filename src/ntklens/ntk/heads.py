"""Cotangents that no sample changes: one gradient per sample instead of C.

Where y = φ(z) elementwise and the gradient g_c of output c with respect to y is the same for all samples and positions,
as before a mean over positions and a linear readout, the gradient with respect to z is φ'(z_it) ∘ g_c. For a leaf W
entering z = a W the gradients are then S_ikf g_cf with S_i = a_iᵀ φ'(z_i), and

    Θ_W[(i,c),(j,c')] = Σ_f g_cf g_c'f (S_i·f · S_j·f),

C² times cheaper than a Gram of C gradients per sample. Both are found from the equations alone.
"""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ntklens.ntk.linearity import Analysis, Use
from ntklens.ntk.program import Equation, Program, find_dependent, run_equations

# Elementwise functions linear in one operand: the gradient passes them scaled alike for all elements.
LINEAR = {"add", "add_any", "sub", "neg", "convert_element_type", "copy", "copy_p", "mul", "div"}
ELEMENTWISE = LINEAR | {
    *("max", "min", "clamp", "abs", "sign", "select_n", "gt", "ge", "lt", "le", "eq", "ne", "and", "or", "not"),
    *("exp", "exp2", "log", "log1p", "log2", "expm1", "logistic", "erf", "erfc", "erf_inv", "lgamma", "digamma"),
    *("sin", "cos", "tan", "asin", "acos", "atan", "atan2", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh"),
    *("pow", "integer_pow", "square", "one_minus_square", "sqrt", "rsqrt", "cbrt", "floor", "ceil", "round", "rem"),
    *("is_finite", "stop_gradient", "name"),
}
CALLS = {"custom_jvp_call", "jit", "pjit"}


@dataclass(frozen=True)
class Head:
    """A site z and the slot of y = φ(z), computed by the equations `region`; none if z is y.

    `feature` is the axis of z along which the cotangent of y may change.
    """

    site: int
    slot: int
    region: tuple[Equation, ...]
    feature: int

    def read_cotangent(self, delta: Array) -> Array:
        """The gradient g [C, F] from that at y [N, C, ...]."""
        moved = jnp.moveaxis(delta[0], 1 + self.feature, -1)
        return moved.reshape(moved.shape[0], -1, moved.shape[-1])[:, 0]

    def compute_slopes(self, z: Array, values: dict[int, Any]) -> Array:
        """φ'(z) [N, T, F] at z [N, ...]; `values` holds the slots that depend on no sample."""
        slopes = jax.vmap(lambda z: jax.vjp(lambda z: self._act(values, z), z)[1](jnp.ones_like(z))[0])(z)
        slopes = jnp.moveaxis(slopes, 1 + self.feature, -1)
        return slopes.reshape(slopes.shape[0], -1, slopes.shape[-1])

    def _act(self, values: dict[int, Any], z: Array) -> Array:
        values = values | {self.site: z}
        run_equations(self.region, values)
        return values[self.slot]


def find_heads(analysis: Analysis) -> dict[int, Head]:
    """{leaf: head} of the leaves whose one use is a product before such a place."""
    program, equations = analysis.program, analysis.variables
    varying = find_dependent(equations, [program.sample])
    known = _find_constant_cotangents(program, equations, varying)
    # Made of leaves that are differentiated whole: what a head reads has to be known before the passes.
    loose = find_dependent(equations, {*analysis.plain, *analysis.sites}) - varying
    heads = {}
    for leaf in analysis.uses:
        uses = analysis.get_outer_uses(leaf)
        if len(uses) != 1 or uses[0].is_sum or uses[0].side != 1 or uses[0].measure(program).groups > 1:
            continue
        feature = _find_feature(program, uses[0])
        head = None if feature is None else _find_head(program, equations, varying, known, uses[0].site, feature)
        if head is not None and not loose.intersection(slot for e in head.region for slot in e.inputs):
            heads[leaf] = head
    return heads


def _find_feature(program: Program, use: Use) -> int | None:
    """The axis of a product along which the view's features lie, if it is one."""
    if use.is_convolution:
        return use.equation.params["dimension_numbers"].out_spec[1]
    view = program.avals[use.equation.inputs[1]].shape
    rank = len(program.avals[use.equation.outputs[0]].shape)
    return rank - 1 if len(view) - len(use.dot_dimensions[0][0]) == 1 else None


def _find_constant_cotangents(
    program: Program, equations: tuple[Equation, ...], varying: set[int]
) -> dict[int, frozenset[int]]:
    """{slot whose gradient no sample changes: axes along which it does not change either}, from the output back."""
    readers: dict[int, list[tuple[Equation, int]]] = {}
    for equation in equations:
        for side, slot in enumerate(equation.inputs):
            readers.setdefault(slot, []).append((equation, side))
    if program.output in readers:  # its gradient is more than the unit vector
        return {}
    known = {program.output: frozenset[int]()}
    for slot in reversed([slot for equation in equations for slot in equation.outputs if slot in varying]):
        if slot == program.output or slot not in readers:
            continue
        axes = [_pull_back_axes(program, equation, side, varying, known) for equation, side in readers[slot]]
        if None not in axes:
            known[slot] = frozenset.intersection(*[found for found in axes if found is not None])
    return known


def _pull_back_axes(
    program: Program, equation: Equation, side: int, varying: set[int], known: dict[int, frozenset[int]]
) -> frozenset[int] | None:
    """Axes along which the gradient that one reader hands to its operand does not change; None: samples change it."""
    out, name = equation.outputs[0], equation.primitive.name
    shape, others = program.avals[equation.inputs[side]].shape, [s for k, s in enumerate(equation.inputs) if k != side]
    if out not in known or (name not in ("add", "add_any", "sub") and varying.intersection(others)):
        return None
    if name in LINEAR and program.avals[out].shape == shape and not (name == "div" and side == 1):
        scales = [program.avals[slot].shape for slot in others if name in ("mul", "div") and program.size(slot) > 1]
        return frozenset(d for d in known[out] if all(scale[d] == 1 for scale in scales))
    if name == "reduce_sum":
        axes = equation.params["axes"]
        kept = [d for d in range(len(shape)) if d not in axes]
        return frozenset(axes) | {kept[d] for d in known[out]}
    if name == "dot_general":
        contracted, batch = equation.params["dimension_numbers"]
        if any(batch):
            return frozenset()
        shapes = [program.avals[slot].shape for slot in equation.inputs]
        free = [[d for d in range(len(shapes[k])) if d not in contracted[k]] for k in (0, 1)]
        return frozenset(d for k, d in enumerate(free[side], side * len(free[0])) if k in known[out])
    return frozenset() if name in ("reshape", "squeeze", "expand_dims", "transpose", "slice") else None


def _find_head(
    program: Program,
    equations: tuple[Equation, ...],
    varying: set[int],
    known: dict[int, frozenset[int]],
    site: int,
    feature: int,
) -> Head | None:
    """The head that begins at a site: all that is made of z is elementwise up to one slot of known gradient."""
    shape = program.avals[site].shape
    inside, region, exits = {site}, [], set()
    if site in known:
        exits, inside = {site}, set()
    for equation in equations:
        if not inside.intersection(equation.inputs):
            continue
        out, *more = equation.outputs
        moving = varying.intersection(equation.inputs)
        if more or not moving <= inside or program.avals[out].shape != shape:
            return None
        region.append(equation)
        (exits if out in known else inside).add(out)
    if len(exits) != 1:
        return None
    head = Head(site, exits.pop(), tuple(region), feature)
    flat = all(d in known[head.slot] or length == 1 for d, length in enumerate(shape) if d != feature)
    return head if flat and _is_elementwise(program, head, varying) else None


def _is_elementwise(program: Program, head: Head, varying: set[int]) -> bool:
    """Whether y and its derivative, rules of the user's own included, are made element by element."""
    if not head.region:
        return True
    inputs = {slot for equation in head.region for slot in equation.inputs} - varying
    fixed, z = {slot: program.avals[slot] for slot in inputs}, program.avals[head.site]

    def differentiate(fixed: dict[int, Array], z: Array) -> Any:
        return jax.jvp(functools.partial(head._act, dict(fixed)), (z,), (z,))

    # A custom_vjp rule need not be linear in the cotangent, and fails the first of the two.
    functions = (lambda fixed, z: head._act(dict(fixed), z), differentiate)
    return all(_is_elementwise_jaxpr(jax.make_jaxpr(function)(fixed, z).jaxpr) for function in functions)


def _is_elementwise_jaxpr(jaxpr: Any) -> bool:
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name in CALLS:
            inner = equation.params.get("call_jaxpr", equation.params.get("jaxpr"))
            if not _is_elementwise_jaxpr(inner.jaxpr):
                return False
        elif name == "broadcast_in_dim":
            if equation.invars[0].aval.shape != ():
                return False
        elif name not in ELEMENTWISE:
            return False
    return True


def form_head(a: Array, slopes: Array | None) -> Array:
    """S [N, K, F] = Σ_t a_tk φ'(z_tf); [N, K, 1], the same for all features, if φ is the identity."""
    return a.sum(1)[:, :, None] if slopes is None else a.swapaxes(1, 2) @ slopes


def compute_head_kernel(s: Array, s2: Array, g: Array) -> Array:
    """Σ_f g_cf g_c'f (S_i·f · S2_j·f), [N, C, N2, C]."""
    if s.shape[2] == 1:
        return (s[:, :, 0] @ s2[:, :, 0].T)[:, None, :, None] * (g @ g.T)[None, :, None]
    c, f = g.shape
    grams = jnp.einsum("ikf,jkf->fij", s, s2).reshape(f, -1)
    pairs = (g[:, None] * g[None]).reshape(c * c, f)
    return (grams.T @ pairs.T).reshape(len(s), len(s2), c, c).transpose(0, 2, 1, 3)


def compute_head_trace(s: Array, s2: Array, g: Array) -> Array:
    """Σ_cf g_cf² (S_i·f · S2_i·f) for each sample, [N]."""
    return (
        ((s * s2).sum(1) * jnp.square(g).sum(0)[None]).sum(1)
        if s.shape[2] > 1
        else (s * s2).sum((1, 2)) * jnp.square(g).sum()
    )
