"""The table at the end of a run."""

import math
from collections.abc import Sequence

import xarray as xr
from rich.table import Table

from ntklens.recording.observables import OBSERVABLES, compute_observables, is_at_last_record, is_unresolved
from ntklens.report.sweep_table import describe_minima, format_mean
from ntklens.words import count


def build_summary_table(trajectories: Sequence[xr.Dataset]) -> Table:
    """Return mean ± s.e.m. over the seeds that are done; diverged seeds do not enter.

    Args:
      trajectories: the seeds of one run.
    """
    done = [compute_observables(trajectory) for trajectory in trajectories if trajectory.attrs["state"] == "done"]
    table = Table(title=f"mean ± s.e.m. over {count(len(done), 'seed')}", title_justify="left")
    table.add_column("", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("meaning", style="dim")
    for name, one in OBSERVABLES.items():
        if not one.main:
            continue
        values = [observables[name] for observables in done if math.isfinite(observables[name])]
        fewer = f"{len(values)} of {len(done)} seeds" if len(values) < len(done) else ""
        table.add_row(one.symbol, format_mean(values), ", ".join(filter(None, (one.description, fewer))))
    return table


def describe_run_minima(trajectories: Sequence[xr.Dataset]) -> list[str]:
    """Return what to know of the minima of a run before reading its table.

    Args:
      trajectories: the seeds of one run.
    """
    done = [trajectory for trajectory in trajectories if trajectory.attrs["state"] == "done"]
    last, early = ([bool(test(one) > 0) for one in done] for test in (is_at_last_record, is_unresolved))
    return describe_minima(last, early)
