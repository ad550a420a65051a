"""What does the main job cost beyond its bare parts?

The job: MNIST (or, without NTKLENS_DATA, synthetic data of its shape), 100 training samples, depth 2, Adam, full batch,
20 seeds. Four questions:

1. Training: updates per second of `run_states` over those of a compiled loop of the same step by hand (the better of
   batching the members and mapping over them), at widths 64 and 512.
2. Measuring: a record with a spectrum, of several in a row, over one bare kernel + one bare eigvalsh + one bare test
   forward, at width 512.
3. Packing: 20 processes of one seed, two at a time, over one process of 20 seeds, at width 64, from start to exit.
4. Peak memory of the whole job at width 512.

Contestants take turns; times are medians, so that other load on the machine meets them alike.

    NTKLENS_DATA=… python benchmarks/main_job.py            # about ten minutes on two cores
    python benchmarks/main_job.py --questions training measuring
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.linalg
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits
from timing import time_in_turns, write_results

from ntklens.data import Dataset, mnist, synthetic
from ntklens.models.mlp import MLP
from ntklens.ntk import structured
from ntklens.recording.measure import Measurer, put_on_device
from ntklens.recording.recorder import Recorder
from ntklens.recording.spectra import SpectrumWorkers
from ntklens.training.ensemble import Trainer, initialise, run_states, trains_faster_alone
from ntklens.training.losses import cross_entropy

SEEDS, EPOCHS, LEARNING_RATE = 20, 300, 1e-4
IN_A_ROW = 8  # records with a spectrum that follow one another
DATA = "mnist" if "NTKLENS_DATA" in os.environ else "synthetic"
WORDS = {
    "mnist": ("dataset=mnist", "dataset.train_size=100"),
    "synthetic": ("dataset=synthetic", "dataset.input_dim=784", "dataset.train_size=100"),
}[DATA]


def load_data() -> Dataset:
    return mnist.load(train_size=100) if DATA == "mnist" else synthetic.load(input_dim=784, train_size=100)


def build_trainer(width: int, data: Dataset) -> Trainer:
    model, sample = MLP(width, 2, data.classes), jnp.asarray(data.probe.inputs[:1])
    return Trainer(lambda key: model.init(key, sample), model.apply, cross_entropy, optax.adam)


def write_loop_by_hand(trainer: Trainer, data: Dataset, steps: int, lift: Callable) -> Callable:
    """The plainest compiled loop of the same step."""
    x, y = jnp.asarray(data.train.inputs), jnp.asarray(data.train.labels)

    optimizer = trainer.optimizer(LEARNING_RATE)

    def compute_loss(params):
        return optax.softmax_cross_entropy_with_integer_labels(trainer.apply(params, x), y).mean()

    def step(_, carry):
        params, opt_state = carry
        updates, opt_state = optimizer.update(jax.grad(compute_loss)(params), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    return jax.jit(lift(lambda params, opt_state: jax.lax.fori_loop(0, steps, step, (params, opt_state))))


def measure_training(width: int, data: Dataset, repeats: int) -> dict:
    trainer, steps = build_trainer(width, data), 100
    state = initialise(trainer, range(SEEDS), LEARNING_RATE)
    alone = trains_faster_alone(jax.tree.map(lambda leaf: leaf[0], state.params))
    packs = [[seed] for seed in range(SEEDS)] if alone else [range(SEEDS)]
    starts = [initialise(trainer, pack, LEARNING_RATE) for pack in packs]

    def run_ours():
        for start in starts:
            fresh = jax.tree.map(jnp.copy, start)  # what training overwrites
            for reached in run_states(trainer, fresh, data.train, np.array([steps])):
                jax.block_until_ready(reached.params)

    batched = write_loop_by_hand(trainer, data, steps, jax.vmap)
    mapped = write_loop_by_hand(trainer, data, steps, lambda f: lambda *m: jax.lax.map(lambda member: f(*member), m))
    contestants = {
        "ours": run_ours,
        "by hand, batched": lambda: batched(state.params, state.opt_state),
        "by hand, mapped": lambda: mapped(state.params, state.opt_state),
    }
    seconds = time_in_turns(contestants, repeats)
    best = min(seconds["by hand, batched"], seconds["by hand, mapped"])
    return {"width": width, "seconds": seconds, "throughput_over_best_loop": best / seconds["ours"]}


def measure_measuring(width: int, data: Dataset, repeats: int) -> dict:
    trainer, workers = build_trainer(width, data), SpectrumWorkers()
    state = initialise(trainer, [0], LEARNING_RATE)
    steps = np.arange(10_000)
    recorder = Recorder(
        Measurer(trainer.apply, trainer.loss), put_on_device(data), state.params, steps, steps >= 0, 1, None, workers
    )
    index = iter(range(1, len(steps)))  # record 0 is a snapshot
    recorder.record(0, state.params)

    def record_in_a_row():
        """As in the job: the next record does not wait for the spectrum of the last."""
        for _ in range(IN_A_ROW):
            recorder.record(next(index), state.params)
        for row in recorder.records[0][1:]:
            row["pending"].result()
        del recorder.records[0][1:]

    params = jax.tree.map(lambda leaf: leaf[0], state.params)
    test = jnp.concatenate([jnp.asarray(data.selection.inputs), jnp.asarray(data.test.inputs)])
    probe = jnp.asarray(data.probe.inputs)
    matrix = np.asarray(structured.kernel(trainer.apply, params, probe)).reshape(1280, 1280)
    forward = jax.jit(trainer.apply)

    def find_eigenvalues(threads: int):
        with threadpool_limits(threads, user_api="blas"):
            return scipy.linalg.eigh(matrix, eigvals_only=True, driver="evd", check_finite=False)

    contestants = {
        f"{IN_A_ROW} records": record_in_a_row,
        "kernel": lambda: structured.kernel(trainer.apply, params, probe),
        "eigvalsh (scipy evd, one thread)": lambda: find_eigenvalues(1),
        "eigvalsh (scipy evd, all threads)": lambda: find_eigenvalues(os.cpu_count()),
        "eigvalsh (jax)": lambda: jnp.linalg.eigvalsh(jnp.asarray(matrix)),
        "test forward": lambda: forward(params, test),
    }
    seconds = time_in_turns(contestants, repeats)
    workers.close()
    eigvalsh = min(value for name, value in seconds.items() if name.startswith("eigvalsh"))
    bare = seconds["kernel"] + eigvalsh + seconds["test forward"]
    return {"width": width, "seconds": seconds, "record_over_bare": seconds[f"{IN_A_ROW} records"] / IN_A_ROW / bare}


def run_job(folder: Path, *words: str) -> None:
    command = [sys.executable, "-m", "ntklens.run", *WORDS, f"training.epochs={EPOCHS}", *words]
    command += [f"optimizer.learning_rate={LEARNING_RATE}", f"paths.results={folder}"]
    subprocess.run(command, check=True, capture_output=True)


def measure_packing(width: int) -> dict:
    def time_it(run: Callable[[Path], None]) -> float:
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            run(Path(folder))
            return time.perf_counter() - start

    def run_apart(folder: Path) -> None:
        with ThreadPoolExecutor(2) as pool:
            list(
                pool.map(
                    lambda seed: run_job(folder, f"model.width={width}", f"seed={seed}", "ensemble=1"), range(SEEDS)
                )
            )

    together = [time_it(lambda folder: run_job(folder, f"model.width={width}", f"ensemble={SEEDS}")) for _ in range(2)]
    apart = time_it(run_apart)
    together.append(time_it(lambda folder: run_job(folder, f"model.width={width}", f"ensemble={SEEDS}")))
    seconds = {"one process of 20 seeds": float(np.median(together)), "20 processes, two at a time": apart}
    return {"width": width, "seconds": seconds, "apart_over_together": apart / float(np.median(together))}


def measure_memory(width: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        run_job(Path(folder), f"model.width={width}", f"ensemble={SEEDS}")
        seconds = time.perf_counter() - start
    return {
        "width": width,
        "seconds": {"the whole job": seconds},
        "peak_MiB": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    questions = ["training", "measuring", "packing", "memory"]
    parser.add_argument("--questions", nargs="+", choices=questions, default=questions)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    data = load_data()
    ask = {
        "training": [partial(measure_training, width, data, arguments.repeats) for width in (64, 512)],
        "measuring": [partial(measure_measuring, 512, data, arguments.repeats)],
        "packing": [partial(measure_packing, 64)],
        "memory": [partial(measure_memory, 512)],
    }
    answers = {question: [measure() for measure in ask[question]] for question in arguments.questions}
    table = Table("question", "width", "seconds", "answer", title=f"main job on {DATA}, {SEEDS} seeds")
    for question, rows in answers.items():
        for row in rows:
            *_, (name, value) = row.items()
            times = "\n".join(f"{label}: {seconds:.4g}" for label, seconds in row["seconds"].items())
            table.add_row(question, str(row["width"]), times, f"{name} = {value:.3g}")
    Console().print(table)
    for question, rows in answers.items():
        write_results(f"main_job_{question}", {"data": DATA, "seeds": SEEDS, "rows": rows})


if __name__ == "__main__":
    main()
