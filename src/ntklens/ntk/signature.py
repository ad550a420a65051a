"""What a program computes, as a value that is equal for equal programs, whatever function they were traced from."""

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Primitive

from ntklens._compat import find_custom_rule
from ntklens.ntk.program import Equation, Program, apply_equation

CUSTOM_RULES = {"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"}


def sign_program(program: Program) -> Hashable:
    """Return a value that two programs share only if they compute the same, gradients included.

    The values of the arrays that the function closes over are left out: they are arguments of what is compiled. What
    cannot be compared equals nothing, so that the program is compiled again.
    """
    rules: dict[Hashable, Hashable] = {}
    literals = {slot: value for slot, value in program.constants.items() if slot not in set(program.captured)}
    return (
        tuple(map(_sign_aval, program.avals)),
        (program.sample, program.output, program.captured),
        tuple((slot, _sign_array(value)) for slot, value in literals.items()),
        tuple(
            (e.inputs, e.outputs, _sign_action(e, [program.avals[k] for k in e.inputs], rules))
            for e in program.equations
        ),
    )


def _sign_action(equation: Any, avals: Iterable[Any], rules: dict | None) -> Hashable:
    """What an equation does to operands of the shapes `avals`.

    Args:
        equation: has a primitive and its params.
        avals: of the operands.
        rules: derivatives found so far in the same program; None: the equation is not differentiated.

    Returns:
        Equal for equations that do the same.
    """
    primitive: Primitive = equation.primitive
    if primitive.name not in CUSTOM_RULES:
        return primitive.name, _sign(equation.params, rules)
    action = primitive.name, _sign(equation.params["call_jaxpr"], rules)
    if rules is None:
        return action
    # Rules are functions: what they compute is seen by applying them, once for each.
    avals, rule = list(avals), find_custom_rule(equation.params)
    if rule is None:
        return action, _sign(_trace_derivative(equation, avals), None)
    key = rule, tuple(map(_sign_aval, avals)), action
    if key not in rules:
        rules[key] = _sign(_trace_derivative(equation, avals), None)
    return action, rules[key]


def _trace_derivative(equation: Any, avals: list[Any]) -> Any:
    """The equation with its derivative, traced; an object that equals nothing if that fails."""
    plain = Equation(equation.primitive, equation.params, (), ())
    real = [k for k, aval in enumerate(avals) if _is_real(aval)]

    def differentiate(operands: list[Any]) -> Any:
        def apply(values: list[Any]) -> list[Any]:
            merged = dict(enumerate(operands)) | dict(zip(real, values, strict=True))
            return [y for y in apply_equation(plain, [merged[k] for k in range(len(avals))]) if _is_real(y)]

        values = [operands[k] for k in real]
        if equation.primitive.name == "custom_jvp_call":
            return jax.jvp(apply, [values], [values])
        results, pull_back = jax.vjp(apply, values)
        return results, pull_back(results)

    try:
        return jax.make_jaxpr(differentiate)([jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in avals])
    except Exception:  # a rule that cannot be applied by itself
        return object()


def _is_real(aval: Any) -> bool:
    return jnp.issubdtype(aval.dtype, jnp.inexact)


def _sign(value: Any, rules: dict | None) -> Hashable:
    """A hashable stand-in of an equation's parameter."""
    if isinstance(value, ClosedJaxpr):
        return _sign_jaxpr(value.jaxpr, value.consts, rules)
    if isinstance(value, Jaxpr):
        return _sign_jaxpr(value, (), rules)
    if isinstance(value, Mapping):
        return tuple((key, _sign(value[key], rules)) for key in sorted(value, key=str))
    if isinstance(value, list | tuple):
        return type(value).__name__, tuple(_sign(item, rules) for item in value)
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return object() if isinstance(value, jax.core.Tracer) else _sign_array(value)
    try:
        hash(value)
    except TypeError:
        return object()
    return type(value), value  # True, 1 and 1.0 are equal


def _sign_jaxpr(jaxpr: Jaxpr, consts: Iterable[Any], rules: dict | None) -> Hashable:
    numbers: dict[Any, int] = {}

    def sign_atom(atom: Any) -> Hashable:
        return _sign_array(atom.val) if isinstance(atom, Literal) else numbers.setdefault(atom, len(numbers))

    return (
        tuple((sign_atom(var), _sign_aval(var.aval)) for var in (*jaxpr.constvars, *jaxpr.invars)),
        tuple(_sign(value, rules) for value in consts),
        tuple(
            (
                tuple(map(sign_atom, eqn.invars)),
                tuple((sign_atom(var), _sign_aval(var.aval)) for var in eqn.outvars),
                _sign_action(eqn, [atom.aval for atom in eqn.invars], rules),
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
