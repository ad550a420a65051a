"""The file of one (configuration, seed): written once, whole, and read back."""

import contextlib
import io
import os
import secrets
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ntklens.config.identity import SCHEMA_VERSION
from ntklens.errors import InputError
from ntklens.store.files import put_in_place

FILE_NAME = "trajectory.nc"
ATTEMPT_PREFIX = "attempt-"  # of the directory in which one process writes a file before it is linked into place
UNREADABLE = (OSError, KeyError, RuntimeError, AttributeError, TypeError, ValueError)  # what h5py says of damage
LEVELS = (1.0, 0.3, 0.1)  # train losses whose first crossing is a snapshot
PREFIXES = {"": ("record",), "minimum_": (), "crossing_": ("level",)}  # of a name → its leading dimension
BARE = ("record", "mode", "probe")  # dimensions without coordinates
FLOATS = {size: np.dtype(f"f{size}") for size in (2, 4, 8)}  # bytes → type
_templates: dict[Any, bytes] = {}  # the last structure → a file of it
_described: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {}  # variable → its dimensions and attributes


class NewerSchema(InputError):
    """A trajectory that a newer ntklens wrote."""


class UnreadableTrajectory(InputError):
    """A trajectory that is there but damaged."""


class Stored(NamedTuple):
    """A variable as it lies in a file."""

    dims: tuple[str, ...]
    values: np.ndarray
    attrs: dict[str, str]


def publish_trajectory(trajectory: xr.Dataset, directory: Path) -> bool:
    """Write the file under a name of this attempt's own, then link it into place: whole or not at all, never twice.

    Args:
      trajectory: what to write.
      directory: the seed's directory.

    Returns:
      Whether this attempt was the first; a later copy leaves the first in place.

    Raises:
      OSError: if the directory cannot be written.
    """
    content = encode_trajectory(trajectory)
    attempt = directory / f"{ATTEMPT_PREFIX}{secrets.token_hex(4)}"
    attempt.mkdir(parents=True)
    temporary = attempt / FILE_NAME
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        return put_in_place(temporary, directory / FILE_NAME)
    finally:
        temporary.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            attempt.rmdir()


def encode_trajectory(trajectory: xr.Dataset) -> bytes:
    """Return the bytes of the NetCDF file; made in memory, because HDF5 cannot bear a full disk.

    The seeds of a pack differ in their numbers alone, and nine tenths of writing a file is its structure: the last
    file's structure is used again where it fits.
    """
    structure = _describe_structure(trajectory)
    if structure not in _templates:
        _templates.clear()
        _templates[structure] = _encode_anew(trajectory)
        return _templates[structure]
    return _fill_template(_templates[structure], trajectory)


def _describe_structure(trajectory: xr.Dataset) -> Any:
    variables = tuple((name, v.dims, v.shape, str(v.dtype)) for name, v in trajectory.variables.items())
    coordinates = tuple((name, v.values.tobytes()) for name, v in trajectory.coords.items())
    return variables, coordinates, tuple(sorted(trajectory.attrs))


def _encode_anew(trajectory: xr.Dataset) -> bytes:
    sheltered: dict[Any, dict[str, Any]] = {
        name: {"fletcher32": True} for name, variable in trajectory.data_vars.items() if variable.ndim
    }
    for name, variable in trajectory.data_vars.items():
        if variable.dims == ("record", "mode"):
            sheltered[name] |= {"zlib": True, "complevel": 1, "shuffle": True}
    buffer = io.BytesIO()
    trajectory.to_netcdf(buffer, engine="h5netcdf", encoding=sheltered)
    return buffer.getvalue()


def _fill_template(template: bytes, trajectory: xr.Dataset) -> bytes:
    import h5py

    buffer = io.BytesIO(template)
    with h5py.File(buffer, "r+") as file:
        for name, variable in trajectory.data_vars.items():
            file[str(name)][...] = variable.values
        for name, value in trajectory.attrs.items():
            if _decode(file.attrs[name]) != value:
                file.attrs[name] = value
    return buffer.getvalue()


def read_trajectory(path: Path) -> xr.Dataset:
    """Read one trajectory into memory.

    Args:
      path: a trajectory.nc.

    Returns:
      The trajectory, as it was published.

    Raises:
      InputError: if the file cannot be read, or was written in a newer schema.
    """
    attrs, stored = read_contents(path)
    variables = {name: xr.Variable(*variable) for name, variable in stored.items()}
    coords = {name: variables.pop(name) for name in list(variables) if variables[name].dims == (name,)}
    return xr.Dataset(variables, coords, attrs)


