"""What is ntklens on a GPU: is it right there, how fast is it, what limits it, and how wide a network fits?

Eight parts, each a process of its own, the most valuable first; what a part has measured is written at once, so that
an error or the end of the time costs only what is missing.

1. agreement: kernel, layer kernels, trace and Γ of an MLP, a CNN and a ViT in float32 and float64, against the whole
   Jacobian in float64 on the host; beside it the error of the same in TensorFloat-32, which a kernel must not have.
2. training: one small MNIST job by the command line on the GPU, with JAX's matrix products at their default and at
   their highest precision, against the same job on the CPU: losses, Tr Θ and Γ.
3. kernels: time, memory and share of the matrix-product rate of MLPs, CNNs and ViTs.
4. jobs: the main job of 20 seeds by the command line at widths 512 and 4096: the time of training, records, kernels and
   spectra.
5. spectrum: who should find the 1280 eigenvalues of a kernel: the GPU or the threads of the host?
6. memory: what the kernel, its trace and a training step take at width 16384, and from their growth what 65536 takes.
7. peers: the kernel by neural-tangents on the same JAX (both modes), and by torch.func.
8. compiling: how long XLA takes for one kernel, and how fast the kernel is then, by XLA's choices of autotuning.

Parts 1 and 3 to 7 leave out XLA's candidates of matrix products made by Triton, as ntklens does, unless XLA_FLAGS says
otherwise: part 8 says what that costs and saves.

    NTKLENS_DATA=… python benchmarks/gpu.py                        # one GPU, about six minutes
    NTKLENS_DATA=… python benchmarks/gpu.py --parts jobs spectrum --budget-seconds 120 --output results
    python benchmarks/gpu.py --toy                                 # the same program at toy size, on any CPU
"""

import argparse
import collections
import functools
import importlib
import itertools
import json
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

INPUTS, OUTPUTS = 784, 10
# Parts of one wave run side by side: what is not timed. Seconds: the most that a part may take.
WAVES = (("training", "agreement"), ("compiling",), ("kernels",), ("jobs",), ("memory",), ("peers",), ("spectrum",))
SECONDS = {
    "agreement": 120, "training": 90, "compiling": 60, "kernels": 80, "jobs": 90, "spectrum": 40, "memory": 75,
    "peers": 120,
}  # fmt: skip
WITHOUT_TRITON = "--xla_gpu_enable_triton_gemm=false"  # as ntklens._compat sets it
QUICK = ("agreement", "kernels", "jobs", "spectrum", "memory", "peers")
WORTH_STARTING = 12.0  # seconds under which a part is not begun
BOUNDS = {"float32": 1e-5, "float64": 1e-12}  # of kernels, relative to the largest entry
TRAINING_BOUNDS = {10: 1e-5, 100: 5e-3}  # up to this epoch, relative

FULL = SimpleNamespace(
    agreement_samples=16, agreement_width=512, agreement_channels=16, agreement_vit=64,
    job_words=("dataset=mnist",), training_width=128, training_epochs=300, training_seeds=3,
    widths=(128, 512, 2048, 4096, 8192), samples=128, channels=(32, 64), vits=(64, 128), net_samples=32, square=8192,
    jobs=(512, 4096), job_epochs=300, job_seeds=20,
    spectra=64, memory_widths=(16384, 65536, 4096, 8192, 32768), memory_run=16384, memory_goal=65536,
    peer_widths=(128, 512, 2048), seconds=1.0,
)  # fmt: skip
TOY = SimpleNamespace(
    agreement_samples=3, agreement_width=16, agreement_channels=4, agreement_vit=8,
    job_words=("dataset=digits", "dataset.probe_size=8"), training_width=8, training_epochs=20, training_seeds=2,
    widths=(16, 32), samples=8, channels=(4,), vits=(8,), net_samples=2, square=256,
    jobs=(16,), job_epochs=20, job_seeds=2,
    spectra=4, memory_widths=(32, 128, 16, 64), memory_run=32, memory_goal=128,
    peer_widths=(16,), seconds=0.02,
)  # fmt: skip


class Answers:
    """The rows of one part, written after each; a row that fails holds its error, one without time says so."""

    def __init__(self, path: Path, deadline: float) -> None:
        self.path, self.deadline = path, deadline
        self.content: dict[str, Any] = {"rows": []}

    def add(self, question: str, measure: Callable[..., dict], *arguments: Any, need: float = 4.0) -> dict:
        """Append what measure(*arguments) returns, if at least `need` seconds are left."""
        row: dict[str, Any] = {"question": question}
        started = time.time()
        if need and self.deadline - started < need:
            row["skipped"] = f"{max(0.0, self.deadline - started):.0f} s are left, it needs {need:.0f}"
        else:
            try:
                row |= measure(*arguments)
            except Exception as error:  # what else can be measured shall be
                row["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
            row["took"] = round(time.time() - started, 2)
        self.content["rows"].append(row)
        self.write()
        print(describe_row(self.path.stem, row), flush=True)
        return row

    def write(self) -> None:
        """Replace the file by one with all rows so far."""
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.content, indent=1) + "\n")
        temporary.replace(self.path)


def describe_row(part: str, row: dict) -> str:
    """One line of a row's numbers."""

    def show(value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{name} {show(each)}" for name, each in value.items()) + "}"
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    numbers = "  ".join(f"{name}={show(value)}" for name, value in row.items() if name != "question")
    return f"{part} | {row['question']} | {numbers}"


# Networks: functions of (params, x), pure, so that every contestant gets the same one.


def apply_mlp(params: Any, x: Any) -> Any:
    """Logits [N, C] of a multilayer perceptron, params = [(W, b), ...]."""
    import jax

    for weight, bias in params[:-1]:
        x = jax.nn.relu(x @ weight + bias[None])
    weight, bias = params[-1]
    return x @ weight + bias[None]


