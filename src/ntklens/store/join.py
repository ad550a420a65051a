"""From the Datasets of several sweeps to one."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from ntklens.store.layers import merge_orders
from ntklens.store.stack import describe_runs

NAN = np.float32(np.nan)  # makes no number wider than it is


class Part(NamedTuple):
    """A variable of one sweep, and for each dimension where its entries are in the joined one."""

    variable: xr.Variable
    places: list[np.ndarray]


def join_sweeps(datasets: Mapping[Path, xr.Dataset]) -> xr.Dataset:
    """Put sweeps one after another along run.

    Args:
      datasets: the Dataset of each sweep's folder.

    Returns:
      One Dataset of all seeds, layers, records and modes, NaN where a sweep has nothing; runs of the same name are
      called `<sweep>/<run>`. What is read when it is used remains so.
    """
    parts = list(datasets.values())
    sweeps = name_sweeps(list(datasets))
    labels = {
        "run": _name_runs(sweeps, parts),
        "seed": np.unique(np.concatenate([part.seed.values for part in parts])),
        "layer": np.array(merge_orders(part.layer.values for part in parts)),
    }
    sizes: dict[Any, int] = {dim: max(p.sizes.get(dim, 0) for p in parts) for part in parts for dim in part.sizes}
    sizes |= {dim: len(names) for dim, names in labels.items()}
    places = _find_places(parts, labels)

    def join(name: Any, nothing: Any = NAN) -> xr.Variable:
        own = [(part[name].variable, place) for part, place in zip(parts, places, strict=True) if name in part]
        return _join_variable(own, sizes, nothing)

    data = {name: join(name) for name in dict.fromkeys(name for part in parts for name in part.data_vars)}
    longest = {dim: max(parts, key=lambda part: part.sizes.get(dim, 0)) for dim in sizes if dim not in labels}
    coords = {
        **labels,
        **{dim: part[dim].variable for dim, part in longest.items() if dim in part.coords},
        "state": join("state", np.str_("missing")),
        "sweep": ("run", np.repeat(sweeps, [part.sizes["run"] for part in parts])),
        **_describe_joined(labels["run"], parts),
    }
    return xr.Dataset(data, coords, _join_attributes(sweeps, parts))


def name_sweeps(folders: Sequence[Path]) -> list[str]:
    """Return the folders' names, with their parents' where that is needed to tell them apart."""
    for depth in range(1, max(len(folder.parts) for folder in folders)):
        names = ["/".join(folder.parts[-depth:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def _name_runs(sweeps: Sequence[str], parts: Sequence[xr.Dataset]) -> np.ndarray:
    counts = Counter(str(run) for part in parts for run in part.run.values)
    return np.array(
        [
            f"{sweep}/{run}" if counts[str(run)] > 1 else str(run)
            for sweep, part in zip(sweeps, parts, strict=True)
            for run in part.run.values
        ]
    )


def _find_places(parts: Sequence[xr.Dataset], labels: Mapping[str, np.ndarray]) -> list[dict[Any, np.ndarray]]:
    """Return where each sweep's runs, seeds, layers, … are among all."""
    layers = {layer: number for number, layer in enumerate(labels["layer"])}
    places, before = [], 0
    for part in parts:
        place: dict[Any, np.ndarray] = {dim: np.arange(size) for dim, size in part.sizes.items()}
        place["run"] = before + place["run"]
        place["seed"] = np.searchsorted(labels["seed"], part.seed.values)
        place["layer"] = np.array([layers[layer] for layer in part.layer.values])
        places.append(place)
        before += part.sizes["run"]
    return places


def _join_variable(
    own: Sequence[tuple[xr.Variable, Mapping[Any, np.ndarray]]], sizes: Mapping[Any, int], nothing: Any
) -> xr.Variable:
    dims = own[0][0].dims
    parts = [Part(variable, [place[dim] for dim in dims]) for variable, place in own]
    dtype = np.result_type(*(variable.dtype for variable, _ in own), nothing.dtype)
    joined = Joined(parts, tuple(sizes[dim] for dim in dims), dtype, nothing)
    variable = xr.Variable(dims, indexing.LazilyIndexedArray(joined), own[0][0].attrs)
    return variable if any(not part._in_memory for part, _ in own) else variable.load()


def _describe_joined(runs: np.ndarray, parts: Sequence[xr.Dataset]) -> dict[str, tuple[str, np.ndarray]]:
    """Return the coordinates along run: parameters that no sweep varies may differ between sweeps."""
    texts, keys, checksums = (
        dict(zip(map(str, runs), np.concatenate([part[name].values for part in parts]), strict=True))
        for name in ("config", "key", "data_checksum")
    )
    provenances = [data for part in parts for data in json.loads(part.attrs["provenance"]).get("data", [])]
    configs = {run: text for run, text in texts.items() if text}
    return describe_runs([str(run) for run in runs], configs, keys, checksums, provenances)


def _join_attributes(sweeps: Sequence[str], parts: Sequence[xr.Dataset]) -> dict[str, str]:
    unreadable = [
        {**file, "path": f"{sweep}/{file['path']}"}
        for sweep, part in zip(sweeps, parts, strict=True)
        for file in json.loads(part.attrs["unreadable"])
    ]
    provenance: dict[str, list] = {}
    for part in parts:
        for name, values in json.loads(part.attrs["provenance"]).items():
            known = provenance.setdefault(name, [])
            known += [value for value in values if value not in known]
    return {"unreadable": json.dumps(unreadable), "provenance": json.dumps(provenance, sort_keys=True)}


class Joined(BackendArray):
    """Parts at their places in a larger array, each read when something of it is asked for.

    Args:
      parts: what there is.
      shape: of the whole.
      dtype: of the whole.
      nothing: what stands where there is no part.
    """

    def __init__(self, parts: Sequence[Part], shape: tuple[int, ...], dtype: np.dtype, nothing: Any) -> None:
        self.parts, self.shape, self.dtype, self.nothing = parts, shape, dtype, nothing

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        """Return what an index selects."""
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple) -> np.ndarray:
        wanted = [np.arange(size)[part] for size, part in zip(self.shape, key, strict=True)]
        result = np.full([index.size for index in wanted], self.nothing, self.dtype)
        for variable, places in self.parts:
            own, targets = [], []
            for place, index, size in zip(places, wanted, self.shape, strict=True):
                inverse = np.full(size, -1)
                inverse[place] = np.arange(len(place))
                found = inverse[np.atleast_1d(index)]
                targets.append(np.flatnonzero(found >= 0))
                own.append(_simplify(found[found >= 0]))
            result[np.ix_(*targets)] = variable[tuple(own)].values
        return result.reshape([index.size for index in wanted if index.ndim])


def _simplify(indices: np.ndarray) -> np.ndarray | slice:
    """Return indices as a slice where they are one, which files are read by much quicker."""
    if len(indices) and (np.diff(indices) == 1).all():
        return slice(int(indices[0]), int(indices[-1]) + 1)
    return indices
