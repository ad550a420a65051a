"""Are the plan's estimates of memory and time worth their line?

Four kinds of networks on images of 8 × 8 and 32 × 32 pixels: what is counted of an update, a record and a kernel beside
XLA's own analysis of the compiled program, and the seconds that follow beside those that a call takes. Then a sweep
over widths, training sizes and epochs: what each configuration took beside what was estimated before anything had been
measured, and what a network's first configuration takes more than its next, for compiling. About ten minutes.

    python benchmarks/estimates.py            # or one of the two: programs, sweep
"""

import functools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console
from rich.table import Table
from timing import time_once, write_results

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from architectures import NETWORKS
from ntklens.jobs.needs import Sizes, list_programs
from ntklens.machine import count_cores
from ntklens.recording.measure import Measurer
from ntklens.sweep.cost import KERNEL_RATE, TRAINING_RATE
from ntklens.training.ensemble import Trainer
from ntklens.training.losses import LOSSES

# Network, width, shape of an image, samples to train on, a batch's (None: all), held out twice, of the probe.
CASES = [
    ("mlp", 64, (8, 8, 1), 200, None, 100, 64),
    ("mlp", 512, (8, 8, 1), 500, None, 250, 128),
    ("mlp", 128, (32, 32, 3), 1000, None, 500, 64),
    ("cnn", 32, (8, 8, 1), 200, None, 100, 64),
    ("cnn", 64, (8, 8, 1), 500, 50, 250, 128),
    ("cnn", 32, (32, 32, 3), 200, None, 100, 32),
    ("resnet", 16, (8, 8, 1), 200, None, 100, 64),
    ("resnet", 32, (8, 8, 1), 500, 50, 250, 128),
    ("resnet", 16, (32, 32, 3), 200, None, 100, 32),
    ("transformer", 16, (8, 8, 1), 200, None, 100, 64),
    ("transformer", 32, (8, 8, 1), 500, 50, 250, 128),
]
# XLA leaves out of its analysis what products and convolutions hold that it leaves to a library of a CPU.
WHOLE = {"xla_cpu_experimental_ynn_fusion_type": ""}
WORDS = ("-m", "model.width=16,64,256", "dataset.train_size=100,800", "training.epochs=500,2000", "ensemble=4")


def main() -> None:
    if "sweep" not in sys.argv[1:]:
        programs = [row for case in CASES for row in compare_programs(*case)]
        show_programs(programs)
        write_results("estimates_programs", {"programs": programs})
    if "programs" not in sys.argv[1:]:
        rows = compare_sweep()
        logs = np.log([row["ratio"] for row in rows])
        result = {
            "rows": rows,
            "median_ratio": float(np.exp(np.median(logs))),
            "largest": float(np.exp(np.abs(logs).max())),
            "compile_seconds": measure_compiling(rows),
            "process_seconds": measure_process(),
        }
        show_sweep(result)
        write_results("estimates", result)


def show_programs(programs):
    console = Console(width=160)
    table = Table(
        *("network", "width", "image", "program", "MiB by XLA", "counted", "operations", "seconds", "of them")
    )
    for row in programs:
        names = (row["network"], str(row["width"]), "×".join(map(str, row["image"])), row["program"])
        ratios = (row["bytes"] / row["xla_bytes"], row["operations"] / row["xla_operations"])
        numbers = (row["xla_bytes"] / 2**20, *ratios, row["seconds"], row["estimated"] / row["seconds"])
        table.add_row(*names, *(f"{value:.3g}" for value in numbers))
    console.print(table)


def show_sweep(result):
    table = Table(*result["rows"][0])
    for row in result["rows"]:
        table.add_row(*(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()))
    text = f"median ratio {result['median_ratio']:.2f}, within a factor {result['largest']:.2f}"
    Console(width=160).print(table, text)


