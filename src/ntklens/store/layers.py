"""The order of layers along `layer`: that in which the network computes them."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

LAYER_ORDER = "layer_order"  # of a trajectory: the names in the order of computation, JSON
# Names of the package's networks, for trajectories without that attribute.
FIRST, LAST = ("stem", "patches", "tokens", "positions"), ("norm", "readout")
BLOCK = re.compile(r"((?:stage_\d+_)?block_\d+)_(\w+)")
PARTS = ("norm_0", "query", "key", "value", "out", "shortcut", "conv_0", "norm_1", "mlp_0", "mlp_1", "conv_1")


def order_own_layers(layers: Sequence[str], attrs: Mapping[str, Any]) -> list[str]:
    """Return a trajectory's layers in the order of computation: as recorded, else as far as their names tell.

    Args:
        layers: the names along `layer`.
        attrs: the trajectory's attributes.
    """
    recorded = json.loads(attrs.get(LAYER_ORDER, "[]"))
    return recorded if sorted(recorded) == sorted(layers) else order_names(layers)


def order_names(layers: Sequence[str]) -> list[str]:
    """Return names of layers of the package's networks from the inputs to the outputs; others keep their order."""
    blocks: dict[str, int] = {}

    def place(layer: str) -> tuple[int, int, int]:
        if layer in FIRST:
            return FIRST.index(layer) - len(FIRST), 0, 0
        if layer in LAST:
            return 1 + LAST.index(layer), 0, 0
        found = BLOCK.fullmatch(layer)
        block, part = (found[1], found[2]) if found and found[2] in PARTS else (layer, "")
        return 0, blocks.setdefault(block, len(blocks)), PARTS.index(part) if part else 0

    return sorted(layers, key=place)


def merge_orders(networks: Iterable[Sequence[str]]) -> list[str]:
    """Return all layers of several networks: the deepest network's, and others' after what precedes them there."""
    merged: list[str] = []
    for layers in sorted({tuple(map(str, layers)) for layers in networks}, key=lambda layers: (-len(layers), layers)):
        place = 0
        for layer in layers:
            if layer not in merged:
                merged.insert(place, layer)
            place = merged.index(layer) + 1
    return merged
