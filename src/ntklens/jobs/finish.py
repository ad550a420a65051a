"""What follows the publication of a trajectory: its status.json tells of it, and what the seed needed is removed."""

import contextlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from ntklens.recording.observables import compute_observables, is_at_last_record
from ntklens.store.checkpoint import remove_checkpoints
from ntklens.store.layout import find_seed_directory
from ntklens.store.same_data import identify_attributes
from ntklens.store.trajectory import FILE_NAME, UnreadableTrajectory, read_trajectory
from ntklens.store.units import FINISHED, REPLACED_NAME, Unit, read_status, set_aside, write_finished


def finish_seed(directory: Path, trajectory: xr.Dataset) -> None:
    """Make a seed's status.json tell of its published trajectory, and remove what it needs no more."""
    attrs = trajectory.attrs
    observables = {
        name: value if math.isfinite(value) else None for name, value in compute_observables(trajectory).items()
    }
    write_finished(
        directory,
        attrs["state"],
        seed=attrs["seed"],
        key=attrs["run_key"],
        seconds=attrs["seconds"],
        packed=len(json.loads(attrs["packed_seeds"])),
        constant_output=bool(attrs["constant_output"]),
        at_last_record=bool(is_at_last_record(trajectory) > 0),
        observables=observables,
        **describe_data(attrs),
    )
    remove_checkpoints(directory)
    (directory / REPLACED_NAME).unlink(missing_ok=True)


def describe_data(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what status.json says of the data that a trajectory was computed on."""
    data = identify_attributes(attrs)
    return {} if data is None else {"data": data._asdict()}


def finish_late(run: Path, units: Iterable[Unit]) -> bool:
    """Finish the published seeds whose process was killed before it could; return whether there were any.

    Args:
      run: the run's directory.
      units: with their states.

    Returns:
      Whether there were any.
    """
    late = [unit for unit in units if unit.state in FINISHED and "observables" not in unit.details]
    for unit in late:
        directory = find_seed_directory(run, unit.seed)
        try:
            finish_seed(directory, read_trajectory(directory / FILE_NAME))
        except (UnreadableTrajectory, OSError):  # reported where its numbers are needed
            continue
    return bool(late)


def read_published(run: Path, seeds: Sequence[int]) -> tuple[list[xr.Dataset], list[str]]:
    """Read the seeds' trajectories, make their status.json tell of them, and set aside what turns out to be damaged."""
    trajectories, damaged = [], []
    for seed in seeds:
        directory = find_seed_directory(run, seed)
        try:
            trajectories.append(read_trajectory(directory / FILE_NAME))
        except UnreadableTrajectory:
            damaged.append(str(set_aside(directory)))
            continue
        # Of a copy that lost the race to publish, or was killed after it.
        if read_status(directory).get("state") != trajectories[-1].attrs["state"]:
            with contextlib.suppress(OSError):  # results that cannot be written are results
                finish_seed(directory, trajectories[-1])
    return trajectories, damaged
