"""The figure of one run."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from ntklens.report.style import BLUE, ORANGE, apply_style, mark_axis
from ntklens.store.files import replacing

PANELS = (
    ("loss", (("train_loss", "train", ORANGE, "--"), ("test_loss", "test", BLUE, "-"))),
    ("Tr Θ", (("trace", None, BLUE, "-"),)),
    ("effective rank Γ", (("effective_rank", None, BLUE, "-"),)),
)
MARGINS = {"left": 0.055, "right": 0.99, "bottom": 0.155, "top": 0.88, "wspace": 0.26}


class RunFigure:
    """Losses, trace and Γ against epoch: the mean over seeds, and ± one standard deviation as a band.

    Axes, ticks and text are made once, and drawn upon again and again: three times faster than a figure for each run.
    """

    def __init__(self) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        with apply_style():
            self.figure = Figure(figsize=(10, 3.1))
            FigureCanvasAgg(self.figure)
            self.title = self.figure.suptitle("", fontsize=10)
            self.panels = self.figure.subplots(1, len(PANELS), gridspec_kw=MARGINS)
            for axes, (label, _) in zip(self.panels, PANELS, strict=True):
                axes.set_xscale("symlog", linthresh=1)
                axes.set_xlabel("epoch")
                axes.set_ylabel(label)
            self.panels[0].set_yscale("log")

    def draw(self, trajectories: Sequence[xr.Dataset], title: str, path: Path) -> None:
        """Draw one run, in place of the one before.

        Diverged seeds are left out, unless all are. Beyond the last record of its shortest seed a mean would be of
        other seeds, so curves end there.

        Args:
          trajectories: the seeds of one run.
          title: stands above the panels.
          path: where to write; the ending chooses the format.
        """
        from matplotlib.transforms import Bbox

        trajectories = [t for t in trajectories if t.attrs["state"] == "done"] or trajectories
        shortest = min(trajectory.sizes["record"] for trajectory in trajectories)
        epoch = trajectories[0].epoch.values[:shortest]
        minimum = float(np.mean([trajectory.minimum_epoch for trajectory in trajectories]))
        with apply_style():
            self.title.set_text(title)
            for axes, (_, curves) in zip(self.panels, PANELS, strict=True):
                for artist in [*axes.lines, *axes.collections]:
                    artist.remove()
                axes.dataLim.set(Bbox.null())
                axes.ignore_existing_data_limits = True
                axes.autoscale(True)
                for name, legend, colour, style in curves:
                    values = np.stack([trajectory[name].values[:shortest] for trajectory in trajectories])
                    measured = np.isfinite(values).all(axis=0)
                    shown = values[:, measured].astype(float)
                    mean, spread = shown.mean(axis=0), shown.std(axis=0)
                    axes.plot(
                        epoch[measured], mean, style, color=colour, label=legend, linewidth=1.5, markersize=3,
                        marker="o" if measured.sum() < len(measured) else None,
                    )  # fmt: skip
                    if len(trajectories) > 1:
                        axes.fill_between(
                            epoch[measured], mean - spread, mean + spread, color=colour, alpha=0.2, linewidth=0
                        )
                axes.axvline(minimum, color="0.5", linewidth=0.8, linestyle=":", label="minimum of the test loss")
                axes.set_xlim(left=0)
            self.panels[0].legend()
            losses = np.concatenate([line.get_ydata() for line in self.panels[0].lines[:2]])
            mark_axis(self.panels[0].yaxis, losses, PANELS[0][0])
            with replacing(path) as temporary:
                self.figure.savefig(temporary, dpi=150, format=path.suffix[1:])


def draw_run(trajectories: Sequence[xr.Dataset], title: str, path: Path) -> None:
    """Draw the figure of one run, as `RunFigure` does."""
    RunFigure().draw(trajectories, title, path)
