"""With which powers of the width do activations, updates and traces scale under each parameterisation?

Networks of depth 2 on 100 MNIST samples (digits without NTKLENS_DATA), five updates of the full batch, cross-entropy.
Each number is the slope of ln(mean over seeds) against ln(width); behind it stands the exponent that theory gives.
Δf and Δh_2 of `standard` are sums of two powers and have none.

    NTKLENS_DATA=… python benchmarks/parameterization.py [largest width]
"""

import os
import sys
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table
from timing import write_results

import ntklens
from ntklens.data import Dataset, digits, mnist
from ntklens.jobs.models import Model
from ntklens.jobs.optimizers import build_optimizer
from ntklens.models.mlp import MLP
from ntklens.training.losses import cross_entropy

DEPTH, SEEDS, UPDATES = 2, 3, (1, 5)
OPTIMIZERS: dict[str, tuple[float, dict[str, Any]]] = {
    "sgd": (0.1, {"_target_": "optax.sgd"}),
    "momentum": (0.03, {"_target_": "optax.sgd", "momentum": 0.9}),
    "adam": (1.34e-4, {"_target_": "optax.adam"}),
    "adamw": (1.34e-4, {"_target_": "optax.adamw", "weight_decay": 1e-4}),
}
START = {"h_1": 0.0, "h_2": 0.0, "f_0": 0.0}
KERNELS = ("Tr hidden_0.kernel", "Tr hidden_1.kernel", "Tr readout.kernel")
BIASES = ("Tr hidden_0.bias", "Tr hidden_1.bias", "Tr readout.bias")
LAZY = {"Δf": 0.0, "Δh_1": -0.5, "Δh_2": -0.5}
FEATURES = {"Δf": 0.0, "Δh_1": 0.0, "Δh_2": 0.0}


def get_expected(parameterization: str, optimizer: str) -> dict[str, float]:
    """Return quantity → the exponent that theory gives it."""
    flat = dict.fromkeys((*KERNELS, *BIASES), 0.0)
    if parameterization == "standard":
        moving = {"Δh_1": 0.0 if optimizer.startswith("adam") else -0.5}
        start, flat = START, flat | dict.fromkeys(KERNELS[1:], 1.0)
    else:
        moving = LAZY if parameterization == "ntk" else FEATURES
        start = START | ({"f_0": -0.5} if parameterization == "mup" else {})
    return start | flat | {f"{name}, {count}": power for name, power in moving.items() for count in UPDATES}


def measure(parameterization: str, optimizer: str, width: int, data: Dataset, seeds: int = SEEDS) -> dict[str, float]:
    """Return quantity → mean over seeds: root mean squares over the probe, and each leaf's share of Tr Θ_0."""
    model = MLP(width, DEPTH, data.classes, parameterization=parameterization)
    x, y = jnp.asarray(data.train.inputs), jnp.asarray(data.train.labels)
    probe = jnp.asarray(data.probe.inputs)
    rate, options = OPTIMIZERS[optimizer]
    tree = jax.eval_shape(model.init, jax.random.key(0), probe[:1])
    factors = model.list_adam_factors(tree)
    leaves = None if factors is None else tuple(jax.tree.leaves(factors))
    network = Model(model.init, model.apply, leaves, None, False, len(jax.tree.leaves(tree)))
    transformation = build_optimizer(OmegaConf.create(options), network, OmegaConf.create({})).make(rate)

    def look(params: Any) -> dict[str, jax.Array]:
        logits, state = model.apply(params, probe, capture_intermediates=True, mutable=["intermediates"])
        layers = state["intermediates"]
        hidden = {f"h_{k + 1}": jax.nn.relu(layers[f"hidden_{k}"]["__call__"][0]) for k in range(DEPTH)}
        return {"f": logits, **hidden}

    def apply_leaves(leaves: dict[str, jax.Array], inputs: jax.Array) -> jax.Array:
        nested: dict[str, dict[str, jax.Array]] = {}
        for name, leaf in leaves.items():
            layer, _, kind = name.partition(".")
            nested.setdefault(layer, {})[kind] = leaf
        return model.apply({"params": nested}, inputs)

    def root_mean_square(array: jax.Array) -> jax.Array:
        return jnp.sqrt(jnp.mean(jnp.square(array)))

    @jax.jit
    def run(seed: jax.Array) -> dict[str, jax.Array]:
        params = model.init(jax.random.key(seed), probe[:1])
        first = look(params)
        found = {"f_0" if name == "f" else name: root_mean_square(value) for name, value in first.items()}
        flat = {f"{layer}.{kind}": leaf for layer, kinds in params["params"].items() for kind, leaf in kinds.items()}
        traces = ntklens.layer_traces(apply_leaves, flat, probe)
        found |= {f"Tr {name}": trace for name, trace in traces.items()}
        if not UPDATES:
            return found

        def update(carry: Any, _: None) -> tuple[Any, dict[str, jax.Array]]:
            params, state = carry
            gradient = jax.grad(lambda p: jnp.mean(cross_entropy(model.apply(p, x), y)))(params)
            updates, state = transformation.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
            now = look(params)
            return (params, state), {name: root_mean_square(now[name] - first[name]) for name in first}

        _, moved = jax.lax.scan(update, (params, transformation.init(params)), length=max(UPDATES))
        found |= {f"Δ{name}, {count}": values[count - 1] for name, values in moved.items() for count in UPDATES}
        return found

    with jax.default_matmul_precision("highest"):
        rows = [run(jnp.uint32(seed)) for seed in range(seeds)]
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def fit_slopes(
    parameterization: str, optimizer: str, widths: Sequence[int], data: Dataset, seeds: int = SEEDS
) -> dict[str, float]:
    """Return quantity → d ln(quantity) / d ln(width)."""
    rows = [measure(parameterization, optimizer, width, data, seeds) for width in widths]
    return {name: float(np.polyfit(np.log(widths), np.log([row[name] for row in rows]), 1)[0]) for name in rows[0]}


def main() -> None:
    largest = int(sys.argv[1]) if len(sys.argv) > 1 else 1024
    widths = [width for width in (64, 128, 256, 512, 1024, 2048, 4096) if width <= largest]
    data = mnist.load() if "NTKLENS_DATA" in os.environ else digits.load(train_size=100)
    results = []
    for parameterization in ("standard", "ntk", "mup"):
        slopes = {name: fit_slopes(parameterization, name, widths, data) for name in OPTIMIZERS}
        expected = {name: get_expected(parameterization, name) for name in OPTIMIZERS}
        table = Table("", *OPTIMIZERS, title=f"{parameterization}, {data.name}, widths {widths[0]} … {widths[-1]}")
        for quantity in next(iter(slopes.values())):
            cells = []
            for name in OPTIMIZERS:
                theory = expected[name].get(quantity)
                cells.append(f"{slopes[name][quantity]:+.2f}" + ("" if theory is None else f" ({theory:+g})"))
            table.add_row(quantity, *cells)
        Console().print(table)
        results.append({"parameterization": parameterization, "slopes": slopes, "expected": expected})
    write_results("parameterization", {"data": data.name, "seeds": SEEDS, "widths": widths, "rows": results})


if __name__ == "__main__":
    main()
