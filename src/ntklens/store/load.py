"""From the files of sweeps to one labelled array per quantity."""

import difflib
import json
import os
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import xarray as xr

from ntklens.errors import InputError
from ntklens.store.combined import COMBINED_NAME, load_combined
from ntklens.store.join import join_sweeps, name_sweeps
from ntklens.store.separate import COORDINATE
from ntklens.store.stack import Source, read_members, stack_members
from ntklens.store.trajectory import FILE_NAME

SEED_PREFIX = "seed="
NO_RESULTS = ("wandb", "logs", "report")  # folders of a sweep without trajectories, some of them large
RESULTS = "multirun"  # where runs write by default: a name alone is looked for there
WORTHWHILE = 400  # files from which on a combined file saves more time than it costs
MUCH = 2**28  # bytes in fewer files from which on it is worth its memory: large variables are read when they are used
NAMED = 3  # unreadable files that a warning names


def load(path: str | Path | Sequence[str | Path], cache: bool = True) -> xr.Dataset:
    """Read every trajectory below a folder into one Dataset.

    Of a large sweep a combined file is kept, `multirun/<name>/combined.nc`, which makes the next load quick; it is made
    anew when a trajectory was added, replaced or removed. Variables along `mode` are then read when they are used.

    Args:
      path: a sweep (`multirun/<name>`), one of its runs, one of a run's seeds, or its file; or several of them.
      cache: whether combined files may be read and written; without them, everything is read into memory.

    Returns:
      Dataset with the dimensions run, seed, record, layer, level and mode. Records, layers and modes that a trajectory
      does not have, and seeds that are missing, are NaN; `state` [run, seed] says done, diverged, missing or
      unreadable. `run` is the run's directory name, and each swept parameter is a coordinate along it under its
      override's name, beside `config` (JSON), `key` and `data_checksum` (SHA-256 of the run's data); of several sweeps
      also `sweep`, and runs of the same name are called `<sweep>/<run>`. Results of one dataset that were computed on
      different data are runs of their own, distinguished by the coordinate `dataset.checksum`. The attributes are JSON:
      `unreadable`, [{path, reason}] of the files that are left out, and `provenance`, {name: every value that it has in
      some file}, and `sweeps`, their names.

    Raises:
      InputError: if there is no trajectory, or none that can be read.
    """
    paths = [Path(path)] if isinstance(path, str | Path) else [Path(each) for each in path]
    sweeps: dict[Path, dict[Path, Source]] = defaultdict(dict)
    for each in paths:
        found = find_trajectories(each)
        if not found:
            raise InputError(_describe_absence(each))
        for folder, source in found:
            sweeps[folder][source.path] = source
    if not sweeps:
        raise InputError("no path of a sweep given")
    whole = {folder for folder in sweeps if any(folder.is_relative_to(each.resolve()) for each in paths)}
    datasets = {
        folder: _load_sweep(folder, list(sources.values()), cache and folder in whole)
        for folder, sources in sweeps.items()
    }
    dataset = next(iter(datasets.values())) if len(datasets) == 1 else join_sweeps(datasets)
    dataset = dataset.assign_attrs(sweeps=json.dumps(name_sweeps(list(datasets))))
    _warn_of_unreadable(paths, dataset)
    _warn_of_different_data(paths, dataset)
    return dataset


def _describe_absence(path: Path) -> str:
    """Say that there is no trajectory, and where one of that name may be."""
    if path.is_dir():
        trouble = f"no {FILE_NAME} below it"
    else:
        below = "" if path.is_absolute() else f" in {Path.cwd()}"
        trouble = f"is no {FILE_NAME}" if path.exists() else f"does not exist{below}"
    found: dict[str, Path] = {}
    for place in (path.parent / RESULTS, path.parent):
        if place.is_dir():
            found |= {entry.name: place / entry.name for entry in place.iterdir() if entry.is_dir()}
    known = [name for name, folder in found.items() if next(_walk(folder), None) is not None]
    close = difflib.get_close_matches(path.name, known, n=1)
    return f"{path}: {trouble}" + (f"; did you mean {found[close[0]]}?" if close else "")


def _load_sweep(folder: Path, sources: list[Source], cache: bool) -> xr.Dataset:
    if cache and (len(sources) >= WORTHWHILE or sum(source.size for source in sources) >= MUCH):
        return load_combined(folder, sources)
    return stack_members(folder, *read_members(sources))


def _warn_of_unreadable(paths: list[Path], dataset: xr.Dataset) -> None:
    unreadable = json.loads(dataset.attrs["unreadable"])
    if not unreadable:
        return
    named = "; ".join("{path}: {reason}".format(**file) for file in unreadable[:NAMED])
    more = f"; and {len(unreadable) - NAMED} more" if len(unreadable) > NAMED else ""
    warnings.warn(
        f"{', '.join(map(str, paths))}: {len(unreadable)} of {int((dataset.state != 'missing').sum())} trajectories "
        f"cannot be read and are left out: {named}{more}",
        stacklevel=3,
    )


def _warn_of_different_data(paths: list[Path], dataset: xr.Dataset) -> None:
    if COORDINATE not in dataset.coords:
        return
    count = len(set(dataset[COORDINATE].values.tolist()))
    warnings.warn(
        f"{', '.join(map(str, paths))}: results of {count} different data under one name (data that changed between "
        f"launches); they are kept apart as runs, distinguished by the coordinate {COORDINATE}",
        stacklevel=3,
    )


def find_trajectories(folder: Path) -> list[tuple[Path, Source]]:
    """Find the published trajectories at or below a folder, and not those that are being written.

    Args:
      folder: of a sweep, a run or a seed; or a file in one of them.

    Returns:
      The sweep's folder and the file of each, sorted.
    """
    folder = folder.resolve()
    if folder.name in (FILE_NAME, COMBINED_NAME) and folder.is_file():
        folder = folder.parent
    seeds = [folder] if folder.name.startswith(SEED_PREFIX) else _walk(folder)
    sources: dict[Path, Source] = {}
    for directory in seeds:
        source = _identify(directory)
        if source is not None:
            sources[source.path] = source
    return [(path.parents[2], source) for path, source in sorted(sources.items())]


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the folders of seeds below a folder; what lies in them, and in hidden ones, is no published result."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith(SEED_PREFIX):
            yield Path(entry.path)
        elif entry.name not in NO_RESULTS and entry.name[0] != "." and entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path))


def _identify(directory: Path) -> Source | None:
    """Return the trajectory in a seed's folder, links resolved; None if there is none."""
    path = directory / FILE_NAME
    try:
        if directory.is_symlink() or path.is_symlink():
            path = path.resolve()
        status = path.stat()
        seed = int(path.parent.name.removeprefix(SEED_PREFIX))
    except (OSError, ValueError):
        return None
    return Source(path.parents[1].name, seed, path, status.st_size, status.st_mtime_ns)
