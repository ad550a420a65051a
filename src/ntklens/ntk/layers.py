"""Which leaves of a tree are parameters, how they group into layers, and how the function that takes them is called.

Parameters are the floating-point leaves, but for the state that a library keeps beside them, which is held fixed:

- flax.linen: in a tree of collections {"params": {...}, "batch_stats": {...}, ...} only "params" are;
- flax.nnx: in a tree of Variables only those of type Param are (no BatchStat, Cache, RngState);
- integers, booleans and random keys never are.

Where types are lost (a pure dictionary made of an nnx.State), every floating-point leaf counts.
"""

import functools
import inspect
import re
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

Function = Callable[[Any, Any], jax.Array]

# Collections that flax, its layers and its documentation use beside "params".
COLLECTIONS = {
    *("batch_stats", "cache", "intermediates", "losses", "metrics", "perturbations", "params_axes", "cache_axes"),
    *("constants", "state", "stats", "buffers", "counters", "spectral_stats", "rng", "rngs", "qscale", "aqt"),
    "_overwrite_with_gradient",
}


def as_function(f: Any) -> Function:
    """The function itself, or for a `flax.linen.Module` its `apply`."""
    if inspect.isclass(f):
        raise ValueError(f"f is the class {f.__name__}: pass an instance of it, {f.__name__}(...)")
    return f.apply if _is_linen_module(f) else f


def call_function(f: Any, params: Any, x: Any) -> Any:
    """Call f(params, x); what flax refuses becomes a ValueError of one line that says what to pass.

    Args:
        f: function f(params, x), or a `flax.linen.Module`.
        params: pytree of parameters.
        x: inputs [N, ...].

    Returns:
        What f returns.

    Raises:
        ValueError: if f is a class; if flax refuses the call: dropout without a key, batch normalisation in training
            mode, a collection that is missing.
    """
    function = as_function(f)
    try:
        return function(params, x)
    except Exception as error:
        reason = _explain(error)
        if reason is None:
            raise
        raise ValueError(reason) from None


def find_parameters(f: Any, params: Any) -> dict[int, str]:
    """Find the parameters in a tree; the module's text has the rule.

    Args:
        f: function f(params, x), or a `flax.linen.Module`.
        params: pytree of arrays.

    Returns:
        {number of a leaf in `jax.tree.leaves(params)`: its layer}, see `name_layers`.

    Raises:
        ValueError: if f is a class; if a parameter is complex: ∂f/∂θ would depend on how real and imaginary parts are
            taken; if f is a Module and `params` has no collection "params".
    """
    as_function(f)  # a class is refused
    fixed = _find_fixed_collections(f, params)
    found: dict[int, str] = {}
    number = 0
    for path, node in jax.tree_util.tree_leaves_with_path(params, is_leaf=_is_box):
        keys = [jax.tree_util.keystr((key,), simple=True) for key in path]
        numbers = range(number, number + len(leaves := jax.tree.leaves(node)))
        number += len(leaves)
        if (keys and keys[0] in fixed) or _is_state(node):
            continue
        if len(keys) > 1 and keys[0] == "params":
            keys = keys[1:]
        layer = "/".join(keys[:-1] or keys) or "params"
        for leaf, value in zip(numbers, leaves, strict=True):
            dtype = jnp.asarray(value).dtype
            if jnp.issubdtype(dtype, jnp.complexfloating):
                raise ValueError(
                    f"the parameter {'/'.join(keys) or 'params'} is {dtype}, for which the kernel is not defined: make "
                    "its real and imaginary part two parameters, and the complex array inside f"
                )
            if jnp.issubdtype(dtype, jnp.floating):
                found[leaf] = layer
    return found


def mark_parameters(f: Any, params: Any) -> Any:
    """Return the tree of `params` with True at the leaves that are parameters and False at the others.

    Args:
        f: function f(params, x), or a `flax.linen.Module`.
        params: pytree of arrays.

    Returns:
        Pytree of booleans.

    Raises:
        ValueError: as `find_parameters`.
    """
    found = find_parameters(f, params)
    leaves, tree = jax.tree.flatten(params)
    return jax.tree.unflatten(tree, [number in found for number in range(len(leaves))])


