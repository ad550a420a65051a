"""Which ReLU units are active, of any function of JAX: found in its program, not in a framework's modules."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend.core import Literal

from ntklens.ntk.layers import Function, name_layers
from ntklens.ntk.program import CALLS, Equation, Program, run_equations, trace_program


def active_units(f: Function, params: Any, x: Array) -> list[Array]:
    """Return for each ReLU of a function which of its units are active, z > 0, of every sample.

    A ReLU is `jax.nn.relu`, or the maximum with 0. What does not depend on a parameter (a copy of the network that is
    held fixed) is left out.

    Args:
        f: function f(params, x) → [N, C], or a `flax.linen.Module`.
        params: pytree of parameters.
        x: inputs [N, ...].

    Returns:
        Booleans [N, 1, ...], the units of a batch of one, an array for each ReLU in the order of the program; none of
        functions without.
    """
    program = trace_program(f, params, x)
    leaves = jax.tree.leaves(params)
    trained = {number for members in name_layers(f, params).values() for number in members}
    slots = _find_rectified(program, trained)

    def run_one(sample: Array) -> list[Array]:
        values = dict(program.constants) | dict(enumerate(leaves))
        values[program.sample] = sample
        run_equations(program.equations, values)
        return [values[slot] > 0 for slot in slots]

    return jax.vmap(run_one)(x) if slots else []


def flipped_fraction(f: Function, params: Any, start: Any, x: Array) -> Array:
    """Return the fraction of ReLU units, over all samples, that are active at one of two parameters and not the other.

    Args:
        f: function f(params, x) → [N, C], or a `flax.linen.Module`.
        params: pytree of parameters.
        start: others.
        x: inputs [N, ...].

    Returns:
        Scalar array in [0, 1]; NaN of a function without a ReLU.
    """
    with jax.default_matmul_precision("highest"):
        pairs = zip(active_units(f, params, x), active_units(f, start, x), strict=True)
    flips = [jnp.ravel(now != before) for now, before in pairs]
    dtype = jnp.result_type(*jax.tree.leaves(params))
    return jnp.mean(jnp.concatenate(flips).astype(dtype)) if flips else jnp.full((), jnp.nan, dtype)


def _find_rectified(program: Program, trained: set[int]) -> list[int]:
    """Return the slots that enter a ReLU and depend on one of the leaves `trained`."""
    depends, found = set(trained), []
    for equation in program.equations:
        if depends.isdisjoint(equation.inputs):
            continue
        depends.update(equation.outputs)
        found += [slot for slot in _list_rectified(program, equation) if slot in depends]
    return found


def _list_rectified(program: Program, equation: Equation) -> list[int]:
    name = equation.primitive.name
    if name == "max":
        first, second = equation.inputs
        return [slot for slot, other in ((first, second), (second, first)) if _is_zero(program.constants.get(other))]
    if name == "custom_jvp_call" and _is_relu(equation.params["call_jaxpr"].jaxpr):
        return [equation.inputs[0]]
    return []


def _is_relu(jaxpr: Any) -> bool:
    if len(jaxpr.eqns) != 1:
        return False
    (equation,) = jaxpr.eqns
    if equation.primitive.name in CALLS:
        called = equation.params[CALLS[equation.primitive.name]]
        return _is_relu(getattr(called, "jaxpr", called))
    literals = [atom.val for atom in equation.invars if isinstance(atom, Literal)]
    return equation.primitive.name == "max" and any(map(_is_zero, literals))


def _is_zero(value: Any) -> bool:
    return value is not None and not isinstance(value, jax.core.Tracer) and not np.any(np.asarray(value))
