"""What a program computes, as a value that is equal for equal programs, whatever function they were traced from."""

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Primitive

from ntklens.ntk.program import Equation, Program, apply_equation

CUSTOM_RULES = {"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"}


def sign_program(program: Program) -> Hashable:
    """Return a value that two programs share only if they compute the same, gradients included.

    The values of the arrays that the function closes over are left out: they are arguments of what is compiled. What
    cannot be compared equals nothing, so that the program is compiled again.
    """
    literals = {slot: value for slot, value in program.constants.items() if slot not in set(program.captured)}
    return (
        tuple(map(_sign_aval, program.avals)),
        (program.sample, program.output, program.captured),
        tuple((slot, _sign_array(value)) for slot, value in literals.items()),
        tuple((e.inputs, e.outputs, _sign_action(e, [program.avals[k] for k in e.inputs])) for e in program.equations),
    )


def _sign_action(equation: Any, avals: Iterable[Any], differentiated: bool = True) -> Hashable:
    """What an equation does to operands of the shapes `avals`; how it is differentiated, if it is."""
    primitive: Primitive = equation.primitive
    if primitive.name not in CUSTOM_RULES:
        return primitive.name, _sign(equation.params, differentiated)
    if not differentiated:
        return primitive.name, _sign(equation.params["call_jaxpr"], differentiated)
    # Rules are functions: what they compute is seen by applying them.
    return primitive.name, _sign(_trace_derivative(equation, list(avals)), False)


def _trace_derivative(equation: Any, avals: list[Any]) -> Any:
    """The equation with its vector-Jacobian product, traced; an object of its own if that fails."""
    plain = Equation(equation.primitive, equation.params, (), ())

    def is_real(aval: Any) -> bool:
        return jnp.issubdtype(aval.dtype, jnp.inexact)

    def differentiate(operands: list[Any]) -> Any:
        real = [k for k, aval in enumerate(avals) if is_real(aval)]

        def apply(values: list[Any]) -> list[Any]:
            merged = dict(enumerate(operands)) | dict(zip(real, values, strict=True))
            return [y for y in apply_equation(plain, [merged[k] for k in range(len(avals))]) if is_real(y)]

        results, pull_back = jax.vjp(apply, [operands[k] for k in real])
        return results, pull_back(results)

    try:
        shapes = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in avals]
        return jax.make_jaxpr(differentiate)(shapes)
    except Exception:  # a rule that cannot be applied by itself
        return object()


def _sign(value: Any, differentiated: bool) -> Hashable:
    """A hashable stand-in of an equation's parameter."""
    if isinstance(value, ClosedJaxpr):
        return _sign_jaxpr(value.jaxpr, value.consts, differentiated)
    if isinstance(value, Jaxpr):
        return _sign_jaxpr(value, (), differentiated)
    if isinstance(value, Mapping):
        return tuple((key, _sign(value[key], differentiated)) for key in sorted(value, key=str))
    if isinstance(value, list | tuple):
        return type(value).__name__, tuple(_sign(item, differentiated) for item in value)
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return object() if isinstance(value, jax.core.Tracer) else _sign_array(value)
    try:
        hash(value)
    except TypeError:
        return object()
    return type(value), value  # True, 1 and 1.0 are equal


def _sign_jaxpr(jaxpr: Jaxpr, consts: Iterable[Any], differentiated: bool) -> Hashable:
    numbers: dict[Any, int] = {}

    def sign_atom(atom: Any) -> Hashable:
        return _sign_array(atom.val) if isinstance(atom, Literal) else numbers.setdefault(atom, len(numbers))

    return (
        tuple((sign_atom(var), _sign_aval(var.aval)) for var in (*jaxpr.constvars, *jaxpr.invars)),
        tuple(_sign(value, differentiated) for value in consts),
        tuple(
            (
                tuple(map(sign_atom, eqn.invars)),
                tuple((sign_atom(var), _sign_aval(var.aval)) for var in eqn.outvars),
                _sign_action(eqn, [atom.aval for atom in eqn.invars], differentiated),
            )
            for eqn in jaxpr.eqns
        ),
        tuple(map(sign_atom, jaxpr.outvars)),
    )


def _sign_aval(aval: Any) -> Hashable:
    return getattr(aval, "shape", None), getattr(aval, "dtype", None), bool(getattr(aval, "weak_type", False))


def _sign_array(value: Any) -> Hashable:
    if jnp.issubdtype(getattr(value, "dtype", np.float32), jax.dtypes.extended):
        value = jax.random.key_data(value)
    array = np.asarray(value)
    return type(value).__name__ if array.ndim == 0 else "", str(array.dtype), array.shape, array.tobytes()
