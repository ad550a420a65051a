"""The pictures of docs/concepts.md, from one sweep on digits: three parameterisations × six widths × three seeds.

`python docs/figures/concepts.py` takes some minutes on two cores; what is finished in multirun/concepts is kept.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import ntklens
from ntklens.run import main

FOLDER = Path(__file__).parent
NAME = "concepts"
LINE = (
    f"-m name={NAME} dataset=digits protocol=resolved model.parameterization=standard,ntk,mup "
    "model.width=16,32,64,128,256,512 ensemble=3 keep=[kernel] metrics=[kernel_distance] tracking=none"
)
ARMS = {"standard": "C0", "ntk": "C1", "mup": "C2"}


def draw_kernel(data, seed_folder):
    """Θ averaged over outputs, samples ordered by class, before training and at the minimum."""
    dataset_order = np.argsort(load_probe_labels(), kind="stable")
    snapshots = ntklens.load_snapshots(seed_folder)
    figure, axes = plt.subplots(1, 2, figsize=(7, 3.4), layout="constrained")
    for axis, (name, title) in zip(axes, (("start", "before training"), ("minimum", "at the minimum")), strict=True):
        kernel = np.einsum("icjc->ij", snapshots[name].kernel) / snapshots[name].kernel.shape[1]
        image = axis.imshow(kernel[np.ix_(dataset_order, dataset_order)], cmap="viridis")
        axis.set(title=title, xticks=[], yticks=[], xlabel="probe inputs, ordered by digit")
        figure.colorbar(image, ax=axis, shrink=0.8)
    return figure


def load_probe_labels():
    """Return the labels of the probe of dataset=digits, as the sweep takes it."""
    from ntklens.data.digits import load

    return load().probe.labels


def draw_trace(run):
    """Each layer's share of Tr Θ against the updates."""
    figure, axis = plt.subplots(figsize=(5.6, 3.4), layout="constrained")
    step, layers = run["step"].values, run["trace_layer"]
    axis.plot(step, run["trace"], color="black", label="Tr Θ")
    for layer in run["layer"].values:
        axis.plot(step, layers.sel(layer=layer), label=str(layer))
    axis.axvline(run["minimum_step"], color="grey", linestyle=":", label="minimum of the test loss")
    axis.set(xscale="symlog", xlabel="updates", ylabel="share of Tr Θ", ylim=(0, None), xlim=(0, None))
    axis.legend()
    return figure


def draw_rank(run):
    """The normalised eigenvalues before training and at the minimum, with Γ."""
    figure, axis = plt.subplots(figsize=(5.6, 3.4), layout="constrained")
    moments = {
        "before training": (run["eigenvalues"].isel(record=0), run["effective_rank"].isel(record=0)),
        "at the minimum": (run["minimum_eigenvalues"], run["minimum_effective_rank"]),
    }
    for number, (name, (values, rank)) in enumerate(moments.items()):
        shares = np.clip(values.values, 0, None) / np.clip(values.values, 0, None).sum()
        axis.loglog(1 + np.arange(shares.size), shares, color=f"C{number}", label=f"{name}: Γ = {float(rank):.0f}")
        axis.axvline(float(rank), color=f"C{number}", linestyle=":")
    axis.set(xlabel="k", ylabel="p_k = λ_k / Σ λ", ylim=(1e-6, 1))
    axis.legend()
    return figure


def draw_rate(data):
    """Tr Θ relative to its start against ln L_train, with the straight line whose slope is χ."""
    figure, axis = plt.subplots(figsize=(5.6, 3.4), layout="constrained")
    observables = ntklens.measure_observables(data)
    for number, width in enumerate((16, 64, 512)):
        (row,) = np.flatnonzero((data["model.width"] == width) & (data["model.parameterization"] == "standard"))
        run, values = data.isel(run=row, seed=0), observables.isel(run=row, seed=0)
        until = run["step"].values <= float(run["minimum_step"])
        loss, trace = np.log(run["train_loss"].values[until]), run["trace"].values[until]
        axis.plot(loss, trace / trace[0], "o", markersize=3, color=f"C{number}", label=f"width {width}")
        slope = float(values["adaptation_rate"]) / trace[0]
        axis.plot(loss, trace.mean() / trace[0] + slope * (loss - loss.mean()), color=f"C{number}", linewidth=1)
    axis.set(xlabel="ln L_train", ylabel="Tr Θ / Tr Θ_0")
    axis.invert_xaxis()
    axis.legend()
    return figure


def draw_over_width(data, values, label, **options):
    """Means over seeds, with standard errors, against the width for each parameterisation."""
    figure, axis = plt.subplots(figsize=(5.6, 3.4), layout="constrained")
    for arm, color in ARMS.items():
        rows = np.flatnonzero(data["model.parameterization"] == arm)
        rows = rows[np.argsort(data["model.width"].values[rows])]
        own = values.isel(run=rows)
        error = own.std("seed", ddof=1) / own.sizes["seed"] ** 0.5
        axis.errorbar(data["model.width"].values[rows], own.mean("seed"), error, fmt="o-", color=color, label=arm)
    axis.set(xscale="log", xlabel="width", ylabel=label, **options)
    axis.set_xticks([16, 32, 64, 128, 256, 512], labels=["16", "32", "64", "128", "256", "512"])
    axis.minorticks_off()
    axis.legend()
    return figure


def draw_all():
    """Train what is not finished, and write the pictures."""
    status = main(LINE.split())
    if status:
        raise SystemExit(status)
    data = ntklens.load(f"multirun/{NAME}")
    observables = ntklens.measure_observables(data)
    chosen = (data["model.width"] == 64) & (data["model.parameterization"] == "standard")
    (row,) = np.flatnonzero(chosen)
    run = data.isel(run=row, seed=0)
    folder = Path("multirun") / NAME / str(run["run"].values) / f"seed={int(run['seed'])}"
    figures = {
        "kernel": draw_kernel(data, folder),
        "trace": draw_trace(run),
        "rank": draw_rank(run),
        "chi": draw_rate(data),
        "beta": draw_over_width(data, observables["trace_ratio"], "β = (Tr Θ_min − Tr Θ_0) / Tr Θ_0", yscale="log"),
        "lazy": draw_over_width(data, data["minimum_kernel_distance"], "1 − cos(Θ_min, Θ_0)", ylim=(0, None)),
    }
    for name, figure in figures.items():
        figure.savefig(FOLDER / f"concept_{name}.png", dpi=120)


if __name__ == "__main__":
    draw_all()