def name_layers(f: Any, params: Any) -> dict[str, list[int]]:
    """The layers of a function's parameters and the leaves that make them up.

    A layer is the path of a leaf without its last component, joined by "/" and without flax's leading "params"; a path
    of one component names itself, a tree that is one bare array is "params". A Variable of flax.nnx is one component.
    Leaves that are no parameters, see `find_parameters`, belong to no layer.

    Args:
        f: function f(params, x), or a `flax.linen.Module`.
        params: pytree of arrays.

    Returns:
        {layer: numbers of its leaves in `jax.tree.leaves(params)`}, in natural order (Dense_2 before Dense_10).

    Raises:
        ValueError: as `find_parameters`.
    """
    layers: dict[str, list[int]] = {}
    for number, layer in find_parameters(f, params).items():
        layers.setdefault(layer, []).append(number)
    return dict(sorted(layers.items(), key=lambda item: _natural_key(item[0])))


def _natural_key(name: str) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def _find_fixed_collections(f: Any, params: Any) -> set[str]:
    """Names of the collections beside "params" if `params` are the variables of a flax.linen module."""
    if not isinstance(params, Mapping):
        return set()
    others = {str(name) for name in params if name != "params"}
    if _applies_module(f):
        if "params" not in params:
            raise ValueError(
                "a flax.linen module takes what its init returns, {'params': ..., ...}; here is no 'params', but "
                f"{', '.join(sorted(others)) or 'nothing'}"
            )
        return others
    if "params" not in params:
        return set()
    if not all(isinstance(value, Mapping) or _is_box(value) for value in params.values()):
        return set()  # a collection is a mapping, so these are none of flax's
    if unknown := others - COLLECTIONS:
        warnings.warn(
            f"{', '.join(sorted(unknown))} beside 'params' is taken for a collection of flax and held fixed: "
            "parameters go under 'params'",
            stacklevel=2,
        )
    return others


def _applies_module(f: Any) -> bool:
    """Whether f is a flax.linen module or its `apply`, also inside partial or jit."""
    while f is not None and not _is_linen_module(f):
        if inspect.ismethod(f) and f.__name__ == "apply" and _is_linen_module(f.__self__):
            return True
        f = f.func if isinstance(f, functools.partial) else getattr(f, "__wrapped__", None)
    return f is not None


def _is_linen_module(f: Any) -> bool:
    linen = sys.modules.get("flax.linen")  # whoever holds a module has imported it
    return linen is not None and isinstance(f, linen.Module)


def _is_box(node: Any) -> bool:
    """Whether a node is an array with its description around it: an nnx.Variable, a linen Partitioned."""
    nnx, meta = sys.modules.get("flax.nnx"), sys.modules.get("flax.core.meta")
    return (nnx is not None and isinstance(node, nnx.Variable)) or (
        meta is not None and isinstance(node, meta.AxisMetadata)
    )


def _is_state(node: Any) -> bool:
    nnx = sys.modules.get("flax.nnx")
    return nnx is not None and isinstance(node, nnx.Variable) and not isinstance(node, nnx.Param)


_ADVICE = {  # what to do about an error of flax: a word of its text or its name → advice
    "InvalidRngError": "the kernel is that of a deterministic function: switch dropout off (deterministic=True)",
    "no `rngs` argument": "the kernel is that of a deterministic function: switch dropout off (model.eval())",
    'Parameter "deterministic"': "switch dropout off (deterministic=True)",
    "ModifyScopeVariableError": "use batch normalisation with running averages (use_running_average=True)",
    'Parameter "use_running_average"': "use batch normalisation with running averages (use_running_average=True)",
    "TraceContextError": "build the model inside f by nnx.merge(graph, params, state), of a model in mode eval()",
}


def _explain(error: Exception) -> str | None:
    """What to do about an error of flax, in a line; None for errors of others."""
    text = " ".join(re.sub(r"\(https?://\S+\)", "", str(error)).split()).rstrip(".")
    known = f"{type(error).__name__} {text}"
    advice = next((advice for word, advice in _ADVICE.items() if word in known), None)
    if advice is None and not type(error).__module__.startswith("flax."):
        return None
    return f"f(params, x) fails in flax ({text}){'' if advice is None else f'; {advice}'}"