def make_mlp(width: int, samples: int) -> tuple[Callable, Any, Any]:
    """Depth 2, on inputs of MNIST's size."""
    import jax.numpy as jnp

    rng = np.random.default_rng(0)
    sizes = [INPUTS, width, width, OUTPUTS]
    params = [
        (jnp.asarray(rng.standard_normal((a, b), np.float32) / a**0.5), jnp.full(b, 0.1, jnp.float32))
        for a, b in itertools.pairwise(sizes)
    ]
    return apply_mlp, params, jnp.asarray(rng.random((samples, INPUTS), np.float32))


def make_module(module: Any, samples: int) -> tuple[Callable, Any, Any]:
    import jax
    import jax.numpy as jnp

    x = jnp.asarray(np.random.default_rng(0).random((samples, 28, 28, 1), np.float32))
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), module.init(jax.random.key(0), x))
    return module.apply, params, x


def make_cnn(channels: int, samples: int) -> tuple[Callable, Any, Any]:
    """Three 3 × 3 convolutions, of stride 1, 2, 2, and a mean over positions."""
    import jax
    from flax import linen as nn

    class CNN(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            for stride in (1, 2, 2):
                x = jax.nn.relu(nn.Conv(channels, (3, 3), strides=stride)(x))
            return nn.Dense(OUTPUTS)(x.mean((1, 2)))

    return make_module(CNN(), samples)


def make_vit(width: int, samples: int) -> tuple[Callable, Any, Any]:
    """Patches of 7 × 7, two blocks of attention (4 heads) and perceptron (4 times as wide), a mean over patches."""
    import jax
    from flax import linen as nn

    class ViT(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            norm = functools.partial(nn.LayerNorm, force_float32_reductions=False)
            x = nn.Conv(width, (7, 7), strides=7)(x).reshape(x.shape[0], -1, width)
            x = x + self.param("position", nn.initializers.normal(0.1), x.shape[1:])[None]
            for _ in range(2):
                x = x + nn.MultiHeadDotProductAttention(num_heads=4)(norm()(x))
                x = x + nn.Dense(width)(jax.nn.gelu(nn.Dense(4 * width)(norm()(x))))
            return nn.Dense(OUTPUTS)(norm()(x).mean(1))

    return make_module(ViT(), samples)


# Measuring.


def time_call(call: Callable[[], Any], seconds: float) -> float:
    """Median seconds of a call, after one to warm up: repeated for `seconds`, at least three times."""
    import jax

    jax.block_until_ready(call())
    times: list[float] = []
    stop = time.perf_counter() + seconds
    while len(times) < 3 or (time.perf_counter() < stop and len(times) < 200):
        started = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - started)
    return float(np.median(times))


def compile_call(function: Callable, *arguments: Any) -> tuple[Any, float]:
    """The program compiled for its arguments (arrays or shapes), and the seconds that took."""
    import jax

    started = time.perf_counter()
    program = jax.jit(function).lower(*arguments).compile()
    return program, time.perf_counter() - started


def read_memory(program: Any) -> dict[str, int]:
    """Bytes of a compiled program: its arguments, results and what lies between."""
    memory = program.memory_analysis()
    return {
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
    }


def read_peak() -> dict[str, int]:
    """The most bytes that this process ever held on the device, where the device tells."""
    import jax

    stats = jax.devices()[0].memory_stats() or {}
    return {name: stats[name] for name in ("peak_bytes_in_use", "bytes_limit") if name in stats}


def relative(a: Any, b: Any) -> float:
    """Largest difference over the largest size of b."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(np.abs(a - b).max() / np.abs(b).max())


# 1. agreement


def measure_agreement(answers: Answers, size: SimpleNamespace) -> None:
    import jax

    jax.config.update("jax_enable_x64", True)
    networks = {
        "MLP": make_mlp(size.agreement_width, size.agreement_samples),
        "CNN": make_cnn(size.agreement_channels, size.agreement_samples),
        "ViT": make_vit(size.agreement_vit, size.agreement_samples),
    }
    references: dict[str, Any] = {name: {} for name in networks}
    for name, problem in networks.items():
        answers.add(f"{name}: reference on the host", prepare_reference, *problem, references[name])
        answers.add(f"{name}: float32", compare_kernels, *problem, "float32", references[name])
    for name, problem in networks.items():
        answers.add(f"{name}: what TensorFloat-32 would do", measure_default, *problem, references[name])
        answers.add(f"{name}: float64", compare_kernels, *problem, "float64", references[name])


def contract_jacobian(f: Callable, params: Any, x: Any) -> dict[str, Any]:
    """{layer: its share of Θ [N, C, N, C]} from the whole Jacobian: the obvious way, independent of the engine."""
    import jax

    jacobian = jax.vmap(jax.jacrev(lambda p, sample: f(p, sample[None])[0]), (None, 0))(params, x)
    layers: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(jacobian):
        keys = [jax.tree_util.keystr((key,), simple=True) for key in path]
        keys = keys[1:] if keys[0] == "params" else keys
        flat = leaf.reshape(leaf.shape[0] * leaf.shape[1], -1)
        layer = "/".join(keys[:-1] or keys)
        layers[layer] = layers.get(layer, 0) + (flat @ flat.T).reshape(*leaf.shape[:2], *leaf.shape[:2])
    return layers


def find_effective_rank(theta: Any) -> float:
    """Γ = exp(−Σ p ln p) of the eigenvalues, in float64 on the host."""
    theta = np.asarray(theta, np.float64)
    values = np.linalg.eigvalsh(theta.reshape(theta.shape[0] * theta.shape[1], -1))
    weights = values[values > 0] / values[values > 0].sum()
    return float(np.exp(-(weights * np.log(weights)).sum()))


def prepare_reference(f: Callable, params: Any, x: Any, reference: dict) -> dict:
    """Fill `reference` with the layers' kernels in float64 on the host."""
    import jax

    host = jax.devices("cpu")[0]
    params, x = jax.device_put(jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), (params, x)), host)
    with jax.default_device(host):
        layers = jax.jit(functools.partial(contract_jacobian, f))(params, x)
    reference |= {layer: np.asarray(share) for layer, share in layers.items()}
    theta = sum(reference.values())
    return {"layers": len(reference), "trace": float(np.einsum("icic", theta)), "rank": find_effective_rank(theta)}


