"""Does the crossover of β over widths move with the padding of the inputs, as the affine law of Tr Θ_0 says?

Inputs of d numbers are padded to d' and multiplied by √(d'/d) (`dataset.input_dim`); the first layer is the unpadded
network's divided by √(d'/d), so that both start as the same function. Adam trains until the selection loss has passed
its minimum, with one step for all d'. Tr Θ_0 / (N C) stands beside the law, and the crossover n* of
β = β_0 / (1 + width / n*) beside the law's, d' / (depth): what differs is the trend of ΔTr.

    NTKLENS_DATA=… python benchmarks/padding.py [largest width]
"""

import os
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console
from rich.table import Table
from scipy.optimize import curve_fit
from timing import write_results
from trace_law import predict_trace

from ntklens.data import Dataset, digits, mnist
from ntklens.models.mlp import MLP
from ntklens.recording.measure import Measurer, measure_records, put_on_device
from ntklens.training.ensemble import Trainer, initialise, run_states
from ntklens.training.losses import cross_entropy
from ntklens.training.schedule import make_geometric_steps

DEPTH, SEEDS, UPDATES, FACTORS = 2, 2, 120, (1, 2, 4)


def load(factor: int) -> Dataset:
    source: Any = mnist if "NTKLENS_DATA" in os.environ else digits
    dim = factor * (784 if source is mnist else 64)
    return source.load(train_size=100, test_size=600, input_dim=dim)


def copy_first_layer(params: Any, plain: Any, factor: int) -> Any:
    """Return padded parameters whose first layer acts as the plain one, and whose others are the plain ones."""
    rows = plain["params"]["hidden_0"]["kernel"].shape[1]
    kernel = (
        params["params"]["hidden_0"]["kernel"]
        .at[:, :rows]
        .set(plain["params"]["hidden_0"]["kernel"] / np.float32(factor**0.5))
    )
    return {"params": plain["params"] | {"hidden_0": plain["params"]["hidden_0"] | {"kernel": kernel}}}


def run(width: int, factor: int, plain: Any) -> tuple[dict[str, float], Any, np.ndarray]:
    """Train, and return what came of it, the parameters at the start, and their logits on the probe."""
    data = load(factor)
    model = MLP(width, DEPTH, data.classes)
    sample = jnp.asarray(data.probe.inputs[:1])
    trainer = Trainer(lambda key: model.init(key, sample), model.apply, cross_entropy, optax.adam)
    state = initialise(trainer, range(SEEDS), 4 * 3.4e-3 * width ** (-2 / 3))
    if plain is not None:
        state = state._replace(params=copy_first_layer(state.params, plain, factor))
    start = state.params
    state = state._replace(params=jax.tree.map(jnp.copy, start))  # training overwrites its own
    logits = np.asarray(jax.vmap(trainer.apply, (0, None))(start, jnp.asarray(data.probe.inputs)))
    measurer, device = Measurer.of(trainer, "structured", ()), put_on_device(data)
    rows = [
        {
            name: np.asarray(value)
            for name, value in measure_records(now.params, start, device, measurer=measurer).items()
        }
        for now in run_states(trainer, state, data.train, make_geometric_steps(UPDATES, 1.15))
    ]
    loss, trace = (np.array([row[name] for row in rows]) for name in ("selection_loss", "trace"))
    lowest = np.argmin(loss, axis=0)
    size = len(data.probe) * data.classes
    first, change = trace[0], trace[lowest, np.arange(SEEDS)] - trace[0]
    inputs = data.probe.inputs.reshape(len(data.probe), -1)
    found = {
        "width": width,
        "dim": inputs.shape[1],
        "minimum": float(np.mean(make_geometric_steps(UPDATES, 1.15)[lowest])),
        "trace": float(np.mean(first)) / size,
        "law": predict_trace(width, DEPTH + 1, inputs.shape[1], float(np.mean(np.sum(inputs**2, axis=1)))),
        "trace_change": float(np.mean(change)) / size,
        "beta": float(np.mean(change / first)),
    }
    return found, start, logits


def fit_crossover(widths: list[int], beta: list[float]) -> float:
    """Return n* of β = β_0 / (1 + width / n*), fitted to ln β."""

    def law(width: np.ndarray, log_beta: float, log_scale: float) -> np.ndarray:
        return log_beta - np.log1p(width / np.exp(log_scale))

    (_, log_scale), _ = curve_fit(law, np.array(widths, float), np.log(beta), p0=(np.log(max(beta)), np.log(500.0)))
    return float(np.exp(log_scale))


def main() -> None:
    largest = int(sys.argv[1]) if len(sys.argv) > 1 else 1024
    widths = [width for width in (64, 128, 256, 512, 1024, 2048, 4096) if width <= largest]
    plain: dict[int, tuple[Any, np.ndarray]] = {}  # width → parameters and logits of the unpadded networks
    rows, scales = [], {}
    for factor in FACTORS:
        for width in widths:
            found, start, logits = run(width, factor, plain.get(width, (None,))[0])
            _, reference = plain.setdefault(width, (start, logits))
            rows.append({**found, "logits_off": float(np.abs(logits - reference).max() / np.abs(reference).max())})
        own = rows[-len(widths) :]
        scales[own[0]["dim"]] = fit_crossover(widths, [row["beta"] for row in own])
    table = Table(
        "d'", "width", "f_0 off by", "Tr Θ_0 / (N C)", "law", "ΔTr / (N C)", "β", "minimum at", title="padding"
    )
    for row in rows:
        table.add_row(
            str(row["dim"]), str(row["width"]), f"{row['logits_off']:.1e}", f"{row['trace']:.1f}", f"{row['law']:.1f}",
            f"{row['trace_change']:.0f}", f"{row['beta']:.2f}", f"{row['minimum']:.0f}",
        )  # fmt: skip
    console = Console()
    console.print(table)
    for dim, scale in scales.items():
        grown = float(np.mean([row["trace_change"] for row in rows if row["dim"] == dim])) / float(
            np.mean([row["trace_change"] for row in rows if row["dim"] == rows[0]["dim"]])
        )
        console.print(
            f"d' = {dim}: crossover of β at width {scale:.0f}, × {scale / scales[rows[0]['dim']]:.2f}; law d'/{DEPTH}: "
            f"{dim / DEPTH:.0f}, × {dim / rows[0]['dim']:.2f}; mean ΔTr × {grown:.2f}"
        )
    write_results(
        "padding", {"seeds": SEEDS, "rows": rows, "crossover": {str(dim): one for dim, one in scales.items()}}
    )


if __name__ == "__main__":
    main()
