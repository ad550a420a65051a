"""Kernel regression before and after training.

    python examples/kernel_regression.py

What would the network predict if its kernel never moved? `metrics=[kernel_regression]` solves kernel regression
with Θ at the start and with Θ at the minimum of the test loss. Where the second explains the network and the first
does not, the network has learned its kernel. About 45 s of a processor.
"""

import matplotlib.pyplot as plt
import numpy as np

import ntklens

NAME = "kernel_regression"
widths = [8, 32, 128]
options = {
    "name": NAME,
    "dataset": "digits",
    "dataset.train_size": 100,
    "dataset.probe_size": 32,
    "training.loss": "mse",
    "protocol": "resolved",
    "metrics": ["kernel_regression"],
    "ensemble": 3,
    "tracking": "none",
}

# %%
# One run per width; a run that is finished is only loaded. The error is the mean of (f_c − [c = y])² over test
# samples.

rows = []
for width in widths:
    run = ntklens.train({**options, "model.width": width}, quiet=True).isel(run=0)
    start = run["kernel_regression"].isel(record=0)
    rows.append([values.values for values in (start, run["minimum_kernel_regression"], run["minimum_test_loss"])])
    print(f"width {width}: test errors with Θ_0, with Θ_min, of the network:", np.mean(rows[-1], axis=1).round(4))
rows = np.array(rows)

figure, axis = plt.subplots(figsize=(5, 3.4), layout="constrained")
for column, label in enumerate(("kernel regression with Θ_0", "kernel regression with Θ_min", "the network")):
    values = rows[:, column]
    axis.errorbar(widths, values.mean(axis=1), values.std(axis=1, ddof=1) / 3**0.5, fmt="o-", label=label)
axis.set(xscale="log", xlabel="width", ylabel="test error", ylim=(0, None))
axis.legend()
figure.savefig(f"{NAME}.png", dpi=120)
