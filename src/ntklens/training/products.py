"""Gradients of convolutions as matrix products over patches, which a CPU computes tens of times faster.

Training loops over updates inside one compiled program, where XLA:CPU has no fast path for the gradients of a
convolution z = W ∗ a. That of the filter is Σ_t patch_t ⊗ δ_t over the positions t of z: a product of matrices, of a
few samples at a time, whose patches stay in cache and are not kept. That of the input is a convolution of δ by the
flipped filter (`ntk.convolution`). z itself is the library's.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var

from ntklens.ntk.convolution import extract_patches, flip_filters, is_convolution, pull_back_input
from ntklens.ntk.gram import uses_cpu
from ntklens.ntk.program import CALLS, Equation, apply_equation

RECOMPUTED = {"checkpoint", "remat", "remat2"}  # of `CALLS`: what they compute is not kept for the gradient
PATCH_BYTES = 1 << 22  # of the patches that are made at once
Apply = Callable[[Any, Any], Array]


def differentiate_by_products(apply: Apply) -> Apply:
    """Return `apply` whose convolutions have gradients by products; itself without convolutions or a CPU.

    The sums are the same in another order; values are the same. Convolutions inside of scan, while, cond or a custom
    derivative keep their own gradients.

    Args:
      apply: (parameters, inputs [B, …]) → logits [B, C], traceable.
    """
    if not uses_cpu():
        return apply

    def function(params: Any, inputs: Any) -> Array:
        closed, shape = jax.make_jaxpr(apply, return_shape=True)(params, inputs)
        if not _has_convolutions(closed.jaxpr):
            return apply(params, inputs)
        results = _evaluate(closed.jaxpr, closed.consts, *jax.tree.leaves((params, inputs)))
        return jax.tree.unflatten(jax.tree.structure(shape), results)

    return function


def _has_convolutions(jaxpr: Jaxpr) -> bool:
    return any(_is_replaced(eqn) or _calls_convolutions(eqn) for eqn in jaxpr.eqns)


def _calls_convolutions(eqn: JaxprEqn) -> bool:
    return eqn.primitive.name in CALLS and _has_convolutions(_open(eqn)[0])


def _open(eqn: JaxprEqn) -> tuple[Jaxpr, Sequence[Any]]:
    """The jaxpr that an equation calls, and its constants."""
    called = eqn.params[CALLS[eqn.primitive.name]]
    return (called.jaxpr, called.consts) if hasattr(called, "consts") else (called, ())


def _evaluate(jaxpr: Jaxpr, consts: Sequence[Any], *inputs: Any) -> list[Any]:
    """Evaluate the equations in order, convolutions with gradients of their own."""
    values: dict[Var, Any] = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *inputs), strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for eqn in jaxpr.eqns:
        operands = [read(atom) for atom in eqn.invars]
        if _is_replaced(eqn):
            results = [_make_convolution(_detach(eqn))(*operands)]
        elif _calls_convolutions(eqn):
            call: Callable[..., list[Any]] = functools.partial(_evaluate, *_open(eqn))
            if eqn.primitive.name in RECOMPUTED:
                options = {name: eqn.params[name] for name in ("policy", "prevent_cse")}
                call = jax.checkpoint(call, **options)
            results = call(*operands)
        else:
            results = apply_equation(_detach(eqn), operands)
        values.update(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _is_replaced(eqn: JaxprEqn) -> bool:
    """Whether an equation is a convolution of some extent, and not the gradient of one with respect to its filter."""
    if not is_convolution(_detach(eqn)):
        return False
    shapes: list[tuple[int, ...]] = [getattr(atom.aval, "shape") for atom in (*eqn.invars, *eqn.outvars)]  # noqa: B009
    return len(shapes[0]) > 2 and all(0 not in shape for shape in shapes)


def _detach(eqn: JaxprEqn) -> Equation:
    """The equation without its operands."""
    return Equation(eqn.primitive, eqn.params, (), ())


def _make_convolution(equation: Equation) -> Callable[[Array, Array], Array]:
    """The convolution as a function of its operands whose gradients are products."""

    @jax.custom_vjp
    def convolve(a: Array, weight: Array) -> Array:
        return apply_equation(equation, [a, weight])[0]

    def forward(a: Array, weight: Array) -> tuple[Array, tuple[Array, Array]]:
        return apply_equation(equation, [a, weight])[0], (a, weight)

    def backward(kept: tuple[Array, Array], delta: Array) -> tuple[Array, Array]:
        a, weight = kept
        shape = jax.ShapeDtypeStruct(a.shape, a.dtype)
        of_input = pull_back_input(delta, flip_filters(weight, equation), equation, shape)
        return of_input, _pull_back_filter(a, delta, weight.shape, equation).astype(weight.dtype)

    convolve.defvjp(forward, backward)
    return convolve


def _pull_back_filter(a: Array, delta: Array, shape: Sequence[int], equation: Equation) -> Array:
    """Gradient with respect to a filter, from that of the result: Σ_t patch_t ⊗ δ_t over positions and samples.

    As many samples are taken at a time as have patches of `PATCH_BYTES`.

    Args:
      a: input of the convolution.
      delta: gradient of its result.
      shape: of the filter.
      equation: the convolution.

    Returns:
      An array of the filter's shape.
    """
    dims, groups = equation.params["dimension_numbers"], equation.params["feature_group_count"]
    layout = (*dims.rhs_spec[2:], dims.rhs_spec[1], dims.rhs_spec[0])
    *taps, channels, units = (shape[axis] for axis in layout)
    reads, units_of_group = math.prod(taps) * channels, units // groups
    a, delta = jnp.moveaxis(a, dims.lhs_spec[0], 0), jnp.moveaxis(delta, dims.out_spec[0], 0)
    channels_last = [1 + axis - (axis > dims.out_spec[0]) for axis in (*dims.out_spec[2:], dims.out_spec[1])]

    def multiply(start: Array | int, count: int) -> Array:
        samples = lax.dynamic_slice_in_dim(a, start, count)
        patches = extract_patches(jnp.expand_dims(samples, 1 + dims.lhs_spec[0]), equation, tuple(taps))
        of_result = jnp.transpose(lax.dynamic_slice_in_dim(delta, start, count), (0, *channels_last))
        return jnp.einsum(
            "tgk,tgf->gkf",
            patches.reshape(-1, groups, reads),
            of_result.reshape(-1, groups, units_of_group),
            precision=equation.params["precision"],
            preferred_element_type=delta.dtype,
        )

    positions = delta.size // len(delta) // units
    count = max(1, PATCH_BYTES // (positions * groups * reads * a.dtype.itemsize))
    if count >= len(a):
        gradient = multiply(0, len(a))
    else:
        total = jnp.zeros((groups, reads, units_of_group), delta.dtype)
        pieces, rest = divmod(len(a), count)
        gradient = lax.fori_loop(0, pieces, lambda k, total: total + multiply(k * count, count), total)
        if rest:
            gradient += multiply(len(a) - rest, rest)
    gradient = jnp.moveaxis(gradient.reshape(groups, *taps, channels, units_of_group), 0, -2)
    gradient = gradient.reshape(*taps, channels, units)
    return jnp.transpose(gradient, [layout.index(axis) for axis in range(gradient.ndim)])
