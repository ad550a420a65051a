"""How much faster does a convolutional network train on a CPU whose gradients are products, and in how much memory?

Updates in one compiled loop, as runs do them: with gradients by products (`training.products`), and with those that
XLA has for convolutions. Both take turns, so that the ratio holds beside other load. One update of the reference takes
up to ten seconds. About three minutes.

    python benchmarks/updates.py
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from rich.console import Console
from rich.table import Table
from timing import time_in_turns, write_results

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from architectures import NETWORKS
from ntklens.data import Split
from ntklens.training import ensemble
from ntklens.training.ensemble import Trainer, advance, initialise
from ntklens.training.losses import LOSSES

# Network, width, shape of an image, samples of an update.
CASES = [
    ("cnn", 32, (8, 8, 1), 200),
    ("cnn", 64, (8, 8, 1), 50),
    ("cnn", 32, (28, 28, 1), 100),
    ("cnn", 16, (32, 32, 3), 100),
    ("resnet", 16, (8, 8, 1), 200),
    ("resnet", 16, (32, 32, 3), 50),
]
TURNS = 3


def main() -> None:
    rows = [measure(*case) for case in CASES]
    table = Table("network", "width", "image", "samples", "products", "XLA's own", "faster by", "memory", "difference")
    for row in rows:
        names = (row["network"], str(row["width"]), "×".join(map(str, row["image"])), str(row["samples"]))
        times = [f"{1e3 * row['seconds'][name]:.3g} ms" for name in ("products", "library")]
        ratios = (row["faster_by"], row["memory_ratio"], row["largest_difference"])
        table.add_row(*names, *times, *(f"{value:.3g}" for value in ratios))
    Console(width=160).print(table)
    write_results("updates", {"rows": rows})


def measure(name, width, image, samples):
    """Seconds of an update and bytes of the program with either gradient, and how far apart they end after one."""
    kinds = {"products": ensemble.differentiate_by_products, "library": lambda apply: apply}
    programs = {kind: compile_update(name, width, image, samples, rule) for kind, rule in kinds.items()}
    seconds = time_in_turns({kind: lambda call=call: call() for kind, (call, _) in programs.items()}, TURNS)
    held = {kind: memory for kind, (_, memory) in programs.items()}
    ends = [jax.tree.leaves(call()) for call, _ in programs.values()]
    return {
        "network": name,
        "width": width,
        "image": image,
        "samples": samples,
        "seconds": seconds,
        "faster_by": seconds["library"] / seconds["products"],
        "bytes": held,
        "memory_ratio": held["products"] / held["library"],
        "largest_difference": max(float(jnp.abs(one - other).max()) for one, other in zip(*ends, strict=True)),
    }


def compile_update(name, width, image, samples, rule):
    """A call of one update with SGD, and the bytes that it holds."""
    network = NETWORKS[name](width, 10)
    inputs = jax.random.normal(jax.random.key(0), (samples, *image))
    train = Split(inputs, jnp.arange(samples) % 10)
    trainer = Trainer(lambda key: network.init(key, inputs[:1]), network.apply, LOSSES["cross_entropy"], optax.sgd)
    state, number = initialise(trainer, [0], 0.1), jnp.int32(1)
    own, ensemble.differentiate_by_products = ensemble.differentiate_by_products, rule
    arguments = (state.order_key, state.learning_rate, number, number, train.inputs, train.labels)
    compiled = advance.lower(state.params, state.opt_state, *arguments, trainer=trainer).compile()
    ensemble.differentiate_by_products = own

    def call():  # the arguments are donated
        return compiled(*jax.tree.map(jnp.copy, (state.params, state.opt_state)), *arguments)[0]

    memory = compiled.memory_analysis()
    return call, memory.temp_size_in_bytes + memory.argument_size_in_bytes


if __name__ == "__main__":
    main()
