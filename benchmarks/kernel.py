"""How fast is the structured kernel, against neural-tangents on the same JAX and against the machine itself?

A multilayer perceptron of depth 2 (784 inputs, ReLU, biases) over a range of widths, with N = 128 samples and C = 10
outputs in float32: the time of Θ by the structured engine, by neural-tangents' NTK_VECTOR_PRODUCTS and by its
JACOBIAN_CONTRACTION (a mode that needs more memory than is free is left out, with a line); the counted operations of
the structured kernel per second over the rate of a plain `jnp.dot` of like shapes at the same precision; peak memory;
and how time grows with width, N and C. Repeats of all contestants take turns, so that other load on the machine meets
them alike; times are medians.

    python benchmarks/kernel.py                        # all widths, some minutes
    python benchmarks/kernel.py --widths 32 128        # a smaller run
    python benchmarks/kernel.py --networks             # instead: CNNs, a ResNet, vision transformers; two minutes

The networks are those of networks.py, N = 32 images of 28 × 28, C = 10, against JACOBIAN_CONTRACTION, the faster mode
for them. All contestants take turns in one run, each at its best of several rounds; beside them the rate of a product
of 2048 × 2048 matrices, the operations that the plan counts, and the time XLA takes to compile.
"""

import argparse
import itertools
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from networks import NETWORKS, make_network
from rich.console import Console
from rich.table import Table
from timing import time_in_turns, time_once, write_results

from ntklens._compat import import_neural_tangents, neural_tangents_settings
from ntklens.ntk import structured

SAMPLES, OUTPUTS, INPUTS, DEPTH = 128, 10, 784, 2
WIDTHS = (32, 64, 128, 256, 512, 1024, 2048)
SQUARE = 2048
MODES = ("NTK_VECTOR_PRODUCTS", "JACOBIAN_CONTRACTION")


def apply_mlp(params, x):
    """Logits [N, C] of a multilayer perceptron, params = [(W, b), ...]."""
    for weight, bias in params[:-1]:
        x = jax.nn.relu(x @ weight + bias[None])
    weight, bias = params[-1]
    return x @ weight + bias[None]


def make_problem(width, samples=SAMPLES, outputs=OUTPUTS):
    rng = np.random.default_rng(0)
    sizes = [INPUTS, *[width] * DEPTH, outputs]
    params = [
        (jnp.asarray(rng.normal(size=(a, b)) / a**0.5, jnp.float32), jnp.zeros(b, jnp.float32))
        for a, b in itertools.pairwise(sizes)
    ]
    return params, jnp.asarray(rng.random((samples, INPUTS)), jnp.float32)


def count_operations(width, samples=SAMPLES, outputs=OUTPUTS):
    """Floating-point operations of the matrix products of the structured kernel: forward, backward and Grams."""
    sizes = [INPUTS, *[width] * DEPTH, outputs]
    rows = samples * outputs
    forward = sum(2 * samples * a * b for a, b in itertools.pairwise(sizes))
    # The first step back starts from unit vectors, alike for all samples, and costs next to nothing.
    backward = sum(2 * rows * a * b for a, b in itertools.pairwise(sizes[1:-1]))
    grams = sum(2 * samples**2 * size for size in sizes[:-1]) + sum(2 * rows**2 * size for size in sizes[1:])
    return forward + backward + grams


def compile_neural_tangents(mode, params, x):
    """The mode's kernel, compiled, or the memory it would take (bytes) if that is more than is free."""
    nt = import_neural_tangents()
    with neural_tangents_settings():
        ntk = nt.empirical_ntk_fn(
            apply_mlp, trace_axes=(), vmap_axes=0, implementation=getattr(nt.NtkImplementation, mode)
        )
        compiled = jax.jit(lambda params: ntk(x, None, params)).lower(params).compile()
    memory = compiled.memory_analysis()
    needed = memory.temp_size_in_bytes + memory.output_size_in_bytes
    return partial(compiled, params) if needed < 0.9 * psutil.virtual_memory().available else needed


