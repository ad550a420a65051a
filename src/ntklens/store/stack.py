"""From the trajectories of one sweep to one Dataset: runs × seeds, what differs in size filled up with NaN."""

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ntklens.config.identity import is_not_identity, list_neutral
from ntklens.errors import InputError
from ntklens.store.layers import merge_orders, order_own_layers
from ntklens.store.same_data import identify
from ntklens.store.separate import COORDINATE, label_data, split_runs
from ntklens.store.trajectory import Stored, UnreadableTrajectory, read_contents

LARGE = "mode"  # the dimension of what may be too much for memory
SCALARS = {  # attributes that become variables [run, seed]
    "constant_output": "1 if the last function is constant over the probe: a dead network",
    "diverged_step": "update at which a loss was not finite",
    "learning_rate": "the step η",
    "pilot_found": "1 if a pilot found a step that brings the minimum to 100–300 updates; 0 if it looked in vain",
    "seconds": "of the whole pack that the seed was computed in",
    "parameters": "number of parameters",
    "N": "samples of the probe",
    "C": "outputs",
    "projected_outputs": "outputs that the kernel has, projected, of the C of the network",
    "input_dim": "dimension of an input",
    "probe_square": "mean over the probe of |x|²",
}
PROVENANCE = (
    "git_commit",
    "git_dirty",
    "device",
    "host",
    "python",
    "packages",
    "data",
    "data_checksum",
    "data_published",
    "training",
    "schema_version",
)
NESTED = ("packages", "data")  # those that are JSON


class Source(NamedTuple):
    """A trajectory's file, and what tells whether it is still the same."""

    run: str
    seed: int
    path: Path
    size: int
    modified: int


class Failure(NamedTuple):
    """Why a file could not be read; a passing reason is of the machine, not of the file."""

    reason: str
    passing: bool


class Member(NamedTuple):
    """What the file of one seed holds."""

    attrs: dict[str, Any]
    variables: dict[str, Stored]

    @property
    def layers(self) -> list[str]:
        """The names along `layer`."""
        return [str(layer) for layer in self.variables["layer"].values]

    @property
    def checksums(self) -> tuple[str, str]:
        """The SHA-256 of the data, and what their loader gave for it, where that is another; empty if unknown."""
        claimed = json.loads(self.attrs.get("data", "{}")).get("loader_checksum", "")
        return str(self.attrs.get("data_checksum", "")), str(claimed)


def read_members(
    sources: Iterable[Source], leave: str | None = None
) -> tuple[dict[Source, Member], dict[Source, Failure]]:
    """Read every file that can be read.

    Args:
      sources: the files.
      leave: a dimension; variables that have it are not read.

    Returns:
      What was read, and why the others were not. Of a run whose seeds were computed on different data each has its
      own name.
    """  # noqa: DOC501
    members: dict[Source, Member] = {}
    failures: dict[Source, Failure] = {}
    for source in sources:
        try:
            attrs, variables = read_contents(source.path, leave)
            if missing := {"state", "config"} - attrs.keys() or {"layer", "level"} - variables.keys():
                raise UnreadableTrajectory(
                    f"{source.path}: not a readable trajectory (no {', '.join(sorted(missing))})"
                )
        except InputError as error:
            failures[source] = describe_failure(source, error)
        else:
            members[source] = Member(attrs, variables)
    names = split_runs({source: member.checksums for source, member in members.items()})
    return {s._replace(run=names.get(s, s.run)): member for s, member in members.items()}, failures


def describe_failure(source: Source, error: InputError) -> Failure:
    """Return why a file could not be read."""
    cause = error.__cause__
    passing = isinstance(cause, OSError) and cause.errno is not None  # what HDF5 says of damage has no number
    return Failure(str(error).removeprefix(f"{source.path}: "), passing)


