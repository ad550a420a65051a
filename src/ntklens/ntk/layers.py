"""Which functions are differentiated, and how their parameters group into layers."""

import re
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Function = Callable[[Any, Any], jax.Array]


def as_function(f: Any) -> Function:
    """The function itself, or for a `flax.linen.Module` its `apply`."""
    return f.apply if _is_flax_module(f) else f


def name_layers(f: Any, params: Any) -> dict[str, list[int]]:
    """The layers of a function's parameters and the leaves that make them up.

    A layer is the path of a leaf without its last component, joined by "/" and without flax's leading "params"; a path
    of one component names itself, a tree that is one bare array is "params". Leaves that are not floating point are no
    parameters; for a `flax.linen.Module` only the collection "params" is.

    Args:
        f: function f(params, x), or a `flax.linen.Module`.
        params: pytree of arrays.

    Returns:
        {layer: numbers of its leaves in `jax.tree.leaves(params)`}, in natural order (Dense_2 before Dense_10).
    """
    layers: dict[str, list[int]] = {}
    for number, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(params)):
        keys = [jax.tree_util.keystr((key,), simple=True) for key in path]
        if not jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.floating) or (_is_flax_module(f) and keys[0] != "params"):
            continue
        if len(keys) > 1 and keys[0] == "params":
            keys = keys[1:]
        layers.setdefault("/".join(keys[:-1] or keys) or "params", []).append(number)
    return dict(sorted(layers.items(), key=lambda item: _natural_key(item[0])))


def _natural_key(name: str) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def _is_flax_module(f: Any) -> bool:
    linen = sys.modules.get("flax.linen")  # whoever holds a module has imported it
    return linen is not None and isinstance(f, linen.Module)
