"""How long does a whole job take, against what a careful researcher writes without ntklens?

The script by hand (`run_by_hand`) is a loop over seeds: flax and optax with a compiled step, losses and accuracies of
all splits, neural-tangents' kernel in its faster mode, compiled, `eigvalsh`, and a compiled sum of squared gradients
for traces by layer. It records what a default run records, at the same updates, and writes it: losses, traces by
layer, weight changes, logits' norm at every record; spectra on the sparser schedule; Γ by layer at the start, at the
minimum of the test loss and at the crossings of train losses. Both are processes of their own, timed from start to
exit on the same data, caches of compiled programs empty.

    python benchmarks/own_script.py                              # the default job: both whole
    NTKLENS_DATA=… python benchmarks/own_script.py --jobs mnist_first --seeds 2

With --seeds the script by hand computes so many of a job's seeds; its whole time is then that of the first, which
compiles, and as many times the median of the others as are left.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.linalg
from rich.console import Console
from rich.table import Table
from timing import write_results

from ntklens._compat import import_neural_tangents, neural_tangents_settings
from ntklens.data import digits, mnist
from ntklens.training.schedule import choose_sparse, make_geometric_steps

LEVELS = (1.0, 0.3, 0.1)  # train losses whose first crossing is a snapshot
AT_ONCE = 8  # samples whose gradients are held at once for a trace


class Job(NamedTuple):
    """A job: what to type, and the same numbers for the script by hand."""

    words: tuple[str, ...]
    load: Any
    width: int
    seeds: int
    epochs: int
    learning_rate: float
    mode: str  # of neural-tangents: the faster one at this size


JOBS = {
    "default": Job((), digits.load, 128, 5, 1000, 1e-3, "NTK_VECTOR_PRODUCTS"),
    "mnist_first": Job(("experiment=mnist_first",), partial(mnist.load, train_size=100), 512, 20, 300, 1e-4,
                       "NTK_VECTOR_PRODUCTS"),
}  # fmt: skip


class Network(nn.Module):
    """A multilayer perceptron of depth 2."""

    width: int
    classes: int

    @nn.compact
    def __call__(self, x):
        """Return the logits [N, classes]."""
        x = x.reshape(len(x), -1)
        for _ in range(2):
            x = nn.relu(nn.Dense(self.width)(x))
        return nn.Dense(self.classes)(x)


def compute_rank(theta):
    """Eigenvalues and exp of their entropy, of a kernel [N, N, C, C] as neural-tangents has it."""
    matrix = np.asarray(theta).transpose(0, 2, 1, 3).reshape(theta.shape[0] * theta.shape[2], -1)
    values = np.clip(scipy.linalg.eigvalsh(matrix), 0, None)
    shares = values[values > 0] / values.sum()
    return values, float(np.exp(-(shares * np.log(shares)).sum()))


def run_by_hand(job: Job, seeds: int, folder: Path) -> list[float]:
    """Train, measure and write `seeds` seeds one after another; return the seconds of each."""
    nt = import_neural_tangents()
    data = job.load()
    network = Network(job.width, data.classes)
    splits = {name: (jnp.asarray(getattr(data, name).inputs), jnp.asarray(getattr(data, name).labels))
              for name in ("train", "selection", "test")}  # fmt: skip
    probe = jnp.asarray(data.probe.inputs)
    optimizer = optax.adam(job.learning_rate)

    def compute_loss(params, x, y):
        logits = network.apply(params, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), (logits.argmax(-1) == y).mean()

    @jax.jit
    def step(params, state):
        gradient = jax.grad(lambda p: compute_loss(p, *splits["train"])[0])(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    @jax.jit
    def measure(params, initial):
        found = {name: compute_loss(params, *split) for name, split in splits.items()}
        changes = jax.tree.map(lambda one, other: jnp.sum((one - other) ** 2), params, initial)["params"]
        moved = {layer: jnp.sqrt(sum(jax.tree.leaves(squares))) for layer, squares in changes.items()}
        return found, moved, jnp.linalg.norm(network.apply(params, probe))

    @jax.jit
    def compute_traces(params):
        def square(x):
            rows = jax.jacrev(lambda p: network.apply(p, x[None])[0])(params)["params"]
            return {layer: sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(leaves)) for layer, leaves in rows.items()}

        return jax.tree.map(jnp.sum, jax.lax.map(square, probe, batch_size=AT_ONCE))

    options = {"trace_axes": (), "vmap_axes": 0, "implementation": nt.NtkImplementation[job.mode]}
    with neural_tangents_settings():
        kernel = jax.jit(lambda p: nt.empirical_ntk_fn(lambda q, x: network.apply(q, x), **options)(probe, None, p))
        names = [f"Dense_{number}" for number in range(3)]

        def compute_share(layer, params):
            def apply(leaves, x):
                return network.apply({"params": params["params"] | {layer: leaves}}, x)

            return nt.empirical_ntk_fn(apply, **options)(probe, None, params["params"][layer])

        shares = {layer: jax.jit(partial(compute_share, layer)) for layer in names}
        steps = make_geometric_steps(job.epochs, 1.08)
        spectra = choose_sparse(steps, 3.0)
        seconds = []
        for seed in range(seeds):
            started = time.perf_counter()
            params = initial = network.init(jax.random.key(seed), probe[:1])
            state, done = optimizer.init(params), 0
            best, least, crossed = params, np.inf, set()
            rows: list[dict[str, Any]] = []

            def snapshot(params):
                values, rank = compute_rank(kernel(params))
                ranks = {layer: compute_rank(share(params))[1] for layer, share in shares.items()}
                return {"eigenvalues": values, "rank": rank, "layers": ranks}

            kept: dict[str, Any] = {"start": snapshot(params)}
            for target, with_spectrum in zip(steps, spectra, strict=True):
                for _ in range(done, int(target)):
                    params, state = step(params, state)
                done = int(target)
                found, moved, norm = jax.device_get(measure(params, initial))
                row = {"step": done, "splits": found, "moved": moved, "norm": norm,
                       "traces": jax.device_get(compute_traces(params))}  # fmt: skip
                if found["selection"][0] < least:
                    best, least = params, found["selection"][0]
                for level in LEVELS:
                    if level not in crossed and found["train"][0] <= level:
                        crossed.add(level)
                        kept[f"crossing {level}"] = snapshot(params)
                if with_spectrum and done:
                    row["eigenvalues"], row["rank"] = compute_rank(kernel(params))
                rows.append(row)
            kept["minimum"] = snapshot(best)
            np.savez_compressed(folder / f"seed={seed}.npz", rows=np.array(rows, object), kept=np.array([kept], object))
            seconds.append(time.perf_counter() - started)
    return seconds


def time_process(command: list[str], environment: dict[str, str]) -> dict[str, float]:
    """Return wall and processor seconds of a process and its children."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_seconds": time.perf_counter() - started, "processor_seconds": processor}