def compare_programs(name, width, image, train, batch, held_out, probe):
    """Rows of what is counted of each program, of XLA's analysis, and of the seconds of a call."""
    network, inputs = NETWORKS[name](width, 10), jnp.zeros((1, *image))
    loss = LOSSES["cross_entropy"]
    trainer = Trainer(lambda key: network.init(key, inputs), network.apply, loss, optax.adam, batch)
    sample, sizes = jax.ShapeDtypeStruct(image, jnp.float32), Sizes(train, held_out, held_out, probe)
    start = time.process_time()
    programs = list_programs(trainer, Measurer(trainer.apply, trainer.loss), sample, sizes)
    counts = {key: (one.count_call(), one.count_call(repeat=False)) for key, one in programs.items()}
    counting = time.process_time() - start
    for key, (function, arguments, _) in programs.items():
        lowered = function.func.lower(*arguments, **function.keywords)
        compiled = lowered.compile()
        memory = compiled.memory_analysis()
        apart = key == "record" and jax.default_backend() == "cpu"
        whole = lowered.compile(compiler_options=WHOLE).memory_analysis() if apart else memory
        count, once = counts[key]  # XLA counts what a loop does once
        rate = TRAINING_RATE if key == "update" else KERNEL_RATE
        yield {
            "network": name,
            "width": width,
            "image": image,
            "train": train,
            "batch": batch,
            "probe": probe,
            "program": key,
            "bytes": count.peak,
            "xla_bytes": sum_bytes(memory),
            "xla_whole_bytes": sum_bytes(whole),
            "operations": once.operations,
            "xla_operations": compiled.cost_analysis()["flops"],
            "estimated": count.effort / rate / count_cores(),
            "seconds": measure_seconds(compiled, arguments),
            "counting_seconds": counting,
        }


def sum_bytes(memory):
    """Bytes at the peak of XLA's analysis."""
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return held - memory.alias_size_in_bytes


def measure_seconds(compiled, shapes):
    """Median seconds of a call."""

    def fill(leaf):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.split(jax.random.key(0), leaf.shape)
        is_number = jnp.issubdtype(leaf.dtype, jnp.integer) and not leaf.shape  # updates to do
        return jnp.full(leaf.shape, 1 if is_number else 0.1, leaf.dtype)

    seconds = []
    for _ in range(4):
        arguments = jax.block_until_ready(jax.tree.map(fill, shapes))
        seconds.append(time_once(functools.partial(compiled, *arguments)))
    return float(np.median(seconds[1:]))


def compare_sweep():
    """Rows of the seconds that configurations took and those that the plan estimated."""
    with tempfile.TemporaryDirectory() as folder:
        words = (*WORDS, f"paths.results={folder}", "launch.workers=1")
        command = [sys.executable, "-m", "ntklens.run", *words]
        planned = json.loads(
            subprocess.run(
                [*command, "task=plan", "task.format=json"], check=True, capture_output=True, text=True
            ).stdout
        )
        subprocess.run(command, check=True, capture_output=True)
        rows = []
        estimates = dict.fromkeys(range(len(planned["configurations"])), 0.0)
        for task in planned["tasks"]:
            for number, _, seconds in task["slices"]:
                estimates[number] += seconds
        for number, configuration in enumerate(planned["configurations"]):
            run = Path(folder) / planned["name"] / configuration["run"]
            # Seeds of one pack have its seconds in common.
            packs = {json.loads(path.read_text())["seconds"] for path in run.glob("seed=*/status.json")}
            seconds = sum(packs)
            ratio = seconds / estimates[number]
            rows.append({**configuration["axes"], "estimated": estimates[number], "seconds": seconds, "ratio": ratio})
    return rows


def measure_compiling(rows):
    """Median seconds that the first configuration of a network took beyond the next, their estimates taken off."""
    extra = [
        first["seconds"] - first["estimated"] * after["ratio"]
        for first, after in zip(rows[::2], rows[1::2], strict=True)
    ]
    return float(np.median(extra))


def measure_process():
    """Median seconds of a process that imports what a worker does."""
    command = [sys.executable, "-c", "import ntklens.jobs.compute"]
    seconds = [time_once(lambda: subprocess.run(command, check=True).returncode) for _ in range(3)]
    return float(np.median(seconds))


if __name__ == "__main__":
    main()