def compare_kernels(f: Callable, params: Any, x: Any, precision: str, reference: dict) -> dict:
    import jax

    import ntklens

    params, x = jax.tree.map(lambda leaf: leaf.astype(precision), (params, x))
    expected = sum(reference.values())
    theta = ntklens.kernel(f, params, x)
    layers = ntklens.layer_kernels(f, params, x)
    traces = {layer: float(value) for layer, value in ntklens.layer_traces(f, params, x).items()}
    row: dict[str, Any] = {
        "kernel": relative(theta, expected),
        "worst_layer": max(relative(layers[layer], share) for layer, share in reference.items()),
        "worst_layer_trace": max(
            abs(traces[layer] / np.einsum("icic", share) - 1) for layer, share in reference.items()
        ),
        "effective_rank": abs(float(ntklens.effective_rank(theta)) / find_effective_rank(expected) - 1),
        "device": str(next(iter(theta.devices()))),
    }
    if precision == "float32":
        again = jax.jit(f)
        again(params, x).block_until_ready()  # compiled at the default precision before the kernel asks for another
        loop = jax.jit(lambda ps: jax.lax.map(lambda p: ntklens.kernel(f, p, x), ps))
        stacked = jax.tree.map(lambda leaf: leaf[None], params)
        row["kernel_of_a_compiled_function"] = relative(ntklens.kernel(again, params, x), expected)
        row["kernel_in_a_loop"] = relative(loop(stacked)[0], expected)
    row["within"] = all(value <= BOUNDS[precision] for value in row.values() if isinstance(value, float))
    return row | {"bound": BOUNDS[precision]}


def measure_default(f: Callable, params: Any, x: Any, reference: dict) -> dict:
    """The same kernel from the Jacobian in float32, and the logits, at JAX's default precision and at the highest."""
    import jax

    expected, row = sum(reference.values()), {}
    double = jax.jit(f)(*jax.tree.map(lambda leaf: leaf.astype("float64"), (params, x)))
    for name in ("default", "highest"):
        with jax.default_matmul_precision(name):
            theta = sum(jax.jit(functools.partial(contract_jacobian, f))(params, x).values())
            row[f"kernel_{name}"] = relative(theta, expected)
            row[f"logits_{name}"] = relative(jax.jit(f)(params, x), double)
    row["default_is_tf32"] = row["logits_default"] > 20 * row["logits_highest"]
    return row


# 2. training


def measure_training(answers: Answers, size: SimpleNamespace) -> None:
    words = [
        *size.job_words, f"model.width={size.training_width}", f"ensemble={size.training_seeds}", "tracking=none",
        f"training.epochs={size.training_epochs}", "optimizer.learning_rate=1e-4", "schedule.spectrum_ratio=2",
    ]  # fmt: skip
    on_cpu, share = {"JAX_PLATFORMS": "cpu"}, {"XLA_PYTHON_CLIENT_MEM_FRACTION": ".1"}
    highest = {"JAX_DEFAULT_MATMUL_PRECISION": "highest"}
    variants = {
        "CPU, float32": (on_cpu, []),
        "CPU, float64": (on_cpu, ["precision=float64"]),
        "GPU, float32": (share, []),
        "GPU, TensorFloat-32 asked for": (share | {"JAX_DEFAULT_MATMUL_PRECISION": "tensorfloat32"}, []),
        "GPU, highest asked for": (share | highest, []),
        "GPU, float64": (share, ["precision=float64"]),
    }
    with tempfile.TemporaryDirectory() as folder:

        def run(name: str) -> Any:
            variables, more = variants[name]
            results = Path(folder) / name.replace(", ", "-").replace(" ", "-")
            left = answers.deadline - time.time() - 5
            return name, run_job(results, [*words, *more], variables, left), results

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            done = list(pool.map(run, variants))
        runs: dict[str, Any] = {}
        for name, outcome, results in done:
            answers.add(f"run on {name}", read_run, outcome, results, runs, name, need=0)
        for name, other in (
            ("CPU, float32", "CPU, float64"), ("GPU, float32", "CPU, float32"),
            ("GPU, highest asked for", "CPU, float32"), ("GPU, TensorFloat-32 asked for", "CPU, float32"),
            ("GPU, float32", "GPU, highest asked for"), ("GPU, float64", "CPU, float64"),
        ):  # fmt: skip
            answers.add(f"{name} against {other}", compare_runs, runs, name, other, need=0)


def run_job(results: Path, words: list[str], variables: dict[str, str], seconds: float, *wrap: str) -> dict:
    """Run the command line in a process; {status, seconds, output}."""
    command = [sys.executable, *(wrap or ("-m", "ntklens.run")), *words, f"paths.results={results}"]
    started = time.perf_counter()
    try:
        process = subprocess.run(
            command, env=os.environ | variables, capture_output=True, text=True, timeout=max(1.0, seconds), check=False
        )
    except subprocess.TimeoutExpired:
        return {"status": "out of time", "seconds": time.perf_counter() - started, "output": ""}
    return {
        "status": process.returncode,
        "seconds": time.perf_counter() - started,
        "output": (process.stdout + process.stderr)[-1500:],
    }


def check_job(outcome: dict) -> None:
    if outcome["status"] != 0:
        raise RuntimeError(f"status {outcome['status']}: {outcome['output'][-300:]}")


