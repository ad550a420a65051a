"""What is recorded of one (configuration, seed): names, dimensions, attributes; written once, whole, and read back."""

import contextlib
import errno
import io
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ntklens.errors import InputError

SCHEMA_VERSION = 1
FILE_NAME = "trajectory.nc"
ATTEMPT_PREFIX = "attempt-"  # of the directory in which one process writes a file before it is linked into place
UNREADABLE = (OSError, KeyError, RuntimeError, AttributeError, TypeError, ValueError)  # what h5py says of damage
LEVELS = (1.0, 0.3, 0.1)  # train losses whose first crossing is a snapshot


class UnreadableTrajectory(InputError):
    """A trajectory that is there but damaged."""


# name → (dimensions beyond record, description). Snapshots hold the same names without the record dimension.
VARIABLES: dict[str, tuple[tuple[str, ...], str]] = {
    "step": ((), "updates done"),
    "epoch": ((), "passes over the training set"),
    "train_loss": ((), "mean loss over the training set"),
    "selection_loss": ((), "mean loss over the first half of the test set, which chooses the minimum"),
    "test_loss": ((), "mean loss over the other half of the test set"),
    "train_accuracy": ((), "fraction of the training set classified correctly"),
    "test_accuracy": ((), "fraction of the other half of the test set classified correctly"),
    "logit_norm": ((), "root mean square over the probe of |f(x)|"),
    "trace": ((), "Tr Θ, the sum of all N·C diagonal entries"),
    "trace_layer": (("layer",), "a layer's share of Tr Θ"),
    "weight_change": (("layer",), "|θ_l − θ_l(0)| / |θ_l(0)|"),
    "effective_rank": ((), "Γ = exp(−Σ p ln p), p the normalised eigenvalues of Θ (N·C × N·C)"),
    "effective_rank_traced": ((), "Γ of (1/C) Σ_c Θ[(i,c),(j,c)] (N × N)"),
    "effective_rank_centred": ((), "Γ of Θ centred over samples"),
    "effective_rank_layer": (("layer",), "Γ of a layer's share of Θ"),
    "eigenvalues": (("mode",), "eigenvalues of Θ, descending"),
}


def build_trajectory(
    records: Mapping[str, np.ndarray],
    minimum: Mapping[str, np.ndarray],
    crossings: Mapping[str, np.ndarray],
    layers: list[str],
    attributes: Mapping[str, Any],
) -> xr.Dataset:
    """Put the measurements of one seed into the documented schema.

    Args:
      records: name of `VARIABLES` → array with a leading record dimension; NaN where not measured.
      minimum: the same names at the minimum of the selection loss, without the record dimension.
      crossings: the same names with a leading dimension over `LEVELS`; NaN where a level was not crossed.
      layers: the names along `layer`.
      attributes: what is needed to understand the numbers; nested values are stored as JSON.

    Returns:
      The trajectory.
    """
    data: dict[str, tuple] = {}
    for prefix, leading, values in (
        ("", ("record",), records),
        ("minimum_", (), minimum),
        ("crossing_", ("level",), crossings),
    ):
        for name, (dims, description) in VARIABLES.items():
            data[prefix + name] = ((*leading, *dims), values[name], {"long_name": description})
    attrs = {key: _encode(value) for key, value in attributes.items()}
    coords = {"layer": layers, "level": ("level", np.array(LEVELS), {"long_name": "train loss crossed"})}
    return xr.Dataset(data, coords, {"schema_version": SCHEMA_VERSION, **attrs})


def _encode(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    return value if isinstance(value, str | int | float) else json.dumps(value, sort_keys=True)


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
        return _put_in_place(temporary, directory / FILE_NAME)
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


_templates: dict[Any, bytes] = {}  # the last structure → a file of it


def _describe_structure(trajectory: xr.Dataset) -> Any:
    variables = tuple((name, v.dims, v.shape, str(v.dtype)) for name, v in trajectory.variables.items())
    coordinates = tuple((name, v.values.tobytes()) for name, v in trajectory.coords.items())
    return variables, coordinates, tuple(sorted(trajectory.attrs))


def _encode_anew(trajectory: xr.Dataset) -> bytes:
    sheltered: dict[Any, dict[str, Any]] = {
        name: {"fletcher32": True} for name, variable in trajectory.data_vars.items() if variable.ndim
    }
    sheltered["eigenvalues"] |= {"zlib": True, "complevel": 1, "shuffle": True}
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


def _put_in_place(temporary: Path, path: Path) -> bool:
    """Link `temporary` to `path` unless there is a file, and return whether there was none."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
            raise
        if path.exists():  # a file system without hard links: two copies may both get here, either file is whole
            return False
        temporary.rename(path)
    return True


def read_trajectory(path: Path) -> xr.Dataset:
    """Read one trajectory into memory.

    With h5py: twenty times faster than xarray's own reader, which matters for thousands of files.

    Args:
      path: a trajectory.nc.

    Returns:
      The trajectory, as `build_trajectory` made it.

    Raises:
      InputError: if the file cannot be read, or was written in a newer schema.
    """
    import h5py

    try:
        with path.open("rb") as stream, h5py.File(stream, "r") as file:
            attrs = {key: _decode(value) for key, value in file.attrs.items() if not key.startswith("_NC")}
            check_schema(int(attrs["schema_version"]), path)
            data = {name: _read_variable(node) for name, node in file.items() if not _is_bare_dimension(node)}
    except InputError:
        raise
    except UNREADABLE as error:
        raise UnreadableTrajectory(f"{path}: not a readable trajectory ({error})") from error
    coords = {name: data.pop(name) for name in list(data) if data[name].dims == (name,)}
    return xr.Dataset(data, coords, attrs)


def _is_bare_dimension(node: Any) -> bool:
    return str(_decode(node.attrs.get("NAME", ""))).startswith("This is a netCDF dimension but not a netCDF variable")


def _read_variable(node: Any) -> xr.Variable:
    """Return a NetCDF variable, its dimensions named by the scales attached to it."""
    if node.attrs.get("CLASS", b"") == b"DIMENSION_SCALE":
        dims: tuple[str, ...] = (node.name.lstrip("/"),)
    else:
        dims = tuple(dim[0].name.lstrip("/") for dim in node.dims)
    values = node.asstr()[()].astype(str) if node.dtype.kind == "O" else node[()]
    return xr.Variable(
        dims, values, {"long_name": _decode(node.attrs["long_name"])} if "long_name" in node.attrs else {}
    )


def _decode(value: Any) -> Any:
    """Return an attribute as the plain value that was stored."""
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.generic | np.ndarray) and np.size(value) == 1 else value


def check_schema(version: int, path: Path) -> None:
    """Raise InputError if `version` is newer than this ntklens reads."""
    if version > SCHEMA_VERSION:
        raise InputError(
            f"{path}: written in schema {version}, this ntklens reads up to {SCHEMA_VERSION}; "
            "upgrade ntklens, or choose another name=…"
        )


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
