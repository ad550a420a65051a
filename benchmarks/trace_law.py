"""Does Tr Θ_0 follow the affine law in the width?

For L weight layers of hidden width n, LeCun normal weights, ReLU, zero biases and input dimension d, with X = mean |x|²
over the probe, and up to O(1/n),

    Tr Θ_0 / (N C) = 2^{−(L−1)} [X (1 + (L−1) n/d) + 1] + 2 − 2^{−(L−2)}.

The table compares it with the mean over seeds of the measured trace, on MNIST's probe (or on synthetic inputs of its
shape, without NTKLENS_DATA).

    NTKLENS_DATA=… python benchmarks/trace_law.py
"""

import os

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table
from timing import write_results

import ntklens
from ntklens.data import mnist, synthetic
from ntklens.models.mlp import MLP

WIDTHS, DEPTHS, SEEDS = (128, 256, 512, 1024, 2048), (2, 3), 20


def predict_trace(width: int, layers: int, dim: int, square: float) -> float:
    """Tr Θ_0 / (N C)."""
    first = 2.0 ** -(layers - 1) * (square * (1 + (layers - 1) * width / dim) + 1)
    return first + 2 - 2.0 ** -(layers - 2)


def main() -> None:
    data = mnist.load() if "NTKLENS_DATA" in os.environ else synthetic.load(input_dim=784)
    probe = jnp.asarray(data.probe.inputs)
    dim, square = int(np.prod(probe.shape[1:])), float(jnp.mean(jnp.sum(probe.reshape(len(probe), -1) ** 2, axis=1)))
    rows = []
    for depth in DEPTHS:
        for width in WIDTHS:
            model = MLP(width, depth, data.classes)
            draw = jax.jit(lambda seed, model=model: model.init(jax.random.key(seed), probe[:1]))
            traces = [
                float(sum(ntklens.layer_traces(model, draw(seed), probe).values())) / (len(probe) * data.classes)
                for seed in range(SEEDS)
            ]
            law = predict_trace(width, depth + 1, dim, square)
            mean, error = float(np.mean(traces)), float(np.std(traces, ddof=1) / SEEDS**0.5)
            rows.append(
                {
                    "depth": depth,
                    "width": width,
                    "measured": mean,
                    "error": error,
                    "law": law,
                    "deviation": mean / law - 1,
                    "deviation_error": error / law,
                }
            )
    table = Table("depth", "width", "Tr Θ_0 / (N C)", "law", "relative deviation", title=f"{data.name}, {SEEDS} seeds")
    for row in rows:
        table.add_row(
            str(row["depth"]),
            str(row["width"]),
            f"{row['measured']:.2f} ± {row['error']:.2f}",
            f"{row['law']:.2f}",
            f"{100 * row['deviation']:+.1f} ± {100 * row['deviation_error']:.1f} %",
        )
    Console().print(table)
    write_results("trace_law", {"data": data.name, "seeds": SEEDS, "rows": rows})


if __name__ == "__main__":
    main()