def read_run(outcome: dict, results: Path, runs: dict, name: str) -> dict:
    """Keep a run's Dataset in `runs`; its summary is the row."""
    import ntklens

    check_job(outcome)
    (sweep,) = (path for path in results.iterdir() if not path.name.startswith("."))
    data = runs[name] = ntklens.load(sweep, cache=False).isel(run=0).load()
    provenance = json.loads(data.attrs["provenance"])
    return {
        "wall_seconds": outcome["seconds"],
        "device": provenance.get("device"),
        "last_train_loss": float(data.train_loss.dropna("record")[0, -1]),
        "last_trace": float(data.trace.dropna("record")[0, -1]),
    }


def compare_runs(runs: dict, name: str, other: str) -> dict:
    """Largest relative difference over seeds up to an epoch, of what a trajectory holds."""
    row: dict[str, Any] = {}
    a, b = runs[name], runs[other]
    epoch = np.asarray(b.epoch).reshape(-1, b.sizes["record"])[0]
    for last in (*TRAINING_BOUNDS, float(epoch[-1])):
        kept = epoch <= last
        differences = {}
        for variable in ("train_loss", "test_loss", "trace", "effective_rank", "logit_norm"):
            x, y = (np.asarray(run[variable].transpose(..., "record"), np.float64)[..., kept] for run in (a, b))
            differences[variable] = float(np.nanmax(np.abs(x / y - 1)))
        row[f"to epoch {last:g}"] = differences
        if last in TRAINING_BOUNDS:
            row[f"within {TRAINING_BOUNDS[last]:g} to epoch {last:g}"] = (
                max(differences.values()) <= TRAINING_BOUNDS[last]
            )
    return row


# 3. kernels


def measure_kernels(answers: Answers, size: SimpleNamespace) -> None:
    answers.add("rate of a square product", measure_rates, size.square, size.seconds)
    for width in size.widths:
        answers.add(f"MLP width {width}", measure_mlp, width, size)
    nets = [("CNN", make_cnn, each) for each in size.channels] + [("ViT", make_vit, each) for each in size.vits]
    for kind, make, width in nets:
        answers.add(f"{kind} width {width}", measure_network, make, width, size, need=8)


def measure_rates(square: int, seconds: float) -> dict:
    """Operations per second of a square matrix product at each precision."""
    import jax
    import jax.numpy as jnp

    a = jax.random.normal(jax.random.key(0), (square, square), jnp.float32)
    row: dict[str, Any] = {"square": square}
    for precision in ("highest", "default"):
        dot, _ = compile_call(functools.partial(jnp.dot, precision=precision), a, a)
        row[f"{precision}_flops"] = 2 * square**3 / time_call(lambda dot=dot: dot(a, a), seconds)
    return row


def count_mlp_operations(width: int, samples: int) -> int:
    """Of the matrix products of the structured kernel: forward, backward and Grams."""
    sizes = [INPUTS, width, width, OUTPUTS]
    rows = samples * OUTPUTS
    forward = sum(2 * samples * a * b for a, b in itertools.pairwise(sizes))
    backward = 2 * rows * width * width  # the step before starts from unit vectors, alike for all samples
    grams = sum(2 * samples**2 * each for each in sizes[:-1]) + sum(2 * rows**2 * each for each in sizes[1:])
    return forward + backward + grams


def measure_mlp(width: int, size: SimpleNamespace) -> dict:
    import jax.numpy as jnp

    rows = size.samples * OUTPUTS
    tall, square, wide = jnp.ones((rows, width)), jnp.ones((width, width)), jnp.ones((width, rows))
    dot = functools.partial(jnp.dot, precision="highest")
    rates = {}
    for name, right, operations in (("backward", square, 2 * rows * width**2), ("gram", wide, 2 * rows**2 * width)):
        program, _ = compile_call(dot, tall, right)
        seconds = time_call(lambda program=program, right=right: program(tall, right), size.seconds / 4)
        rates[name] = operations / seconds
    row = measure_ours(*make_mlp(width, size.samples), size.seconds)
    operations = count_mlp_operations(width, size.samples)
    rate = operations / row["kernel_seconds"]
    return row | {"flops": rate, "product_flops": rates, "share": rate / max(rates.values())}


def measure_network(make: Callable, width: int, size: SimpleNamespace) -> dict:
    """Operations: forward, input gradients and leaf gradients of C outputs, and the Gram by its symmetry."""
    import jax
    import jax.numpy as jnp

    f, params, x = make(width, size.net_samples)
    row = measure_ours(f, params, x, size.seconds)
    counted = jax.jit(f).lower(params, x).cost_analysis() or {}
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    rows = len(x) * OUTPUTS
    operations = counted.get("flops", 0.0) * (1 + 2 * OUTPUTS) + rows**2 * parameters
    left, right = jnp.ones((rows, parameters)), jnp.ones((parameters, rows))
    gram, _ = compile_call(functools.partial(jnp.dot, precision="highest"), left, right)
    product = 2 * rows**2 * parameters / time_call(lambda: gram(left, right), size.seconds / 4)
    rate = operations / row["kernel_seconds"]
    return row | {"parameters": parameters, "flops": rate, "product_flops": {"gram": product}, "share": rate / product}


def measure_ours(f: Callable, params: Any, x: Any, seconds: float) -> dict:
    """Seconds and bytes of the kernel and of the traces, compiled; and of the public call as a user types it."""
    import ntklens

    row: dict[str, Any] = {}
    for name, function in (("kernel", ntklens.kernel), ("traces", ntklens.layer_traces)):
        program, compiling = compile_call(lambda p, x, function=function: function(f, p, x), params, x)
        row[f"{name}_seconds"] = time_call(lambda program=program: program(params, x), seconds)
        row[f"{name}_compile_seconds"] = compiling
        row[f"{name}_temporary_bytes"] = read_memory(program)["temporary_bytes"]
    return row


# 4. jobs


