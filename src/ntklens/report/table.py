"""The table at the end of a run."""

import math
from collections.abc import Sequence

import numpy as np
import xarray as xr
from rich.table import Table

from ntklens.analysis.observables import compute_observables

ROWS = {
    "minimum_loss": ("L_min", "test loss at the minimum"),
    "minimum_step": ("update of the minimum", ""),
    "minimum_accuracy": ("accuracy at the minimum", "test"),
    "initial_trace": ("Tr Θ_0", "trace before training"),
    "minimum_trace": ("Tr Θ_min", "trace at the minimum"),
    "trace_ratio": ("β", "(Tr Θ_min − Tr Θ_0) / Tr Θ_0"),
    "adaptation_rate": ("χ", "δ Tr Θ / δ ln L_train"),
    "adaptation_rate_r2": ("R² of χ", "below 0.95: no single χ exists"),
    "initial_effective_rank": ("Γ_0", "effective rank before training"),
    "minimum_effective_rank": ("Γ_min", "effective rank at the minimum"),
}


def build_summary_table(trajectories: Sequence[xr.Dataset]) -> Table:
    """Return mean ± s.e.m. over the seeds that are done; diverged seeds do not enter.

    Args:
      trajectories: the seeds of one run.
    """
    done = [compute_observables(trajectory) for trajectory in trajectories if trajectory.attrs["state"] == "done"]
    table = Table(title=f"mean ± s.e.m. over {len(done)} seed{'s' if len(done) != 1 else ''}", title_justify="left")
    table.add_column("")
    table.add_column("value", justify="right")
    table.add_column("meaning", style="dim")
    for name, (symbol, meaning) in ROWS.items():
        values = [observables[name] for observables in done if math.isfinite(observables[name])]
        fewer = f"{len(values)} of {len(done)} seeds" if len(values) < len(done) else ""
        table.add_row(symbol, format_mean(values), ", ".join(filter(None, (meaning, fewer))))
    return table


def format_mean(values: Sequence[float]) -> str:
    """Return `mean ± s.e.m.` with two digits of the error; no error for one value, – for none."""
    if not values:
        return "–"
    mean = float(np.mean(values))
    if len(values) == 1:
        return f"{mean:.5g}"
    error = float(np.std(values, ddof=1) / math.sqrt(len(values)))
    if error == 0:
        return f"{mean:.5g} ± 0"
    decimals = max(0, 1 - math.floor(math.log10(error)))
    return f"{mean:,.{decimals}f} ± {error:.{decimals}f}"
