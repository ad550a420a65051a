"""The table at the end of a run."""

import json
import math
from collections.abc import Sequence

import numpy as np
import xarray as xr
from rich.table import Table

from ntklens.recording.observables import (
    OBSERVABLES,
    compute_observables,
    find_plateau,
    is_at_last_record,
    is_unresolved,
)
from ntklens.report.sweep_table import describe_minima, format_mean
from ntklens.store.step import describe_choice
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


def describe_step(trajectories: Sequence[xr.Dataset]) -> list[str]:
    """Return how the step of a run was chosen, and where the plateau of its minimum lies; nothing of a step given.

    Args:
      trajectories: the seeds of one run.
    """
    chosen = [one.attrs for one in trajectories if "pilot" in one.attrs]
    if not chosen:
        return []
    lines = [f"step     {chosen[0]['learning_rate']:.4g} ({describe_choice(json.loads(chosen[0]['pilot']))})"]
    done = [one for one in trajectories if one.attrs["state"] == "done"]
    if done:
        first, last = (float(np.median([find_plateau(one, "step")[end] for one in done])) for end in (0, 1))
        lines.append(f"plateau  within 1 % of the minimum from update {first:.0f} to {last:.0f} (medians over seeds)")
    return lines


def describe_run_minima(trajectories: Sequence[xr.Dataset]) -> list[str]:
    """Return what to know of the minima of a run before reading its table.

    Args:
      trajectories: the seeds of one run.
    """
    done = [trajectory for trajectory in trajectories if trajectory.attrs["state"] == "done"]
    last, early = ([bool(test(one) > 0) for one in done] for test in (is_at_last_record, is_unresolved))
    return describe_minima(last, early, ["pilot" in one.attrs for one in done])