def measure_jobs(answers: Answers, size: SimpleNamespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for width in size.jobs:
            words = [
                *size.job_words, f"model.width={width}", f"ensemble={size.job_seeds}", "tracking=none",
                f"training.epochs={size.job_epochs}", "optimizer.learning_rate=1e-4",
            ]  # fmt: skip
            answers.add(f"job at width {width}", measure_job, Path(folder) / str(width), words, answers, need=20)


def measure_job(results: Path, words: list[str], answers: Answers) -> dict:
    """Seconds of a whole job, and of its pieces; each piece waits for the device, as it does not otherwise."""
    report = results.with_suffix(".json")
    left = answers.deadline - time.time() - 1
    outcome = run_job(results, words, {}, left, __file__, "--job", str(report))
    check_job(outcome)
    pieces = json.loads(report.read_text())
    wall = outcome["seconds"]
    shares = {name: piece["seconds"] / wall for name, piece in pieces["pieces"].items()}
    return {"wall_seconds": wall, **pieces, "shares_of_wall": shares}


# What a job spends its time on: {name in the report: functions of ntklens, wherever they are}.
PIECES = {
    "training": ("advance",),
    "records": ("measure_records",),
    "kernels": ("compute_member_kernel", "compute_member_kernels"),
    "spectra (of all threads)": ("eigenvalues",),
    "publishing": ("publish_trajectory",),
    "waiting for spectra while training": ("SpectrumWorkers.submit",),
    "waiting for spectra at the end": ("Recorder.finish",),
    "initialising": ("initialise",),
}


def run_timed_job(report: Path, words: list[str]) -> None:
    """The command line in this process, with the pieces of the job timed; never returns."""
    started = time.perf_counter()
    import jax

    import ntklens

    modules = []
    for found in pkgutil.walk_packages(ntklens.__path__, "ntklens."):
        try:
            modules.append(importlib.import_module(found.name))
        except ImportError:
            continue  # of what is not installed here, the job needs none
    imported = time.perf_counter()
    pieces: dict[str, Any] = collections.defaultdict(lambda: {"calls": 0, "seconds": 0.0, "first": 0.0})
    depth, lock = threading.local(), threading.Lock()

    def time_piece(name: str, function: Callable) -> Callable:
        @functools.wraps(function, updated=())
        def timed(*arguments: Any, **options: Any) -> Any:
            outer = getattr(depth, name, True)
            setattr(depth, name, False)
            begun = time.perf_counter()
            try:
                result = function(*arguments, **options)
                return jax.block_until_ready(result) if name in ("training", "records", "kernels") else result
            finally:
                setattr(depth, name, outer)
                took = time.perf_counter() - begun
                with lock:
                    piece = pieces[name]
                    piece["first"] = piece["first"] if piece["calls"] else took
                    piece["calls"] += outer
                    piece["seconds"] += took if outer else 0.0

        return timed

    for name, functions in PIECES.items():
        for path in functions:
            owner, _, method = path.partition(".")
            found = {id(vars(module)[owner]): vars(module)[owner] for module in modules if owner in vars(module)}
            for original in found.values():
                wrapped = time_piece(name, getattr(original, method) if method else original)
                if method:
                    setattr(original, method, wrapped)
                    continue
                for module in modules:
                    if vars(module).get(owner) is original:
                        setattr(module, owner, wrapped)
    sys.argv = ["ntklens", *words]
    try:
        importlib.import_module("ntklens.run").main()
    finally:
        ended = time.perf_counter()
        report.parent.mkdir(parents=True, exist_ok=True)
        content = {"import_seconds": imported - started, "command_seconds": ended - imported, "pieces": pieces}
        report.write_text(json.dumps(content | {"device": read_peak()}))


# 5. spectrum


def measure_spectra(answers: Answers, size: SimpleNamespace) -> None:
    import ntklens

    theta = ntklens.kernel(*make_mlp(size.peer_widths[0], size.samples))
    routes = make_routes(theta)
    for name, find in routes.items():
        answers.add(name, measure_route, find, theta, size)
    if "jnp.linalg.eigvalsh on the device" in routes:
        answers.add("jnp.linalg.eigvalsh, batched on the device", measure_batch, theta, min(20, size.spectra))


def make_routes(theta: Any) -> dict[str, Callable[[], Any]]:
    """{name: eigenvalues in ascending order}."""
    import jax
    import scipy.linalg

    from ntklens.ntk.spectrum import eigenvalues

    matrix = theta.reshape(theta.shape[0] * theta.shape[1], -1)
    host = jax.devices("cpu")[0]
    eigvalsh = jax.jit(jax.numpy.linalg.eigvalsh)
    return {
        "ntklens, kernel on the device": lambda: eigenvalues(theta)[::-1],
        "ntklens, kernel as a JAX array on the host": lambda: eigenvalues(jax.device_put(theta, host))[::-1],
        "ntklens, kernel as a NumPy array": lambda: eigenvalues(np.asarray(theta))[::-1],
        "scipy evd on the host": lambda: scipy.linalg.eigh(
            np.array(matrix), eigvals_only=True, driver="evd", check_finite=False
        ),
        "jnp.linalg.eigvalsh on the device": lambda: np.asarray(eigvalsh(matrix)),
    }


def measure_route(find: Callable[[], Any], theta: Any, size: SimpleNamespace) -> dict:
    """Seconds of one spectrum alone with one thread and with all, and of one among many in all threads of the host."""
    from threadpoolctl import threadpool_limits

    exact = np.linalg.eigvalsh(np.asarray(theta, np.float64).reshape(theta.shape[0] * theta.shape[1], -1))
    row: dict[str, Any] = {"difference": relative(find(), exact)}
    row["seconds_all_threads"] = time_call(find, size.seconds)
    with threadpool_limits(1, user_api="blas"):
        row["seconds_one_thread"] = time_call(find, size.seconds)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            started = time.perf_counter()
            list(pool.map(lambda _: find(), range(size.spectra)))
            row["seconds_each_of_many"] = (time.perf_counter() - started) / size.spectra
    return row


def measure_batch(theta: Any, count: int) -> dict:
    import jax
    import jax.numpy as jnp

    matrices = jnp.stack([theta.reshape(theta.shape[0] * theta.shape[1], -1)] * count)
    program, compiling = compile_call(jnp.linalg.eigvalsh, matrices)
    jax.block_until_ready(program(matrices))
    started = time.perf_counter()
    jax.block_until_ready(program(matrices))
    return {"seconds_each_of_many": (time.perf_counter() - started) / count, "compile_seconds": compiling}


# 6. memory


def measure_memory(answers: Answers, size: SimpleNamespace) -> None:
    answers.add(f"run at width {size.memory_run}", run_wide, size.memory_run, size.samples)
    answers.add(f"kernel at width {size.memory_goal}", run_widest, size.memory_goal, size.samples, need=12)
    bytes_of: dict[str, dict[int, int]] = collections.defaultdict(dict)
    for width in size.memory_widths:
        answers.add(f"compiled for width {width}", count_memory, width, size.samples, bytes_of)
    for width in (size.memory_run, size.memory_goal):
        answers.add(f"grown to width {width}", grow_memory, bytes_of, width, need=0)


def build_wide(width: int) -> tuple[Any, Any, Any]:
    """The main job's trainer at a width, its parameters' shapes, and those of its inputs."""
    import jax
    import optax

    from ntklens.models.mlp import MLP
    from ntklens.training.ensemble import Trainer
    from ntklens.training.losses import cross_entropy

    model, sample = MLP(width, 2, OUTPUTS), np.zeros((1, INPUTS), np.float32)
    trainer = Trainer(lambda key: model.init(key, sample), model.apply, cross_entropy, optax.adam)
    return trainer, jax.eval_shape(trainer.init, jax.random.key(0)), sample


def describe_step(trainer: Any, shapes: Any, seeds: int) -> tuple[tuple, dict]:
    """Shapes of the arguments of one call of training, full batch of 100."""
    import jax
    import jax.numpy as jnp

    def stack(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((seeds, *leaf.shape), leaf.dtype), tree)

    opt_state = jax.eval_shape(trainer.optimizer(0.0).init, shapes)
    key, scalar = jax.eval_shape(lambda: jax.random.key(0)), jax.ShapeDtypeStruct((), jnp.int32)
    rate = jax.ShapeDtypeStruct((seeds,), jnp.float32)
    x, y = jax.ShapeDtypeStruct((100, INPUTS), jnp.float32), jax.ShapeDtypeStruct((100,), jnp.int32)
    return (stack(shapes), stack(opt_state), stack(key), rate, scalar, scalar, x, y), {"trainer": trainer}


def count_memory(width: int, samples: int, bytes_of: dict) -> dict:
    """Bytes of the compiled programs, from shapes alone; beside them what ntklens estimates."""
    import jax
    import jax.numpy as jnp

    import ntklens
    from ntklens.jobs.needs import Sizes, count_needs
    from ntklens.recording.measure import Measurer
    from ntklens.training.ensemble import advance

    trainer, shapes, _ = build_wide(width)
    probe = jax.ShapeDtypeStruct((samples, INPUTS), jnp.float32)
    row: dict[str, Any] = {"parameter_bytes": sum(4 * leaf.size for leaf in jax.tree.leaves(shapes))}
    sample, sizes = jax.ShapeDtypeStruct((INPUTS,), jnp.float32), Sizes(100, 2000, 2000, samples)
    needs = count_needs(trainer, Measurer(trainer.apply, trainer.loss), sample, sizes)
    need = needs.estimate_memory(sample, sizes)
    row["estimate"] = {"shared_bytes": need.shared, "per_member_bytes": need.per_member}
    kernel = functools.partial(ntklens.kernel, trainer.apply)
    traces = functools.partial(ntklens.layer_traces, trainer.apply)
    for name, function in (("kernel", kernel), ("traces", traces)):
        row[name] = read_memory(compile_call(function, shapes, probe)[0])
    for seeds in (1, 2):
        arguments, options = describe_step(trainer, shapes, seeds)
        row[f"training of {seeds}"] = read_memory(advance.lower(*arguments, **options).compile())
    for name, numbers in row.items():
        if isinstance(numbers, dict) and "temporary_bytes" in numbers:
            bytes_of[name][width] = numbers["argument_bytes"] + numbers["temporary_bytes"]
    return row


def grow_memory(bytes_of: dict, width: int) -> dict:
    """Bytes at a width from those at the others, by least squares of a + b m + c m² relative to each."""
    row = {}
    for name, counted in bytes_of.items():
        widths = np.array([each for each in counted if each != width], float)
        values = np.array([counted[each] for each in counted if each != width], float)
        powers = np.arange(min(3, len(widths)))[::-1]
        coefficients = np.linalg.lstsq(widths[:, None] ** powers / values[:, None], np.ones(len(widths)), rcond=None)[0]
        row[name] = {"predicted_bytes": float(coefficients @ float(width) ** powers)}
        if width in counted:
            row[name]["counted_bytes"] = counted[width]
    return row


def run_wide(width: int, samples: int) -> dict:
    """Seconds and peak bytes of the kernel, the traces and training by the main job's own functions."""
    import jax
    import jax.numpy as jnp

    from ntklens.training.ensemble import advance, initialise

    trainer, shapes, _ = build_wide(width)
    rng = np.random.default_rng(0)
    probe, x = (jnp.asarray(rng.random((count, INPUTS), np.float32)) for count in (samples, 100))
    y = jnp.asarray(rng.integers(0, OUTPUTS, 100))
    row: dict[str, Any] = {"parameters": sum(leaf.size for leaf in jax.tree.leaves(shapes))}
    row |= measure_with_peaks(trainer.apply, jax.jit(trainer.init)(jax.random.key(0)), probe)
    for seeds in (1, 4):
        state = initialise(trainer, range(seeds), 1e-4)
        now = (state.params, state.opt_state)
        for count in (1, 5, 10):  # the first compiles
            started = time.perf_counter()
            fixed = (state.order_key, state.learning_rate, jnp.int32(0), jnp.int32(count), x, y)
            now = jax.block_until_ready(advance(*now, *fixed, trainer=trainer))
            row[f"step_seconds_of_{seeds}"] = (time.perf_counter() - started) / count
        row[f"training_peak_of_{seeds}"] = read_peak()
        del state, now
    return row


def run_widest(width: int, samples: int) -> dict:
    """The kernel and the traces of constant weights: only their time and memory matter."""
    import jax
    import jax.numpy as jnp

    trainer, shapes, _ = build_wide(width)
    params = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 1.0 / width, leaf.dtype), shapes)
    return measure_with_peaks(trainer.apply, params, jnp.ones((samples, INPUTS), jnp.float32))