def read_contents(path: Path, leave: str | None = None) -> tuple[dict[str, Any], dict[str, Stored]]:
    """Read one trajectory as plain arrays, also variables that this version of ntklens does not know.

    With HDF5's own calls, and dimensions and descriptions as the first file had them: ten times faster than by what
    h5py offers for looking them up in each file, which matters for thousands of files.

    Args:
      path: a trajectory.nc.
      leave: a dimension; variables that have it are not read: their values are NaN, in no memory of their own.

    Returns:
      The attributes, and the variables by name.

    Raises:
      InputError: if the file cannot be read, or was written in a newer schema.
    """
    with _open_trajectory(path) as file:
        attrs = {key: _decode(value) for key, value in file.attrs.items() if not key.startswith("_NC")}
        check_schema(int(attrs["schema_version"]), path)
        return attrs, {name: _read_variable(file, name, leave) for name in file if _holds_values(file, name)}


def read_variables(path: Path, names: Collection[str]) -> dict[str, Stored]:
    """Read some variables of a trajectory whose schema has been checked.

    Args:
      path: a trajectory.nc.
      names: which; those that it does not have are left out.

    Returns:
      {name: values with their attributes}.

    Raises:
      InputError: if the file cannot be read.
    """
    with _open_trajectory(path) as file:
        return {name: _read_variable(file, name) for name in names if name in file}


@contextlib.contextmanager
def _open_trajectory(path: Path) -> Iterator[Any]:
    """Open a copy in memory, which takes no lock and needs few calls to the file system."""
    import h5py

    try:
        content = path.read_bytes()
        try:
            image = h5py.h5f.open_file_image(content)
        except (ValueError, OSError) as error:
            raise ValueError(f"truncated, or no NetCDF4 file: {len(content)} bytes") from error
        with h5py.File(image) as file:
            yield file
    except InputError:
        raise
    except UNREADABLE as error:
        raise UnreadableTrajectory(f"{path}: not a readable trajectory ({error})") from error


def _holds_values(file: Any, name: str) -> bool:
    """Return whether a name is of a variable, and not of a dimension without coordinates."""
    if name in _described or name in BARE:
        return name not in BARE
    label = str(_decode(file[name].attrs.get("NAME", "")))
    return not label.startswith("This is a netCDF dimension but not a netCDF variable")


def _read_variable(file: Any, name: str, leave: str | None = None) -> Stored:
    import h5py

    node = h5py.h5d.open(file.id, name.encode())
    shape, kind = node.shape, node.get_type()
    if name not in _described or len(_described[name][0]) != len(shape):
        _described[name] = _describe_variable(file[name])
    dims, attrs = _described[name]
    # Nearly all are floats, and to ask for their size alone is quicker.
    dtype = FLOATS[kind.get_size()] if kind.get_class() == h5py.h5t.FLOAT else node.dtype
    if leave in dims:
        return Stored(dims, np.broadcast_to(np.array(np.nan, dtype), shape), attrs)
    values = np.empty(shape, dtype)
    node.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
    if dtype.kind == "O":
        values = np.array([text.decode() for text in values.flat]).reshape(shape)
    return Stored(dims, values, attrs)


def _describe_variable(node: Any) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the dimensions, named by the scales attached to a variable, and its description."""
    attrs = {"long_name": str(_decode(node.attrs["long_name"]))} if "long_name" in node.attrs else {}
    if node.attrs.get("CLASS", b"") == b"DIMENSION_SCALE":
        return (node.name.lstrip("/"),), attrs
    return tuple(dim[0].name.lstrip("/") for dim in node.dims), attrs


def _decode(value: Any) -> Any:
    """Return an attribute as the plain value that was stored."""
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.generic | np.ndarray) and np.size(value) == 1 else value


def check_schema(version: int, path: Path) -> None:
    """Raise InputError if `version` is newer than this ntklens reads."""
    if version > SCHEMA_VERSION:
        raise NewerSchema(
            f"{path}: written in schema {version}, this ntklens reads up to {SCHEMA_VERSION}; "
            "upgrade ntklens, or choose another name=…"
        )


def read_attributes(path: Path) -> dict[str, Any]:
    """Return a trajectory's attributes without its arrays; none if there is no file that can be read."""
    import h5py

    try:
        with path.open("rb") as stream, h5py.File(stream, "r") as file:
            return {key: _decode(value) for key, value in file.attrs.items() if not key.startswith("_NC")}
    except UNREADABLE:
        return {}


def list_variables(path: Path) -> set[str]:
    """Return the names of a trajectory's variables; none if there is no file that can be read."""
    import h5py

    try:
        with path.open("rb") as stream, h5py.File(stream, "r") as file:
            return {name for name in file if _holds_values(file, name)}
    except UNREADABLE:
        return set()


def read_state(path: Path) -> str | None:
    """Return how a trajectory ended, `done` or `diverged`; None if there is no file or only a damaged one.

    Raises:
      InputError: if the file was written in a newer schema.
      OSError: if the file is there but may not be opened now: no permission, or another program holds it.
    """
    import h5py

    if not path.exists():
        return None
    with path.open("rb") as stream:  # not by its name: HDF5 would take a lock, and calls what it cannot open damaged
        try:
            with h5py.File(stream, "r") as file:
                version, state = (_decode(file.attrs[name]) for name in ("schema_version", "state"))
        except UNREADABLE:
            return None
    check_schema(int(version), path)
    return str(state)