def measure_job(name: str, seeds: int | None) -> dict[str, Any]:
    job = JOBS[name]
    count = min(seeds or job.seeds, job.seeds)
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": f"{folder}/cache"}
        ours = [sys.executable, "-m", "ntklens.run", *job.words, "tracking=none", f"paths.results={folder}/ours"]
        taken = {"ntklens": time_process(ours, environment)}
        environment["JAX_ENABLE_COMPILATION_CACHE"] = "0"
        hand = [sys.executable, __file__, "--by-hand", name, "--folder", folder, "--seeds", str(count)]
        taken["by hand"] = time_process(hand, environment)
        parts = json.loads((Path(folder) / "seconds.json").read_text())
    whole = taken["by hand"]["wall_seconds"]
    if count < job.seeds:
        whole += (job.seeds - count) * float(np.median(parts[1:]))
    return {
        "job": name, "seeds": job.seeds, "seeds_by_hand": count, **taken, "seconds_of_each_seed_by_hand": parts,
        "whole_seconds_by_hand": whole, "ratio": whole / taken["ntklens"]["wall_seconds"],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", nargs="+", choices=list(JOBS), default=["default"])
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--by-hand", choices=list(JOBS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.by_hand:
        seconds = run_by_hand(JOBS[arguments.by_hand], arguments.seeds, arguments.folder)
        (arguments.folder / "seconds.json").write_text(json.dumps(seconds))
        return
    rows = [measure_job(name, arguments.seeds) for name in arguments.jobs]
    table = Table("job", "seeds", "ntklens", "by hand", "ratio", title="whole jobs, wall seconds")
    for row in rows:
        ours, hand = row["ntklens"]["wall_seconds"], row["whole_seconds_by_hand"]
        table.add_row(row["job"], str(row["seeds"]), f"{ours:.1f}", f"{hand:.1f}", f"{row['ratio']:.3g}")
    Console().print(table)
    write_results("own_script" if arguments.jobs == ["default"] else "own_script_" + "_".join(arguments.jobs),
                  {"rows": rows})  # fmt: skip


if __name__ == "__main__":
    main()
