"""A sweep in one file, `combined.nc`, kept beside its trajectories so that they need not be read again.

Plain NetCDF4. Variables along `mode` lie in it one spectrum a chunk, measured ones alone, and are read when they are
used; all others are small and in memory.
"""

import contextlib
import functools
import hashlib
import io
import json
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ntklens.config.identity import SCHEMA_VERSION
from ntklens.errors import InputError
from ntklens.store.files import LEFTOVER_SECONDS
from ntklens.store.stack import (
    LARGE,
    Failure,
    Source,
    describe_failure,
    locate,
    locate_layers,
    read_members,
    stack_members,
)
from ntklens.store.stream import Stream
from ntklens.store.trajectory import Stored, read_variables

COMBINED_NAME = "combined.nc"
TEMPORARY_PREFIX = ".combined-"
LAYOUT = 5  # raise it whenever the same trajectories would give another file


class Written(NamedTuple):
    """A combined file that is open, and the trajectories that turned out to be damaged while it was written."""

    stream: io.IOBase
    damaged: dict[Source, Failure]


def load_combined(folder: Path, sources: Sequence[Source]) -> xr.Dataset:
    """Return the Dataset of a sweep from its combined file, which is made where there is none of these trajectories.

    Args:
      folder: the sweep's; where it cannot be written, the combined file lies in memory.
      sources: all its trajectories.

    Returns:
      As `stack_members` returns it; variables along `mode` will be read when they are used.

    Raises:
      InputError: if no trajectory can be read.
    """
    key = compute_key(folder, sources)
    dataset = read_combined(folder / COMBINED_NAME, key)
    return combine(folder, sources, key) if dataset is None else dataset


def compute_key(folder: Path, sources: Sequence[Source]) -> str:
    """Return what changes when a trajectory is added, replaced or removed."""
    files = sorted((os.path.relpath(source.path, folder), source.size, source.modified) for source in sources)
    return hashlib.sha256(json.dumps([LAYOUT, SCHEMA_VERSION, files]).encode()).hexdigest()


def read_combined(path: Path, key: str) -> xr.Dataset | None:
    """Return what a combined file holds; None if there is none, one of other trajectories, or a damaged one."""
    try:
        return _open_combined(Stream(path), key)
    except Exception:  # damage makes HDF5 and xarray raise anything, and whatever it is, the file can be made again
        return None


def _open_combined(stream: io.IOBase, key: str) -> xr.Dataset | None:
    stream.seek(0)
    file = xr.open_dataset(stream, engine="h5netcdf", mask_and_scale=False, decode_times=False)  # type: ignore[arg-type]
    if file.attrs["key"] != key:
        return None
    contents = json.loads(file["contents"].item())
    variables = {name: file[name].variable for name in (*contents["data"], *contents["coords"])}
    for name, variable in variables.items():
        variable.encoding = {}
        if LARGE in variable.dims:
            del variable.attrs["_FillValue"]
        else:
            variables[name] = variable.load().astype(object if name == "config" else variable.dtype, copy=False)
    coords = {name: variables.pop(name) for name in contents["coords"]}
    return xr.Dataset(variables, coords, contents["attrs"])


def combine(folder: Path, sources: Sequence[Source], key: str) -> xr.Dataset:
    """Read the trajectories of a sweep, write its combined file, and return what it holds.

    The trajectories are read twice, first all but the large variables, and then these one file after another: so no
    more than one file's are in memory. The file is written where it stays, or else in memory.

    Returns:
        The sweep's Dataset.
    """
    failures: dict[Source, Failure] = {}
    while True:
        left_out = {failure.path for failure in failures}  # a source's run may have another name now
        members, failed = read_members((source for source in sources if source.path not in left_out), leave=LARGE)
        failures |= failed
        dataset = stack_members(folder, members, failures, leave=LARGE)
        layers = {source: member.layers for source, member in members.items()}
        del members
        write = functools.partial(_write, dataset, layers, key)
        lasting = not any(failure.passing for failure in failures.values())
        written = (_write_beside(folder, write) if lasting else None) or _write_to_memory(write)
        if not written.damaged:
            combined = _open_combined(written.stream, key)
            assert combined is not None  # its key is this one
            return combined
        failures |= written.damaged


