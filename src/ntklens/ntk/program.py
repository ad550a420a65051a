"""A function of parameters and one sample as a flat list of equations.

Calls that only group equations (jit, remat, closed calls) are opened, so that every use of a parameter is in sight.
Equations that carry rules of their own (custom derivatives, scan, while, cond) stay whole.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jax.extend.core import Jaxpr, Literal, Primitive, Var

from ntklens.ntk.layers import call_function

# Primitives that do nothing but call a jaxpr, and the parameter that holds it.
CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat": "jaxpr",
    "remat2": "jaxpr",
}


@dataclass(frozen=True)
class Equation:
    """outputs = primitive(inputs); inputs and outputs are slots, numbers that name values."""

    primitive: Primitive
    params: Mapping[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Program:
    """A straight-line program. Its first slots are the parameter leaves in order, `sample` the input.

    `constants` maps slots to values: numbers that stand in the program, and at the slots `captured` the arrays that the
    function closes over.
    """

    equations: tuple[Equation, ...]
    sample: int
    output: int
    constants: Mapping[int, Any]
    avals: tuple[jax.ShapeDtypeStruct, ...]  # shape and dtype of every slot
    captured: tuple[int, ...] = ()

    def size(self, slot: int) -> int:
        """Number of elements of a slot."""
        return math.prod(self.avals[slot].shape)

    def list_captured(self) -> list[Any]:
        """Values of the slots `captured`."""
        return [self.constants[slot] for slot in self.captured]

    def replace_captured(self, values: Sequence[Any] | None) -> "Program":
        """Return the program with other values at the slots `captured`; with None at them if `values` is None."""
        values = [None] * len(self.captured) if values is None else values
        return replace(self, constants={**self.constants, **dict(zip(self.captured, values, strict=True))})


class _Flattener:
    """Gives every variable of every opened call a slot of its own (a jaxpr called twice has its variables twice)."""

    def __init__(self) -> None:
        self.equations: list[Equation] = []
        self.constants: dict[int, Any] = {}
        self.avals: list[jax.ShapeDtypeStruct] = []
        self.captured: list[int] = []

    def new_slot(self, aval: Any) -> int:
        self.avals.append(jax.ShapeDtypeStruct(aval.shape, aval.dtype) if hasattr(aval, "shape") else aval)
        return len(self.avals) - 1

    def new_constant(self, value: Any, aval: Any) -> int:
        slot = self.new_slot(aval)
        self.constants[slot] = value
        return slot

    def inline(self, jaxpr: Jaxpr, consts: Iterable[Any], inputs: Iterable[int]) -> list[int]:
        """Append the equations of `jaxpr`; return the slots of its outputs."""
        slots: dict[Var, int] = dict(zip(jaxpr.invars, inputs, strict=True))
        for var, value in zip(jaxpr.constvars, consts, strict=True):
            slots[var] = self.new_constant(value, var.aval)
            self.captured.append(slots[var])
            if isinstance(value, np.ndarray):  # may be wider than what JAX takes it for
                self.constants[slots[var]] = value.astype(self.avals[slots[var]].dtype)

        def read(atom: Any) -> int:
            return self.new_constant(atom.val, atom.aval) if isinstance(atom, Literal) else slots[atom]

        for eqn in jaxpr.eqns:
            operands = tuple(read(atom) for atom in eqn.invars)
            if eqn.primitive.name in CALLS:
                called = eqn.params[CALLS[eqn.primitive.name]]
                body, body_consts = (called.jaxpr, called.consts) if hasattr(called, "consts") else (called, ())
                results = self.inline(body, body_consts, operands)
            else:
                results = [self.new_slot(var.aval) for var in eqn.outvars]
                self.equations.append(Equation(eqn.primitive, eqn.params, operands, tuple(results)))
            slots.update(zip(eqn.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]


def trace_program(f: Callable[..., Any], params: Any, x: Any) -> Program:
    """Trace f for one sample, f(params, x[:1])[0], into a flat program.

    Args:
        f: function f(params, x) → [N, C].
        params: pytree of parameters, arrays or shapes.
        x: inputs [N, ...], array or shape; only its shape and dtype are used.

    Returns:
        The program; slot k holds leaf k of `jax.tree.leaves(params)`.

    Raises:
        ValueError: if f fails, or does not return one real array [N, C].
    """
    leaves, tree = jax.tree.flatten(params)

    def apply_to_one(leaves: list[Any], sample: Any) -> Any:
        one = sample[None]
        try:
            y = call_function(f, jax.tree.unflatten(tree, leaves), one)
        except Exception as error:  # f is anyone's
            raise _explain_failure(error, one.shape, x.shape) from error
        if not isinstance(y, jax.Array | np.ndarray) or y.ndim != 2 or y.shape[0] != 1:
            got = getattr(y, "shape", type(y).__name__)
            advice = "; add [:, None] to what it returns" if got == (1,) else ""
            raise ValueError(
                f"f(params, x) must return one array [N, C]; for one sample, x of shape {one.shape}, it returned "
                f"{got}{advice}"
            )
        if not np.issubdtype(y.dtype, np.floating) and y.dtype != jax.numpy.bfloat16:
            raise ValueError(f"f(params, x) must return real floating-point outputs, not {y.dtype}")
        return y[0]

    sample = jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
    closed = jax.make_jaxpr(apply_to_one)(leaves, sample)
    flat = _Flattener()
    inputs = [flat.new_slot(var.aval) for var in closed.jaxpr.invars]
    (output,) = flat.inline(closed.jaxpr, closed.consts, inputs)
    captured = tuple(flat.captured)
    return Program(tuple(flat.equations), inputs[-1], output, flat.constants, tuple(flat.avals), captured)


def _explain_failure(error: Exception, one: tuple[int, ...], shape: tuple[int, ...]) -> ValueError:
    """Return an error that adds what f was called with: its own words speak of shapes that nobody passed."""
    text = str(error).strip()
    line = text.splitlines()[0] if text else ""
    if not (type(error) is ValueError and text.startswith("f(params, x) fails")):
        text = f"f(params, x) fails ({type(error).__name__}{': ' if line else ''}{line})"
    elif "); " in text:  # advice of its own
        return ValueError(text)
    return ValueError(
        f"{text}; f is traced for one sample, x of shape {one}: it has to take any number of them, and x, here "
        f"{shape}, has the batch axis first (one sample alone: x[None])"
    )


def apply_equation(equation: Equation, operands: Iterable[Any]) -> list[Any]:
    """Apply one equation to its operands; always returns a list of results."""
    bound = equation.primitive.get_bind_params(equation.params)
    # Equations with rules of their own hand back their functions as leading operands in some versions of JAX.
    functions, params = ((), bound) if isinstance(bound, dict) else bound
    results = equation.primitive.bind(*functions, *operands, **params)
    return list(results) if equation.primitive.multiple_results else [results]


def run_equations(
    equations: Iterable[Equation],
    values: dict[int, Any],
    offsets: Mapping[int, Any] | None = None,
    replaced: Mapping[int, Callable[..., Sequence[Any]]] | None = None,
) -> None:
    """Evaluate equations in order into `values` (slot → value), adding offsets[slot] to the slots that have one.

    The equation whose first output is a slot of `replaced` is evaluated by the function there.
    """
    offsets, replaced = offsets or {}, replaced or {}
    for equation in equations:
        operands = [values[slot] for slot in equation.inputs]
        function = replaced.get(equation.outputs[0]) if equation.outputs else None
        results = function(*operands) if function else apply_equation(equation, operands)
        for slot, result in zip(equation.outputs, results, strict=True):
            values[slot] = result + offsets[slot] if slot in offsets else result


def find_dependent(equations: Iterable[Equation], slots: Iterable[int]) -> set[int]:
    """The slots and all that the equations make from them."""
    dependent = set(slots)
    for equation in equations:
        if dependent.intersection(equation.inputs):
            dependent.update(equation.outputs)
    return dependent