def stack_members(
    folder: Path, members: Mapping[Source, Member], failures: Mapping[Source, Failure], leave: str | None = None
) -> xr.Dataset:
    """Put trajectories into arrays with the leading dimensions run and seed.

    Args:
      folder: the sweep's.
      members: what was read.
      failures: what could not be read.
      leave: a dimension; variables that have it stay NaN, in no memory of their own.

    Returns:
      The Dataset that `ntklens.load` describes.

    Raises:
      InputError: if nothing could be read.
    """
    if not members:
        source, failure = next(iter(failures.items()))
        more = f"; nor can {len(failures) - 1} more be read" if len(failures) > 1 else ""
        raise InputError(f"{source.path}: {failure.reason}{more}")
    configs = _select_configs(members)
    runs = sort_runs({run: flatten_config(json.loads(text)) for run, text in configs.items()})
    runs += sorted({source.run for source in failures} - set(runs))
    seeds = sorted({source.seed for source in (*members, *failures)})
    rows, columns = ({name: number for number, name in enumerate(names)} for names in (runs, seeds))
    places = {source: (rows[source.run], columns[source.seed]) for source in (*members, *failures)}
    layers = merge_orders(order_own_layers(member.layers, member.attrs) for member in members.values())
    coords = {
        "run": runs,
        "seed": seeds,
        **_select_coordinates(members.values()),
        "layer": layers,
        "state": (("run", "seed"), _stack_states(members, failures, places, (len(runs), len(seeds)))),
        **describe_runs(
            runs,
            configs,
            {s.run: str(m.attrs.get("run_key", "")) for s, m in members.items()},
            {s.run: str(m.attrs.get("data_checksum", "")) for s, m in members.items()},
            [json.loads(text) for text in {str(m.attrs.get("data", "{}")) for m in members.values()}],
        ),
    }
    variables = _allocate(members.values(), {"run": len(runs), "seed": len(seeds), "layer": len(layers)}, leave)
    arrays = {name: variable.values for name, variable in variables.items() if leave not in variable.dims}
    for source, member in members.items():
        own_layers = locate_layers(member.layers, layers)
        for name, stored in member.variables.items():
            if name in arrays:
                target = arrays[name][(*places[source], ...)]
                target[locate(stored.dims, stored.values.shape, own_layers)] = stored.values
    scalars = _stack_scalars(members, places, (len(runs), len(seeds)))
    unreadable = [
        {"path": os.path.relpath(source.path, folder), "reason": failure.reason} for source, failure in failures.items()
    ]
    attrs = {"unreadable": json.dumps(unreadable), "provenance": _collect_provenance(members.values(), configs)}
    return xr.Dataset(variables | scalars, coords, attrs)


def locate(dims: Sequence[str], shape: Sequence[int], layers: slice | np.ndarray) -> tuple[slice | np.ndarray, ...]:
    """Return where in an array of all seeds, without run and seed, the values of one of them belong."""
    return tuple(layers if dim == "layer" else slice(size) for dim, size in zip(dims, shape, strict=True))


def locate_layers(own: list[str], layers: list[str]) -> slice | np.ndarray:
    """Return where a network's layers are among all."""
    return slice(len(own)) if own == layers[: len(own)] else np.array([layers.index(layer) for layer in own])


def _select_configs(members: Mapping[Source, Member]) -> dict[str, str]:
    """Return each run's configuration, JSON: that of its first seed."""
    first: dict[str, str] = {}
    for source in sorted(members, key=lambda source: (source.run, source.seed)):
        first.setdefault(source.run, members[source].attrs["config"])
    return first


