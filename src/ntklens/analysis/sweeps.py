"""Sweeps on disk → one study of them."""

import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import xarray as xr

from ntklens.analysis.study import Study, analyse
from ntklens.errors import InputError
from ntklens.store.load import load
from ntklens.sweep.status import SweepStatus


def study_sweeps(results: Path, names: list[str], statuses: list[SweepStatus]) -> Study:
    """Load sweeps and analyse them together.

    Args:
      results: the folder of all sweeps.
      names: of the sweeps.
      statuses: of the sweeps: what was asked for, and what became of it.

    Returns:
      What was found.

    Raises:
      InputError: if nothing can be read.
    """
    folders = [results / name for name in names]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of unreadable files, which the diagnoses name
        try:
            data = load(folders if len(folders) > 1 else folders[0])
        except InputError as error:
            listed = join_counts(sum((Counter(status.count_states()) for status in statuses), Counter[str]()))
            raise InputError(f"name={'+'.join(names)}: nothing to report on yet ({listed}): {error}") from error
    failures = [
        str(unit.details.get("error", "unknown")) for status in statuses for _, unit in status.list_units("failed")
    ]
    study = analyse(data, names, count_states(data, statuses), list(dict.fromkeys(failures)))
    units = ((run.run, unit.seed) for status in statuses for run in status.runs for unit in run.units)
    return replace(study, asked=frozenset(units))


def count_states(data: xr.Dataset, statuses: list[SweepStatus]) -> dict[str, int]:
    """Return state → units that are reported on; `unreadable` if their file is, whatever its status.json says.

    They are what the latest launch of a name asked for, and what earlier launches left in its folder.
    """
    states = data["state"].values
    names = [str(name).rpartition("/")[2] for name in data["run"].values]
    rows, columns = np.nonzero(states == "unreadable")
    unreadable = {(names[row], int(data["seed"].values[column])) for row, column in zip(rows, columns, strict=True)}
    asked = {run.run for status in statuses for run in status.runs}
    counts = Counter(
        "unreadable" if (run.run, unit.seed) in unreadable else unit.state
        for status in statuses
        for run in status.runs
        for unit in run.units
    )
    earlier = [states[row] for row, name in enumerate(names) if name not in asked]
    counts.update(str(state) for row in earlier for state in row if state != "missing")
    return dict(counts)


def join_counts(counts: Counter[str]) -> str:
    """Return counts as one line of text."""
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "nothing was launched"
