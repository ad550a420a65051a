"""From the files of a sweep to one labelled array per quantity."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ntklens.errors import InputError
from ntklens.sweep.key import is_not_identity
from ntklens.trajectory import FILE_NAME, read_trajectory


def load(path: str | Path) -> xr.Dataset:
    """Read every trajectory below a folder into one Dataset.

    Args:
      path: a sweep (`multirun/<name>`), one of its runs, or one of a run's seeds.

    Returns:
      Dataset with the dimensions run, seed, record, layer, level and mode. Records, layers and modes that a trajectory
      does not have, and seeds that are missing, are NaN; `state` [run, seed] says done, diverged or missing. `run` is
      the run's directory name, and each swept parameter is a coordinate along it under its override's name.

    Raises:
      InputError: if there is no trajectory, or one cannot be read.
    """
    files = find_trajectories(Path(path))
    if not files:
        raise InputError(f"{path}: no {FILE_NAME} below it")
    rows: dict[str, dict[int, xr.Dataset]] = {}
    for file in files:
        trajectory = read_trajectory(file)
        rows.setdefault(file.resolve().parents[1].name, {})[int(trajectory.attrs["seed"])] = trajectory
    runs = {name: rows[name] for name in _sort_runs(rows)}
    seeds = sorted({seed for members in runs.values() for seed in members})
    dataset = _stack(runs, seeds)
    return dataset.assign_coords(_find_swept({name: _read_config(members) for name, members in runs.items()}))


def find_trajectories(folder: Path) -> list[Path]:
    """Return the published trajectories at or below a folder, and not those that are being written."""
    files = [folder / FILE_NAME, *folder.glob(f"**/seed=*/{FILE_NAME}")]
    return sorted(
        {file.resolve() for file in files if file.is_file() and file.resolve().parent.name.startswith("seed=")}
    )


def _read_config(members: dict[int, xr.Dataset]) -> dict[str, Any]:
    """Return a run's configuration with one level of keys, each the override's name."""

    def flatten(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        flat: dict[str, Any] = {}
        for key, value in node.items():
            flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
        return flat

    return flatten(json.loads(next(iter(members.values())).attrs["config"]))


def _sort_runs(rows: dict[str, dict[int, xr.Dataset]]) -> list[str]:
    """Return the runs' names in the order of their swept parameters, so that curves against an axis are lines."""
    configs = {name: _read_config(members) for name, members in rows.items()}
    swept = [values for _, values in _find_swept(configs).values()]

    def order(index: int) -> list[tuple[int, float, str]]:
        keys = []
        for values in swept:
            value = values[index]
            number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
            keys.append((0, float(value), "") if number else (1, 0.0, str(value)))
        return keys

    names = list(configs)
    return [names[index] for index in sorted(range(len(names)), key=order)]


def _find_swept(configs: dict[str, dict[str, Any]]) -> dict[str, tuple[str, np.ndarray]]:
    """Return the scientific parameters that differ between runs, as coordinates; null is NaN among numbers."""
    keys = dict.fromkeys(key for config in configs.values() for key in config)
    swept: dict[str, tuple[str, np.ndarray]] = {}
    for key in keys:
        values = [config.get(key) for config in configs.values()]
        if is_not_identity(key) or all(value == values[0] for value in values):
            continue
        numbers = all(value is None or isinstance(value, int | float) for value in values)
        array = np.array(
            [np.nan if value is None else value for value in values] if numbers else list(map(str, values))
        )
        swept[key] = ("run", array)
    return swept


def _stack(runs: dict[str, dict[int, xr.Dataset]], seeds: list[int]) -> xr.Dataset:
    """Return all trajectories in arrays with leading dimensions run and seed, NaN where there is nothing."""
    trajectories = [trajectory for members in runs.values() for trajectory in members.values()]
    layers = list(dict.fromkeys(str(layer) for trajectory in trajectories for layer in trajectory.layer.values))
    sizes = {dim: max(t.sizes[dim] for t in trajectories) for dim in ("record", "level", "mode")} | {
        "layer": len(layers)
    }
    variables: dict[str, tuple] = {}
    for name, first in trajectories[0].data_vars.items():
        shape = (len(runs), len(seeds), *(sizes[str(dim)] for dim in first.dims))
        dtype = np.result_type(*(t[name].dtype for t in trajectories), np.float32)
        variables[str(name)] = (("run", "seed", *first.dims), np.full(shape, np.nan, dtype), first.attrs)
    state = np.full((len(runs), len(seeds)), "missing", object)
    for row, members in enumerate(runs.values()):
        for seed, trajectory in members.items():
            column = seeds.index(seed)
            state[row, column] = trajectory.attrs["state"]
            own_layers = [layers.index(str(layer)) for layer in trajectory.layer.values]
            for name, (dims, values, _) in variables.items():
                source = trajectory[name].values
                place = [
                    np.array(own_layers) if d == "layer" else np.arange(n)
                    for d, n in zip(dims[2:], source.shape, strict=True)
                ]
                values[(row, column, *np.ix_(*place))] = source
    coords = {
        "run": list(runs),
        "seed": seeds,
        "layer": layers,
        "level": trajectories[0].level.values,
        "state": (("run", "seed"), state.astype(str)),
    }
    return xr.Dataset(variables, coords)