def measure_with_peaks(f: Callable, params: Any, probe: Any) -> dict:
    """Seconds of the traces and of the kernel, and the peak of this process's bytes after each."""
    import ntklens

    row: dict[str, Any] = {}
    for name, function in (("traces", ntklens.layer_traces), ("kernel", ntklens.kernel)):
        program, _ = compile_call(functools.partial(function, f), params, probe)
        row[f"{name}_seconds"] = time_call(functools.partial(program, params, probe), 0.5)
        row[f"{name}_peak"] = read_peak()
    return row


# 7. peers


def measure_peers(answers: Answers, size: SimpleNamespace) -> None:
    problems = [(f"MLP width {width}", make_mlp, width, size.samples) for width in size.peer_widths[:2]]
    problems += [(f"CNN width {each}", make_cnn, each, size.net_samples) for each in size.channels]
    problems += [(f"ViT width {each}", make_vit, each, size.net_samples) for each in size.vits]
    problems += [(f"MLP width {width}", make_mlp, width, size.samples) for width in size.peer_widths[2:]]
    for name, make, width, samples in problems:
        compare_with_peers(answers, name, make(width, samples), size)
        if make is make_mlp and width in size.peer_widths[:2]:
            answers.add(f"{name}: torch.func", measure_torch, width, samples, size.seconds, need=10)


