"""In which order a network computes its layers."""

from typing import Any

from ntklens.ntk.layers import Function, as_function, name_layers
from ntklens.ntk.program import trace_program


def order_layers(f: Function, params: Any, x: Any) -> list[str]:
    """Return the names of the layers in the order in which f first reads a parameter of theirs.

    Args:
        f: function f(params, x) → [N, C], or a `flax.linen.Module`.
        params: pytree of parameters.
        x: inputs [N, ...], array or shape.

    Returns:
        The names of `name_layers`; those read by one equation (a scan) keep their order there, as do those that f does
        not read, which come last.

    Raises:
        ValueError: if f fails, or does not return one real array [N, C].
    """
    program = trace_program(as_function(f), params, x)
    first: dict[int, int] = {}  # slot → number of the first equation that reads it
    for number, equation in enumerate(program.equations):
        for slot in equation.inputs:
            first.setdefault(slot, number)
    layers = name_layers(f, params)
    unread = len(program.equations)
    return sorted(layers, key=lambda layer: min(first.get(leaf, unread) for leaf in layers[layer]))
