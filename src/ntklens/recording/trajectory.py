"""From what was measured of one seed to the Dataset that is stored."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ntklens.config.identity import SCHEMA_VERSION
from ntklens.errors import InputError
from ntklens.recording.quantities import QUANTITIES
from ntklens.store.trajectory import FILE_NAME, LEVELS, PREFIXES, list_variables


def build_trajectory(
    records: Mapping[str, np.ndarray],
    minimum: Mapping[str, np.ndarray],
    crossings: Mapping[str, np.ndarray],
    layers: list[str],
    attributes: Mapping[str, Any],
) -> xr.Dataset:
    """Put the measurements of one seed into the documented schema.

    Args:
      records: name of `QUANTITIES` → array with a leading record dimension; NaN where not measured.
      minimum: the same names at the minimum of the selection loss, without the record dimension.
      crossings: the same names with a leading dimension over `LEVELS`; NaN where a level was not crossed.
      layers: the names along `layer`.
      attributes: what is needed to understand the numbers; nested values are stored as JSON.

    Returns:
      The trajectory.
    """
    data: dict[str, tuple] = {}
    for prefix, values in zip(PREFIXES, (records, minimum, crossings), strict=True):
        for name in (name for name in QUANTITIES if name in records):
            one = QUANTITIES[name]
            data[prefix + name] = ((*PREFIXES[prefix], *one.dims), values[name], {"long_name": one.definition})
    encoded = {key: _encode(value) for key, value in attributes.items()}
    coords = {"layer": layers, "level": ("level", np.array(LEVELS), {"long_name": "train loss crossed"})}
    return xr.Dataset(data, coords, {"schema_version": SCHEMA_VERSION, **encoded})


def refuse_unrecorded(metrics: Iterable[str], run: Path, directories: Iterable[Path]) -> None:
    """Refuse to go on where seeds are finished without a quantity that is asked for.

    Args:
      metrics: the optional quantities that are switched on.
      run: the run's directory.
      directories: of the seeds that are finished.

    Raises:
      InputError: with the overrides that resolve it.
    """
    wanted = list(metrics)
    if not wanted:
        return
    held = {directory: list_variables(directory / FILE_NAME) for directory in directories}
    if lacking := [directory for directory, names in held.items() if not set(wanted) <= names]:
        missing = [name for name in wanted if any(name not in held[directory] for directory in lacking)]
        names = ", ".join(directory.name for directory in lacking[:3]) + (", …" if len(lacking) > 3 else "")
        rest = ",".join(name for name in wanted if name not in missing)
        raise InputError(
            f"metrics=[{','.join(wanted)}]: {len(lacking)} seeds of {run} are finished without {', '.join(missing)} "
            f"({names}): replace=true computes them anew, metrics=[{rest}] leaves them as they are"
        )


def _encode(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    return value if isinstance(value, str | int | float) else json.dumps(value, sort_keys=True)