def compare_with_peers(answers: Answers, name: str, problem: tuple, size: SimpleNamespace) -> None:
    ours: dict[str, Any] = {}
    answers.add(f"{name}: ntklens", measure_kernel_alone, problem, size.seconds, ours)
    for mode in ("JACOBIAN_CONTRACTION", "NTK_VECTOR_PRODUCTS"):
        answers.add(f"{name}: neural-tangents {mode}", measure_neural_tangents, mode, problem, ours, size, need=8)


def measure_kernel_alone(problem: tuple, seconds: float, ours: dict) -> dict:
    import ntklens

    f, params, x = problem
    program, _ = compile_call(lambda p, x: ntklens.kernel(f, p, x), params, x)
    ours |= {"call": lambda: program(params, x), "theta": np.asarray(program(params, x))}
    return {"kernel_seconds": time_call(ours["call"], seconds), **read_memory(program)}


def measure_neural_tangents(mode: str, problem: tuple, ours: dict, size: SimpleNamespace) -> dict:
    """The mode's kernel beside ours, at the highest precision; not run where its memory exceeds the device's."""
    import jax
    import psutil

    from ntklens._compat import import_neural_tangents, neural_tangents_settings

    f, params, x = problem
    nt = import_neural_tangents()
    with neural_tangents_settings():
        ntk = nt.empirical_ntk_fn(f, trace_axes=(), vmap_axes=0, implementation=getattr(nt.NtkImplementation, mode))
        program, compiling = compile_call(lambda params: ntk(x, None, params), params)
    memory = read_memory(program)
    limit = (jax.devices()[0].memory_stats() or {}).get("bytes_limit", psutil.virtual_memory().available)
    if memory["temporary_bytes"] + memory["output_bytes"] > 0.9 * limit:
        return {"not_run": f"needs {memory['temporary_bytes'] / 1e9:.1f} GB", **memory}
    theta = np.transpose(np.asarray(program(params)), (0, 2, 1, 3))
    seconds = time_call(lambda: program(params), size.seconds)
    beside = time_call(ours["call"], size.seconds)
    return {
        "kernel_seconds": seconds,
        "ntklens_seconds": beside,
        "times_faster": seconds / beside,
        "difference": relative(ours["theta"], theta),
        "compile_seconds": compiling,
        **memory,
    }


