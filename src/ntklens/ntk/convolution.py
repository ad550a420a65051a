"""Convolutions as products over patches, and their input gradients, in forms that XLA runs fast on a CPU.

The gradient of a filter is Σ_t patch_t ⊗ δ_t over the positions t of the result. On XLA:CPU the patches of shifted
slices and one matrix product are many times faster than the convolution that JAX's own rule calls for. The same holds
for the gradient of the input: inside a loop XLA runs a convolution by a transposed filter on its slowest path, and a
strided one multiplies by the zeros between the samples.
"""

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from ntklens.ntk.program import Equation, apply_equation

CONVOLUTION = "conv_general_dilated"
Filters = Mapping[tuple[int, ...], Array]  # phase of the strides → flipped filter [taps..., out / groups, in]


def is_convolution(equation: Equation) -> bool:
    """Whether an equation is a convolution that this module handles."""
    return equation.primitive.name == CONVOLUTION and equation.params["batch_group_count"] == 1


def extract_patches(x: Array, equation: Equation, taps: tuple[int, ...]) -> Array:
    """Patches [N, T, K] of a convolution's input.

    Args:
        x: inputs [N, ...], each as the convolution takes it.
        equation: the convolution.
        taps: spatial shape of its filter.

    Returns:
        For each position of the result the K = groups × taps × channels of a group numbers that it is made of, groups
        slowest, channels fastest.
    """
    p = equation.params
    spec, rank, groups = p["dimension_numbers"].lhs_spec, len(taps), p["feature_group_count"]
    x = jnp.transpose(x, (0, *(1 + d for d in (spec[0], *spec[2:], spec[1]))))
    n, batch, channels = x.shape[0], x.shape[1], x.shape[-1]
    x = x.reshape(n * batch, *x.shape[2:])
    edges = [(low, high, step - 1) for (low, high), step in zip(p["padding"], p["lhs_dilation"], strict=True)]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
    for d, (taps_here, stride, dilation) in enumerate(zip(taps, p["window_strides"], p["rhs_dilation"], strict=True)):
        count = max(0, (x.shape[1 + d] - (taps_here - 1) * dilation - 1) // stride + 1)
        reach = max(0, (count - 1) * stride + 1)
        starts = [tap * dilation for tap in range(taps_here)] if count else [0] * taps_here
        slices = [lax.slice_in_dim(x, start, start + reach, stride, 1 + d) for start in starts]
        # Axis by axis, each made before the next: less to compile than all taps at once, and no slower.
        x = lax.optimization_barrier(jnp.stack(slices, 1 + rank + d))
    if groups > 1:
        x = jnp.moveaxis(x.reshape(*x.shape[:-1], groups, channels // groups), -2, 1 + rank)
    return x.reshape(n, batch * math.prod(x.shape[1 : 1 + rank]), math.prod(taps) * channels)


def arrange_gradient(delta: Array, equation: Equation) -> Array:
    """The gradient [N, C, ...] of a convolution's result as [N, C, T, F]: positions in the patches' order."""
    spec = equation.params["dimension_numbers"].out_spec
    delta = jnp.transpose(delta, (0, 1, *(2 + d for d in (spec[0], *spec[2:], spec[1]))))
    return delta.reshape(*delta.shape[:2], -1, delta.shape[-1])


def flip_filters(weight: Array, equation: Equation) -> Filters:
    """Prepare a filter for the input's gradient, once and outside any loop: flipped, transposed, one per phase.

    The input at p + s·i meets the taps that are p + padding modulo the stride s, so that each phase p has a filter of
    its own and no product with a zero is computed. Dilated convolutions have a single phase.

    Returns:
        The filters of each phase.
    """
    p = equation.params
    spec, groups = p["dimension_numbers"].rhs_spec, p["feature_group_count"]
    rank = len(spec) - 2
    weight = jnp.transpose(weight, (*spec[2:], spec[0], spec[1]))  # taps..., out, in / groups
    *taps, out, channels = weight.shape
    if groups > 1:
        weight = weight.reshape(*taps, groups, out // groups, channels).swapaxes(rank, rank + 1)
        weight = weight.reshape(*taps, out // groups, groups * channels)
    strides = p["window_strides"] if _has_phases(equation) else (1,) * rank
    filters = {}
    for phase in itertools.product(*map(range, strides)):
        part = weight
        for d, (q, step) in enumerate(zip(phase, strides, strict=True)):
            part = part[(slice(None),) * d + (slice((q + p["padding"][d][0]) % step, None, step),)]
        # The barrier keeps XLA from folding flip and transposition into the convolution.
        filters[phase] = lax.optimization_barrier(lax.rev(part, tuple(range(rank))))
    return filters


def _has_phases(equation: Equation) -> bool:
    p = equation.params
    return {*p["lhs_dilation"], *p["rhs_dilation"]} == {1}


def pull_back_input(delta: Array, filters: Filters, equation: Equation, x: jax.ShapeDtypeStruct) -> Array:
    """Gradient with respect to a convolution's input x, from that of its result, which may have a wider type."""
    p, shape = equation.params, x.shape
    dims = p["dimension_numbers"]
    rank = len(shape) - 2
    size = [shape[d] for d in dims.lhs_spec[2:]]
    steps = (1,) * rank
    strides, spread, stretch = p["lhs_dilation"], p["window_strides"], p["rhs_dilation"]
    if _has_phases(equation):
        steps, spread = spread, steps
    delta = jnp.transpose(delta, (dims.out_spec[0], *dims.out_spec[2:], dims.out_spec[1]))
    layout = lax.ConvDimensionNumbers(
        (0, rank + 1, *range(1, rank + 1)), (rank + 1, rank, *range(rank)), (0, rank + 1, *range(1, rank + 1))
    )
    parts = {}
    for phase, kernel in filters.items():
        padding, counts = [], []
        for d in range(rank):
            counts.append(-(-size[d] // steps[d]))
            reach = (kernel.shape[d] - 1) * stretch[d]
            before = reach - (phase[d] + p["padding"][d][0]) // steps[d]
            length = (delta.shape[1 + d] - 1) * spread[d] + 1
            padding.append((before, (counts[d] - 1) * strides[d] + 1 + reach - length - before))
        if 0 in kernel.shape or 0 in delta.shape:  # a stride that is longer than the filter leaves inputs out
            parts[phase] = jnp.zeros((delta.shape[0], *counts, kernel.shape[-1]), delta.dtype)
        else:
            groups, precision = p["feature_group_count"], p["precision"]
            parts[phase] = lax.conv_general_dilated(
                delta,
                kernel.astype(delta.dtype),
                strides,
                padding,
                spread,
                stretch,
                layout,
                groups,
                precision=precision,
            )
    gradient = _interleave(parts, steps)[(slice(None), *map(slice, size))]
    order = (dims.lhs_spec[0], *dims.lhs_spec[2:], dims.lhs_spec[1])
    return jnp.transpose(gradient, sorted(range(rank + 2), key=order.__getitem__)).astype(x.dtype)


def _interleave(parts: Mapping[tuple[int, ...], Array], steps: tuple[int, ...]) -> Array:
    """Join phases [N, ..., channels] into one array, the last dimension first."""
    for d in reversed(range(len(steps))):
        joined = {}
        for head in dict.fromkeys(phase[:d] for phase in parts):
            row = [parts[(*head, q)] for q in range(steps[d])]
            shape = list(row[0].shape)
            shape[1 + d] *= steps[d]
            joined[head] = jnp.stack(row, d + 2).reshape(shape)
        parts = joined
    return parts[()]


def make_convolution(equation: Equation, filters: Filters) -> Callable[[Array, Array], list[Array]]:
    """The convolution as a function of its operands whose input gradient is `pull_back_input`."""

    @jax.custom_vjp
    def convolve(x: Array, weight: Array, filters: Filters) -> Array:
        return apply_equation(equation, [x, weight])[0]

    def forward(x: Array, weight: Array, filters: Filters) -> tuple[Array, Any]:
        return convolve(x, weight, filters), (x, weight, filters)

    def backward(kept: Any, delta: Array) -> tuple[Array, Array, None]:
        x, weight, filters = kept
        # Nothing asks for the second but derivatives of the kernel itself.
        (of_weight,) = jax.vjp(lambda weight: apply_equation(equation, [x, weight])[0], weight)[1](delta)
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return pull_back_input(delta, filters, equation, shape), of_weight, None

    convolve.defvjp(forward, backward)
    return lambda x, weight: [convolve(x, weight, filters)]