def _write_beside(folder: Path, write: Callable[[io.IOBase], dict[Source, Failure]]) -> Written | None:
    """Write the combined file under another name and rename it; None if the folder or the disk does not take it."""
    temporary = folder / f"{TEMPORARY_PREFIX}{secrets.token_hex(4)}.nc"
    try:
        _remove_leftovers(folder)
        stream = Stream(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            damaged = write(stream)
        finally:
            if stream.error is not None:  # then what HDF5 says is only a consequence
                raise stream.error
        if not damaged:
            os.fsync(stream.fileno())
            temporary.replace(folder / COMBINED_NAME)
        return Written(stream, damaged)
    except OSError:
        return None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _write_to_memory(write: Callable[[io.IOBase], dict[Source, Failure]]) -> Written:
    stream = io.BytesIO()
    return Written(stream, write(stream))


def _remove_leftovers(folder: Path) -> None:
    for path in folder.glob(f"{TEMPORARY_PREFIX}*.nc"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > LEFTOVER_SECONDS:
                path.unlink()


def _write(
    dataset: xr.Dataset, layers: Mapping[Source, list[str]], key: str, stream: io.IOBase
) -> dict[Source, Failure]:
    """Write the combined file.

    Args:
      dataset: everything but the values of the large variables.
      layers: the trajectories to read these from, with their layers.
      key: tells what the file was made from.
      stream: where to.

    Returns:
      The trajectories that could not be read, and why.
    """
    import h5netcdf  # type: ignore[import-untyped]
    import h5py

    large = [str(name) for name, variable in dataset.data_vars.items() if LARGE in variable.dims]
    stream.write(_encode_small(dataset, large, key))
    with h5netcdf.File(stream, "r+") as file:
        for name in large:
            _create_large(file, name, dataset[name].variable)
    with h5py.File(stream, "r+") as file:
        return _copy_large({name: file[name] for name in large}, dataset, layers, stream)


def _encode_small(dataset: xr.Dataset, large: list[str], key: str) -> memoryview:
    """Return a NetCDF file of all but the large variables; made in memory, because HDF5 cannot bear a full disk."""
    contents = {"data": list(dataset.data_vars), "coords": list(dataset.coords), "attrs": dataset.attrs}
    small = dataset.drop_vars(large).assign(contents=json.dumps(contents))  # an attribute would have to be short
    small.attrs = {"key": key}
    encoding: dict[Any, dict[str, Any]] = {
        name: {"_FillValue": None, **({"fletcher32": True} if variable.ndim and name not in dataset.coords else {})}
        for name, variable in small.variables.items()
        if variable.dtype.kind == "f"
    }
    buffer = io.BytesIO()
    small.to_netcdf(buffer, engine="h5netcdf", encoding=encoding)
    return buffer.getbuffer()


def _create_large(file: Any, name: str, variable: xr.Variable) -> None:
    """Make room that takes none until it is filled: one chunk for what is measured at once."""
    for dim, size in variable.sizes.items():
        if dim not in file.dimensions:
            file.dimensions[dim] = size
    first = variable.dims.index(LARGE)
    chunks = (*[1] * first, *variable.shape[first:])
    nothing = variable.dtype.type(np.nan)
    node = file.create_variable(name, variable.dims, variable.dtype, chunks=chunks, fillvalue=nothing, fletcher32=True)
    node.attrs.update(variable.attrs)


def _copy_large(
    targets: Mapping[str, Any], dataset: xr.Dataset, layers: Mapping[Source, list[str]], stream: io.IOBase
) -> dict[Source, Failure]:
    rows = {run: row for row, run in enumerate(dataset.run.values)}
    columns = {seed: column for column, seed in enumerate(dataset.seed.values)}
    names = list(dataset.layer.values)
    damaged: dict[Source, Failure] = {}
    for source, own in layers.items():
        if getattr(stream, "error", None):
            break
        try:
            stored = read_variables(source.path, targets)
        except InputError as error:
            damaged[source] = describe_failure(source, error)
            continue
        if not all(_fits(variable, dict(dataset.sizes) | {"layer": len(own)}) for variable in stored.values()):
            damaged[source] = Failure("changed while it was read", passing=True)
            continue
        for name, variable in stored.items():
            _copy_measured(targets[name], (rows[source.run], columns[source.seed]), variable, locate_layers(own, names))
    return damaged


def _fits(variable: Stored, sizes: Mapping[Any, int]) -> bool:
    return all(size <= sizes[dim] for dim, size in zip(variable.dims, variable.values.shape, strict=True))


def _copy_measured(target: Any, place: tuple[int, int], variable: Stored, layers: slice | np.ndarray) -> None:
    """Write those parts of a variable that are not NaN, by HDF5's own calls: there are many."""
    import h5py

    first = variable.dims.index(LARGE)
    extent = variable.values.shape[first:]
    measured = ~np.isnan(variable.values).all(axis=tuple(range(first, variable.values.ndim)))
    own = locate(variable.dims, variable.values.shape, layers)[:first]
    where = [np.arange(size)[part] for size, part in zip(target.shape[2:], own, strict=False)]
    part, selection = h5py.h5s.create_simple(extent), target.id.get_space()
    for index in zip(*np.nonzero(measured), strict=True) if first else [()]:
        leading = (int(axis[number]) for axis, number in zip(where, index, strict=True))
        start, count = (*place, *leading, *[0] * len(extent)), (*[1] * (2 + first), *extent)
        selection.select_hyperslab(start, count)
        target.id.write(part, selection, np.ascontiguousarray(variable.values[index]))