def measure_torch(width: int, samples: int, seconds: float) -> dict:
    """torch.func's Jacobian, contracted leaf by leaf, of the same MLP."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    device = "cuda" if torch.cuda.is_available() else "cpu"
    _, params, x = make_mlp(width, samples)
    weights = {
        f"{kind}{layer}": torch.tensor(np.array(array), device=device)
        for layer, pair in enumerate(params)
        for kind, array in zip("Wb", pair, strict=True)
    }
    inputs = torch.tensor(np.array(x), device=device)

    def logits(weights: dict, sample: Any) -> Any:
        for layer in range(2):
            sample = torch.relu(sample @ weights[f"W{layer}"] + weights[f"b{layer}"])
        return sample @ weights["W2"] + weights["b2"]

    def kernel() -> Any:
        jacobian = torch.func.vmap(torch.func.jacrev(logits), (None, 0))(weights, inputs)
        flat = [leaf.flatten(2).flatten(0, 1) for leaf in jacobian.values()]
        theta = sum(leaf @ leaf.T for leaf in flat)
        if device == "cuda":
            torch.cuda.synchronize()
        return theta

    with torch.no_grad():
        times: list[float] = []
        stop = time.perf_counter() + seconds
        while len(times) < 4 or (time.perf_counter() < stop and len(times) < 50):
            started = time.perf_counter()
            theta = kernel()
            times.append(time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    row = {"kernel_seconds": float(np.median(times[1:])), "trace": float(theta.trace()), "peak_bytes": peak}
    if device == "cuda":
        torch.cuda.empty_cache()
    return row | {"device": device, "torch": torch.__version__}


# 8. compiling


FLAGS = ("", WITHOUT_TRITON, "--xla_gpu_autotune_level=0")


def measure_compiling(answers: Answers, size: SimpleNamespace) -> None:
    """One process per choice, none of which finds a compiled program."""
    for flags in FLAGS:
        answers.add(flags or "XLA's own choice", measure_flags, flags, size, answers, need=8)


def measure_flags(flags: str, size: SimpleNamespace, answers: Answers) -> dict:
    variables = os.environ | {"XLA_FLAGS": flags, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    width = size.widths[1]
    code = (
        f"import gpu, json; print(json.dumps(gpu.measure_ours(*gpu.make_mlp({width}, {size.samples}), {size.seconds})))"
    )
    left = max(1.0, answers.deadline - time.time() - 1)
    process = subprocess.run(
        [sys.executable, "-c", code], env=variables, cwd=Path(__file__).parent, capture_output=True, text=True,
        timeout=left, check=False,
    )  # fmt: skip
    if process.returncode != 0:
        raise RuntimeError(process.stderr[-300:])
    return json.loads(process.stdout.splitlines()[-1])


MEASURES = {
    "agreement": measure_agreement,
    "training": measure_training,
    "kernels": measure_kernels,
    "jobs": measure_jobs,
    "spectrum": measure_spectra,
    "memory": measure_memory,
    "peers": measure_peers,
    "compiling": measure_compiling,
}
# Parts that share the device's memory with other processes, and how much of it they may take.
FRACTIONS = {"agreement": ".3", "peers": ".6", "memory": ".93"}
WITHOUT_JAX = ("training", "jobs", "compiling")  # their runs are processes of their own


def run_part(part: str, output: Path, seconds: float, size: SimpleNamespace) -> None:
    """One part, in this process."""
    answers = Answers(output / f"{part}.json", time.time() + seconds)
    started = time.perf_counter()
    if part not in WITHOUT_JAX:
        from timing import describe_environment

        answers.content["environment"] = describe_environment()
        answers.content["seconds_to_start"] = time.perf_counter() - started
        answers.write()
    MEASURES[part](answers, size)
    answers.content["seconds"] = time.perf_counter() - started
    answers.write()


def start_part(part: str, output: Path, seconds: float, toy: bool) -> subprocess.Popen:
    variables = dict(os.environ)
    if part in FRACTIONS:
        variables["XLA_PYTHON_CLIENT_MEM_FRACTION"] = FRACTIONS[part]
    if part in QUICK and not toy:
        variables.setdefault("XLA_FLAGS", WITHOUT_TRITON)
    command = [sys.executable, __file__, "--part", part, "--output", str(output), "--budget-seconds", f"{seconds:.0f}"]
    return subprocess.Popen([*command, *(["--toy"] if toy else [])], env=variables, start_new_session=True)


def run_waves(parts: list[str], output: Path, budget: float, toy: bool) -> Iterator[tuple[str, str]]:
    """Run the parts; yield (part, what became of it)."""
    end = time.time() + budget
    for wave in WAVES:
        wanted = [part for part in wave if part in parts]
        left = end - time.time()
        if left < WORTH_STARTING:
            yield from ((part, f"skipped: {max(0.0, left):.0f} s are left") for part in wanted)
            continue
        running = {}
        for part in wanted:
            seconds = left - 2 if toy else min(SECONDS[part], left - 2)
            running[part] = start_part(part, output, seconds, toy), time.time() + seconds + 2
        for part, (process, deadline) in running.items():
            try:
                yield part, f"status {process.wait(max(0.1, deadline - time.time()))}"
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                yield part, "stopped: out of time"


def collect(output: Path, outcomes: dict[str, str], seconds: float) -> dict:
    """Merge the parts' files into gpu.json."""
    results: dict[str, Any] = {"command": " ".join(sys.argv), "seconds": round(seconds, 1), "parts": {}}
    for part, outcome in outcomes.items():
        path = output / f"{part}.json"
        content = json.loads(path.read_text()) if path.exists() else {"rows": []}
        environment = content.pop("environment", None)
        results["environment"] = results.get("environment") or environment
        results["parts"][part] = {"outcome": outcome, **content}
    (output / "gpu.json").write_text(json.dumps(results, indent=1) + "\n")
    for part in outcomes:
        (output / f"{part}.json").unlink(missing_ok=True)
        (output / f"{part}.tmp").unlink(missing_ok=True)
    return results


def print_table(results: dict) -> None:
    """The rows once more, short: what took part, what failed."""
    print(f"\n{results.get('environment')}\n{results['seconds']} s")
    for part, content in results["parts"].items():
        print(f"{part}: {content['outcome']}, {content.get('seconds', 0.0):.0f} s")
        for row in content["rows"]:
            for problem in ("error", "skipped"):
                if problem in row:
                    print(f"    {problem}: {row['question']}: {row[problem]}")
            if row.get("within") is False:
                print(f"    out of bounds: {row['question']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--budget-seconds", type=float, default=480)
    parser.add_argument("--parts", nargs="+", choices=list(MEASURES), default=list(MEASURES))
    parser.add_argument("--toy", action="store_true", help="toy sizes, for a dry run on a CPU")
    parser.add_argument("--part", choices=list(MEASURES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    output = options.output.absolute()
    output.mkdir(parents=True, exist_ok=True)
    if options.part:
        run_part(options.part, output, options.budget_seconds, TOY if options.toy else FULL)
        return
    started = time.time()
    with tempfile.TemporaryDirectory() as folder:
        # Programs that several parts compile are compiled once; a user's own cache rules.
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", folder)
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        outcomes: dict[str, str] = {}
        for part, outcome in run_waves(options.parts, output, options.budget_seconds, options.toy):
            outcomes[part] = outcome
            print(f"{part}: {outcome}, {time.time() - started:.0f} s since the start", flush=True)
    print_table(collect(output, outcomes, time.time() - started))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--job"]:
        run_timed_job(Path(sys.argv[2]), sys.argv[3:])
    else:
        main()
