"""The figure of one run."""

import secrets
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from ntklens.report.style import BLUE, ORANGE, apply_style

PANELS = (
    ("loss", (("train_loss", "train", ORANGE, "--"), ("test_loss", "test", BLUE, "-"))),
    ("Tr Θ", (("trace", None, BLUE, "-"),)),
    ("effective rank Γ", (("effective_rank", None, BLUE, "-"),)),
)


def draw_run(trajectories: Sequence[xr.Dataset], title: str, path: Path) -> None:
    """Draw losses, trace and Γ against epoch: the mean over seeds, and ± one standard deviation as a band.

    Diverged seeds are left out, unless all are. Beyond the last record of its shortest seed a mean would be of other
    seeds, so curves end there.

    Args:
      trajectories: the seeds of one run.
      title: stands above the panels.
      path: where to write; the ending chooses the format.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    trajectories = [t for t in trajectories if t.attrs["state"] == "done"] or trajectories
    shortest = min(trajectory.sizes["record"] for trajectory in trajectories)
    epoch = trajectories[0].epoch.values[:shortest]
    with apply_style():
        figure = Figure(figsize=(10, 3.1), layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(title, fontsize=10)
        minimum = float(np.mean([trajectory.minimum_epoch for trajectory in trajectories]))
        for axes, (label, curves) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
            for name, legend, colour, style in curves:
                values = np.stack([trajectory[name].values[:shortest] for trajectory in trajectories])
                measured = np.isfinite(values).all(axis=0)
                mean, spread = values[:, measured].mean(axis=0), values[:, measured].std(axis=0)
                marker = "o" if measured.sum() < len(measured) else None
                axes.plot(
                    epoch[measured], mean, style, color=colour, label=legend, marker=marker, markersize=3, linewidth=1.5
                )
                axes.fill_between(epoch[measured], mean - spread, mean + spread, color=colour, alpha=0.2, linewidth=0)
            axes.axvline(minimum, color="0.5", linewidth=0.8, linestyle=":", label="minimum of the test loss")
            axes.set_xscale("symlog", linthresh=1)
            axes.set_xlim(left=0)
            axes.set_xlabel("epoch")
            axes.set_ylabel(label)
        figure.axes[0].set_yscale("log")
        figure.axes[0].legend()
        temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
        try:
            figure.savefig(temporary, dpi=150, format=path.suffix[1:])
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
