"""How exact are the kernel, Γ in float32, and an ensemble packed in another way?

1. The structured kernel in float64 against the full float64 Jacobian and against neural-tangents, depth 1–4, with and
   without biases: largest difference relative to the largest entry.
2. Γ of float32 networks trained on MNIST (synthetic data without NTKLENS_DATA), computed in float32 as the main job
   does, against the float64 kernel and eigenvalues of the same parameters, at the start and at the minimum.
3. `ensemble=20` against 20 × `ensemble=1` and `seed=5 ensemble=3`: initial parameters bit for bit, and the largest
   relative difference per variable to epoch 10 and to epoch 100; and a rerun packed alike, bit for bit.

    NTKLENS_DATA=… python benchmarks/exactness.py
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console
from rich.table import Table
from timing import write_results

from ntklens.data import mnist, synthetic
from ntklens.models.mlp import MLP
from ntklens.ntk import metrics, reference, structured
from ntklens.ntk.spectrum import eigenvalues
from ntklens.store.trajectory import read_trajectory

REAL = "NTKLENS_DATA" in os.environ
DATA_WORDS = ("dataset=mnist",) if REAL else ("dataset=synthetic", "dataset.input_dim=784")
COMPARED = ("train_loss", "selection_loss", "test_loss", "trace", "trace_layer", "logit_norm", "weight_change")


def compute_jacobian_kernel(f, params, x) -> np.ndarray:
    """J Jᵀ of the full Jacobian, shape [N, C, N, C]."""
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    jacobian = jax.vmap(jax.jacrev(lambda p, sample: f(unravel(p), sample[None])[0]), (None, 0))(flat, x)
    return np.einsum("icp,jdp->icjd", jacobian, jacobian, optimize=True)


def compare_kernels() -> list[dict]:
    rows = []
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).random((12, 30)))
        for depth in (1, 2, 3, 4):
            for bias in (True, False):
                model = MLP(24, depth, 5, bias=bias)
                params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), model.init(jax.random.key(depth), x))
                ours = np.asarray(structured.kernel(model, params, x))
                jacobian = compute_jacobian_kernel(model.apply, params, x)
                theirs = np.asarray(reference.kernel(model, params, x))
                scale = np.abs(jacobian).max()
                rows.append(
                    {
                        "depth": depth,
                        "bias": bias,
                        "against_jacobian": float(np.abs(ours - jacobian).max() / scale),
                        "against_neural_tangents": float(np.abs(ours - theirs).max() / scale),
                    }
                )
    return rows


def train_to_minimum(model: MLP, data) -> tuple:
    """Plain full-batch Adam: (parameters at the start, at the smallest test loss)."""
    x, y = jnp.asarray(data.train.inputs), jnp.asarray(data.train.labels)
    optimizer = optax.adam(1e-3)

    def compute_loss(params, x, y):
        return optax.softmax_cross_entropy_with_integer_labels(model.apply(params, x), y).mean()

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(jax.grad(compute_loss)(params, x, y), state, params)
        return optax.apply_updates(params, updates), state

    evaluate = jax.jit(lambda p: compute_loss(p, jnp.asarray(data.test.inputs), jnp.asarray(data.test.labels)))
    start = params = model.init(jax.random.key(0), x[:1])
    state, best, lowest = optimizer.init(params), params, np.inf
    for _ in range(400):
        params, state = step(params, state)
        if (loss := float(evaluate(params))) < lowest:
            best, lowest = params, loss
    return start, best


def compare_effective_ranks() -> list[dict]:
    data = mnist.load(train_size=100) if REAL else synthetic.load(input_dim=784, train_size=100)
    rows = []
    for width in (8, 32, 512):
        model = MLP(width, 2, data.classes)
        for moment, params in zip(("start", "minimum"), train_to_minimum(model, data), strict=True):
            single = structured.kernel(model.apply, params, jnp.asarray(data.probe.inputs))
            rank = metrics.effective_rank_from_eigenvalues(eigenvalues(single))
            with jax.enable_x64(True):
                double = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf, np.float64)), params)
                theta = structured.kernel(model.apply, double, jnp.asarray(np.asarray(data.probe.inputs, np.float64)))
            exact = metrics.effective_rank_from_eigenvalues(np.linalg.eigvalsh(np.asarray(theta).reshape(1280, 1280)))
            rows.append({"width": width, "at": moment, "gamma": exact, "deviation": abs(rank / exact - 1)})
    return rows


def run_job(folder: Path, *words: str):
    settings = ("dataset.train_size=100", "model.width=64", "training.epochs=100", f"paths.results={folder}")
    command = [sys.executable, "-m", "ntklens.run", *DATA_WORDS, *settings, *words]
    subprocess.run(command, check=True, capture_output=True)


def compare_packings() -> dict:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        run_job(root / "together", "ensemble=20")
        run_job(root / "again", "ensemble=20")
        run_job(root / "three", "seed=5", "ensemble=3")
        for seed in range(20):
            run_job(root / "alone", f"seed={seed}", "ensemble=1")
        found = {
            packing: {
                int(path.parent.name.partition("=")[2]): read_trajectory(path)
                for path in (root / packing).rglob("trajectory.nc")
            }
            for packing in ("together", "again", "three", "alone")
        }
    equal = all(
        np.array_equal(found["together"][seed][name], found["again"][seed][name], equal_nan=True)
        for seed in range(20)
        for name in found["together"][seed].data_vars
    )
    rows = []
    for packing in ("alone", "three"):
        for name in COMPARED:
            differences = {10: 0.0, 100: 0.0}
            for seed, other in found[packing].items():
                own = found["together"][seed]
                for epoch in differences:
                    a, b = (t[name].values[(t.epoch <= epoch).values] for t in (own, other))
                    scale = np.where(b == 0, 1, np.abs(b))
                    differences[epoch] = max(differences[epoch], float(np.max(np.abs(a - b) / scale)))
            rows.append(
                {"packing": packing, "variable": name, "to_epoch_10": differences[10], "to_epoch_100": differences[100]}
            )
    return {
        "rerun_equal_bit_for_bit": bool(equal),
        "initial_parameters_equal": compare_initial_parameters(),
        "rows": rows,
    }


def compare_initial_parameters() -> bool:
    """Of the members of an ensemble of 20, of 20 ensembles of one, and of seeds 5, 6 and 7."""
    from ntklens.training.ensemble import Trainer, initialise
    from ntklens.training.losses import cross_entropy

    model = MLP(64, 2, 10)
    trainer = Trainer(lambda key: model.init(key, jnp.ones((1, 784))), model.apply, cross_entropy, optax.adam)
    together = jax.tree.leaves(initialise(trainer, range(20), 1e-3).params)
    alone = [jax.tree.leaves(initialise(trainer, [seed], 1e-3).params) for seed in range(20)]
    three = jax.tree.leaves(initialise(trainer, [5, 6, 7], 1e-3).params)
    return all(
        all(np.array_equal(leaf[seed], alone[seed][k][0]) for seed in range(20)) and np.array_equal(leaf[5:8], three[k])
        for k, leaf in enumerate(together)
    )


def print_rows(title: str, rows: list[dict]) -> None:
    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(*(f"{value:.2g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console().print(table)


def main() -> None:
    answers = {
        "kernels": compare_kernels(),
        "effective_ranks": compare_effective_ranks(),
        "packings": compare_packings(),
    }
    print_rows("structured kernel in float64: largest relative difference", answers["kernels"])
    print_rows("Γ in float32 against float64, trained networks", answers["effective_ranks"])
    print_rows("ensemble=20 against other packings: largest relative difference", answers["packings"]["rows"])
    print({key: value for key, value in answers["packings"].items() if key != "rows"})
    write_results("exactness", answers)


if __name__ == "__main__":
    main()