def measure_width(width, repeats):
    params, x = make_problem(width)
    rows = SAMPLES * OUTPUTS
    dot = jax.jit(partial(jnp.dot, precision="highest"))
    tall, wide = jnp.ones((rows, width), jnp.float32), jnp.ones((width, rows), jnp.float32)
    square = jnp.ones((width, width), jnp.float32)
    contestants = {
        "structured": lambda: structured.kernel(apply_mlp, params, x),
        "traces": lambda: structured.layer_traces(apply_mlp, params, x),
        "dot_gram": lambda: dot(tall, wide),
        "dot_backward": lambda: dot(tall, square),
    }
    fast = time_in_turns(contestants, repeats)
    modes, skipped = {}, {}
    for mode in MODES:
        outcome = compile_neural_tangents(mode, params, x)
        (skipped if isinstance(outcome, int) else modes)[mode] = outcome
    if modes:
        # The structured kernel runs beside the rivals too, so that their ratio is of one and the same moment.
        beside = time_in_turns({"structured": contestants["structured"], **modes}, max(2, repeats // 3))
        check_agreement(contestants["structured"](), next(iter(modes.values()))())
    operations = count_operations(width)
    rates = {"gram": 2 * rows**2 * width / fast["dot_gram"], "backward": 2 * rows * width**2 / fast["dot_backward"]}
    rivals = {mode: beside[mode] for mode in modes}
    return {
        "width": width,
        "structured_seconds": fast["structured"],
        "traces_seconds": fast["traces"],
        "neural_tangents_seconds": rivals,
        "skipped_bytes_needed": skipped,
        "speedup": min(rivals.values()) / beside["structured"] if rivals else None,
        "operations": operations,
        "operations_per_second": operations / fast["structured"],
        "machine_operations_per_second": max(rates.values()),
        "share_of_machine": operations / fast["structured"] / max(rates.values()),
        "peak_bytes": measure_memory(width),
    }


def check_agreement(theta, reference):
    reference = jnp.transpose(reference, (0, 2, 1, 3))
    difference = float(jnp.abs(theta - reference).max() / jnp.abs(reference).max())
    if difference > 1e-5:
        raise SystemExit(f"the contestants disagree: relative difference {difference:.1e}")


def measure_memory(width):
    """Peak resident bytes of a fresh process that computes one kernel, less those resident before."""
    command = [sys.executable, __file__, "--memory-of-width", str(width)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def print_memory(width):
    params, x = jax.block_until_ready(make_problem(width))
    jax.block_until_ready(jnp.dot(x, x.T))
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from what is resident now
    before = read_peak_memory()
    jax.block_until_ready(structured.kernel(apply_mlp, params, x))
    print(read_peak_memory() - before)


def read_peak_memory():
    """Bytes; from /proc, because getrusage's peak is inherited from the parent process."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def measure_growth(name, values, repeats):
    """Seconds of the structured kernel at width 512 over N or C, and the slope in log-log."""
    contestants = {}
    for value in values:
        params, x = make_problem(512, **{name: value})
        contestants[value] = partial(structured.kernel, apply_mlp, params, x)
    seconds = time_in_turns(contestants, repeats)
    return {"values": list(values), "seconds": list(seconds.values()), "slope": fit_slope(values, seconds.values())}


def measure_network(name, samples, rounds):
    """One row of the networks' table: the least seconds of each contestant over interleaved rounds."""
    apply, params, x = make_network(name, samples)
    nt = import_neural_tangents()
    with neural_tangents_settings():
        contraction = nt.empirical_ntk_fn(
            apply, trace_axes=(), vmap_axes=0, implementation=nt.NtkImplementation.JACOBIAN_CONTRACTION
        )
        theirs, _ = compile_program(lambda params: contraction(x, None, params), params)
    with jax.default_matmul_precision("highest"):
        ours, compile_seconds = compile_program(lambda params: structured.kernel(apply, params, x), params)
        traces, _ = compile_program(lambda params: structured.layer_traces(apply, params, x), params)
        product, _ = compile_program(lambda a: a @ a, jnp.ones((SQUARE, SQUARE), jnp.float32))
    square = jnp.ones((SQUARE, SQUARE), jnp.float32)
    contestants = {
        "structured": partial(ours, params),
        "traces": partial(traces, params),
        "JACOBIAN_CONTRACTION": partial(theirs, params),
        "product": partial(product, square),
    }
    check_agreement(contestants["structured"](), contestants["JACOBIAN_CONTRACTION"]())
    turns = [
        # The first call of a turn pays for what the contestant before it left in the caches.
        {key: min(time_once(contestant) for _ in range(3)) for key, contestant in contestants.items()}
        for _ in range(rounds)
    ]
    seconds = {key: min(turn[key] for turn in turns) for key in contestants}
    operations = structured.plan_ntk(apply, params, x).operations
    return {
        "network": name,
        "samples": samples,
        "seconds": seconds,
        "speedup": seconds["JACOBIAN_CONTRACTION"] / seconds["structured"],
        "traces_against_kernel": seconds["structured"] / seconds["traces"],
        "traces_against_neural_tangents": seconds["JACOBIAN_CONTRACTION"] / seconds["traces"],
        "operations": operations,
        "product_operations_per_second": 2 * SQUARE**3 / seconds["product"],
        "share_of_product_rate": operations / seconds["structured"] * seconds["product"] / (2 * SQUARE**3),
        "compile_seconds": compile_seconds,
        "temporary_bytes": ours.memory_analysis().temp_size_in_bytes,
        "neural_tangents_temporary_bytes": theirs.memory_analysis().temp_size_in_bytes,
    }


def compile_program(function, *arguments):
    """The program compiled for its arguments, and the seconds that took."""
    started = time.perf_counter()
    program = jax.jit(function).lower(*arguments).compile()
    return program, time.perf_counter() - started


def print_networks(rows, console):
    table = Table(title="Θ of convolutional networks and transformers, N = 32, C = 10, float32")
    headings = ("kernel", "JACOBIAN_CONTRACTION", "times faster", "traces", "share of product", "memory", "theirs")
    for heading in ("network", *headings, "compiled in"):
        table.add_column(heading, justify="right")
    for row in rows:
        seconds = row["seconds"]
        table.add_row(
            row["network"],
            f"{1e3 * seconds['structured']:.0f} ms",
            f"{1e3 * seconds['JACOBIAN_CONTRACTION']:.0f} ms",
            f"{row['speedup']:.1f}",
            f"{1e3 * seconds['traces']:.0f} ms",
            f"{row['share_of_product_rate']:.2f}",
            f"{row['temporary_bytes'] / 2**20:.0f} MiB",
            f"{row['neural_tangents_temporary_bytes'] / 2**20:.0f} MiB",
            f"{row['compile_seconds']:.1f} s",
        )
    console.print(table)


def fit_slope(values, seconds):
    return float(np.polyfit(np.log(list(values)), np.log(list(seconds)), 1)[0])


def print_table(rows, console):
    table = Table(title=f"Θ of an MLP, depth {DEPTH}, N = {SAMPLES}, C = {OUTPUTS}, float32")
    for heading in (
        "width",
        "structured",
        *MODES,
        "times faster",
        "Gflop/s",
        "machine",
        "share",
        "traces",
        "peak memory",
    ):
        table.add_column(heading, justify="right")
    for row in rows:
        rivals = [
            f"{row['neural_tangents_seconds'][mode]:.3f} s"
            if mode in row["neural_tangents_seconds"]
            else f"skipped, needs {row['skipped_bytes_needed'][mode] / 1e9:.1f} GB"
            for mode in MODES
        ]
        table.add_row(
            str(row["width"]),
            f"{1e3 * row['structured_seconds']:.1f} ms",
            *rivals,
            "-" if row["speedup"] is None else f"{row['speedup']:.0f}",
            f"{row['operations_per_second'] / 1e9:.0f}",
            f"{row['machine_operations_per_second'] / 1e9:.0f}",
            f"{row['share_of_machine']:.2f}",
            f"{1e3 * row['traces_seconds']:.1f} ms",
            f"{row['peak_bytes'] / 2**20:.0f} MiB",
        )
    console.print(table)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--networks", nargs="*", choices=list(NETWORKS), help="all of them if none is named")
    parser.add_argument("--memory-of-width", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of_width:
        print_memory(options.memory_of_width)
        return
    console = Console(width=170)
    if options.networks is not None:
        rows = [measure_network(name, 32, 4) for name in options.networks or NETWORKS]
        print_networks(rows, console)
        write_results("kernel_networks", {"networks": rows})
        return
    rows = []
    for width in options.widths:
        rows.append(measure_width(width, options.repeats))
        console.print(f"width {width}: {1e3 * rows[-1]['structured_seconds']:.1f} ms")
    print_table(rows, console)
    growth = {
        "samples": measure_growth("samples", (32, 64, 128, 256), options.repeats),
        "outputs": measure_growth("outputs", (5, 10, 20), options.repeats),
    }
    if len(rows) > 1:
        seconds = [row["structured_seconds"] for row in rows]
        growth["width"] = {"values": options.widths, "seconds": seconds, "slope": fit_slope(options.widths, seconds)}
    for name, fit in growth.items():
        console.print(f"time grows as {name}^{fit['slope']:.2f} over {min(fit['values'])} … {max(fit['values'])}")
    write_results("kernel", {"widths": rows, "growth": growth})


if __name__ == "__main__":
    main()
