"""µP against the standard parameterisation.

    python examples/mup_against_standard.py

Does β, by how much the kernel grows, fall with the width because wide networks learn lazily, or because the
standard parameterisation makes Tr Θ_0 grow with the width? Under `mup` Tr Θ_0 stays, and features learn alike at
every width. Both are one network at width 128. About 80 s of a processor.
"""

import matplotlib.pyplot as plt
import numpy as np

import ntklens
from ntklens.run import main

NAME = "mup_against_standard"
status = main(
    f"-m name={NAME} dataset=digits dataset.train_size=100 dataset.probe_size=16 model.width=32,128,256 "
    "model.parameterization=standard,mup protocol=resolved ensemble=2 tracking=none".split()
)
assert status == 0

# %%
# Observables are [run, seed]; each run carries the values of what was swept as coordinates.

data = ntklens.load(f"multirun/{NAME}")
observables = ntklens.measure_observables(data)

figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
for name in ("standard", "mup"):
    rows = np.flatnonzero(data["model.parameterization"] == name)
    rows = rows[np.argsort(data["model.width"].values[rows])]
    width = data["model.width"].values[rows]
    for axis, quantity in zip(axes, ("initial_trace", "trace_ratio"), strict=True):
        own = observables[quantity].isel(run=rows)
        axis.errorbar(width, own.mean("seed"), own.std("seed", ddof=1) / 2**0.5, fmt="o-", label=name)
    ratio = observables["trace_ratio"].isel(run=rows).mean("seed")
    print(name, "β at widths", width.tolist(), ratio.values.round(1).tolist())
for axis, label in zip(axes, ("Tr Θ_0", "β"), strict=True):
    axis.set(xscale="log", yscale="log", xlabel="width", ylabel=label)
    axis.set_xticks([32, 128, 256], labels=["32", "128", "256"])
    axis.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
axes[0].legend()
figure.savefig(f"{NAME}.png", dpi=120)