def flatten_config(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a configuration with one level of keys, each the override's name."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat |= flatten_config(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def sort_runs(configs: Mapping[str, dict[str, Any]]) -> list[str]:
    """Return the runs' names in the order of their swept parameters, so that curves against an axis are lines."""
    swept = [values for _, values in find_swept(configs).values()]

    def order(index: int) -> list[tuple[int, float, str]]:
        keys = []
        for values in swept:
            value = values[index]
            number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
            keys.append((0, float(value), "") if number else (1, 0.0, str(value)))
        return keys

    names = list(configs)
    return [names[index] for index in sorted(range(len(names)), key=order)]


def find_swept(configs: Mapping[str, dict[str, Any]]) -> dict[str, tuple[str, np.ndarray]]:
    """Return the scientific parameters that differ between runs, as coordinates; null is NaN among numbers."""
    neutral = list_neutral()  # what a configuration had in effect before there was such an option
    keys = dict.fromkeys(key for config in configs.values() for key in config)
    swept: dict[str, tuple[str, np.ndarray]] = {}
    for key in keys:
        values = [config.get(key, neutral.get(key)) for config in configs.values()]
        if is_not_identity(key) or all(value == values[0] for value in values):
            continue
        numbers = all(value is None or isinstance(value, int | float) for value in values)
        array = np.array(
            [np.nan if value is None else value for value in values] if numbers else list(map(str, values))
        )
        swept[key] = ("run", array)
    return swept


def describe_runs(
    runs: Sequence[str],
    configs: Mapping[str, str],
    keys: Mapping[str, str],
    checksums: Mapping[str, str],
    provenances: Iterable[Mapping[str, Any]],
) -> dict[str, tuple[str, np.ndarray]]:
    """Return the coordinates along run; where no seed of a run can be read, it has nothing.

    Args:
      runs: the names.
      configs: the configurations, JSON, of those that can be read.
      keys: their run keys.
      checksums: those of the data that they were computed on.
      provenances: what is known of these data; each has its `checksum`.
    """
    read = {run: flatten_config(json.loads(configs[run])) for run in runs if run in configs}
    places = [place for place, run in enumerate(runs) if run in read]
    coordinates = {
        "config": ("run", np.array([configs.get(run, "") for run in runs], object)),
        "key": ("run", np.array([keys.get(run, "") for run in runs])),
        "data_checksum": ("run", np.array([checksums.get(run, "") for run in runs])),
    }
    known = {str(provenance.get("checksum", "")): provenance for provenance in provenances}
    labels = label_data(
        {
            run: identify(
                json.loads(configs[run]).get("dataset", {}), {**known.get(checksum, {}), "checksum": checksum}
            )
            for run, checksum in checksums.items()
            if checksum and run in configs
        }
    )
    for run in read:
        read[run][COORDINATE] = labels.get(run, "")
    for name, (_, values) in find_swept(read).items():
        column = values
        if len(places) < len(runs):
            nothing = "" if values.dtype.kind == "U" else np.nan
            column = np.full(len(runs), nothing, np.result_type(values, type(nothing)))
            column[places] = values
        coordinates[name] = ("run", column)
    return coordinates


def _select_coordinates(members: Iterable[Member]) -> dict[str, tuple[str, np.ndarray, dict[str, str]]]:
    """Return the coordinates that are the same in all trajectories: of `level`, and of dimensions yet to come."""
    coordinates: dict[str, tuple[str, np.ndarray, dict[str, str]]] = {}
    for member in members:
        for name, (dims, values, attrs) in member.variables.items():
            if (
                dims == (name,)
                and name != "layer"
                and (name not in coordinates or values.size > coordinates[name][1].size)
            ):
                coordinates[name] = (name, values, attrs)
    return coordinates


def _allocate(members: Iterable[Member], sizes: dict[str, int], leave: str | None) -> dict[str, xr.Variable]:
    """Return a variable full of NaN for each that some trajectory has; texts are left out."""
    dims: dict[str, tuple[str, ...]] = {}
    attrs: dict[str, dict[str, str]] = {}
    dtypes: dict[str, set[np.dtype]] = defaultdict(set)
    for member in members:
        for name, stored in member.variables.items():
            for dim, size in zip(stored.dims, stored.values.shape, strict=True):
                sizes[dim] = max(sizes.get(dim, 0), size)
            if stored.dims != (name,) and stored.values.dtype.kind in "fiu":
                dims[name], attrs[name] = stored.dims, stored.attrs
                dtypes[name].add(stored.values.dtype)
    variables = {}
    for name in dims:
        own = ("run", "seed", *dims[name])
        shape, dtype = [sizes[dim] for dim in own], np.result_type(*dtypes[name], np.float32)
        nothing = np.broadcast_to(np.array(np.nan, dtype), shape)
        variables[name] = xr.Variable(own, nothing if leave in own else nothing.copy(), attrs[name])
    return variables


def _stack_states(
    members: Mapping[Source, Member],
    failures: Mapping[Source, Failure],
    places: Mapping[Source, tuple[int, int]],
    shape: tuple[int, int],
) -> np.ndarray:
    states = np.full(shape, "missing", object)
    for source, member in members.items():
        states[places[source]] = member.attrs["state"]
    for source in failures:
        states[places[source]] = "unreadable"
    return states.astype(str)


def _stack_scalars(
    members: Mapping[Source, Member], places: Mapping[Source, tuple[int, int]], shape: tuple[int, int]
) -> dict[str, xr.Variable]:
    """Return the attributes that are numbers of a seed, NaN where there is none."""
    scalars = {}
    for name, description in SCALARS.items():
        values = np.full(shape, np.nan)
        for source, member in members.items():
            values[places[source]] = member.attrs.get(name, np.nan)
        scalars[name] = xr.Variable(("run", "seed"), values, {"long_name": description})
    return scalars


def _collect_provenance(members: Iterable[Member], configs: Mapping[str, str]) -> str:
    """Return, as JSON, every value that the attributes `PROVENANCE` and the setting `precision` have somewhere."""
    found: dict[str, set] = defaultdict(set)
    for member in members:
        for name in PROVENANCE:
            if name in member.attrs:
                found[name].add(member.attrs[name])
    provenance = {
        name: [json.loads(value) if name in NESTED else value for value in sorted(values)]
        for name, values in found.items()
    }
    precisions = {json.loads(config).get("precision") for config in configs.values()} - {None}
    return json.dumps(provenance | ({"precision": sorted(precisions)} if precisions else {}), sort_keys=True)
