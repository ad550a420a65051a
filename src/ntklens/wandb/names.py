"""How a trajectory is called in Weights & Biases: identity, metrics and their axes. Nothing here needs wandb."""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ntklens.recording.observables import OBSERVABLES, list_observables
from ntklens.recording.quantities import QUANTITIES, name_metric
from ntklens.sweep.plan import PLAN_NAME

SPECTRUM = "ntk/log10_eigenvalues"  # a histogram
LOG_LOSS = "log_train_loss"  # ln L_train, an axis
PATH = "path/trace"  # Tr Θ once more, along ln L_train
FIGURE = "figure"
ERROR = "error"  # why a seed failed, in the summary
DIGEST = "digest"  # of the records that a run shows, in its summary
BINS = 64
AXES = {"*": "epoch", PATH: LOG_LOSS}  # metric → what it is drawn against
SUMMARIES = {  # metric → which of its values W&B keeps beside the observables
    "loss/train": "min,last",
    "loss/selection": "min,last",
    "loss/test": "min,last",
    "accuracy/train": "max,last",
    "accuracy/test": "max,last",
    "ntk/trace": "min,max,last",
    "ntk/effective_rank": "min,max,last",
}
SPREADS = ("sem", "min", "max")  # of a metric over seeds, as <metric>_<spread>
MAGNITUDES, MAGNITUDE = list_observables("signed"), "_magnitude"  # for log scales
# Characters that W&B takes: 64 of a tag, 128 of all else; of an id less, for artifacts are named after it.
MOST_TAG, MOST_NAME, MOST_ID = 64, 128, 110
UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")  # in an id or the name of an artifact
VERSION = re.compile(r"(?P<first>.+)-v(?P<number>\d+)")


class Histogram(NamedTuple):
    """Counts between edges."""

    counts: list[int]
    edges: list[float]


class Identity(NamedTuple):
    """What a W&B run is, before anything was measured.

    Attributes:
      id: the same for every attempt: sweep, key, seed.
      name: for people.
      group: the configuration without its seed.
      tags: sweep, dataset, model, swept axes.
      config: the resolved configuration, nested, and `derived` values.
    """

    id: str
    name: str
    group: str
    tags: list[str]
    config: dict[str, Any]


def make_id(sweep: str, key: str, seeds: Sequence[int]) -> str:
    """Return the id of a seed's run, or of that of several seeds: `<sweep>-<key>-<seed>`, shortened if need be."""
    last = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]}to{seeds[-1]}x{len(seeds)}"
    return f"{make_safe(sweep, MOST_ID - len(key) - len(last) - 2)}-{key}-{last}"


def add_version(run_id: str, number: int) -> str:
    """Return the id of the first, second, … run of one seed: a result that replaces one that W&B has is another run."""
    return run_id if number == 1 else f"{run_id}-v{number}"


def split_version(run_id: str) -> tuple[str, int]:
    """Return what `add_version` was given."""
    match = VERSION.fullmatch(run_id)
    return (match["first"], int(match["number"])) if match else (run_id, 1)


def shorten(text: str, most: int) -> str:
    """Return at most so many characters; different texts stay different."""
    return text if len(text) <= most else f"{text[: most - 9]}-{_hash(text)}"


def make_safe(text: str, most: int) -> str:
    """Return at most so many characters that ids and artifacts may have; different texts stay different."""
    safe = UNSAFE.sub("_", text)
    return shorten(safe, most) if safe == text else f"{safe[: most - 9]}-{_hash(text)}"


def make_tag(text: str) -> str:
    """Return a text as a tag."""
    return shorten(text, MOST_TAG)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:8]


def identify(
    run: Path,
    config: Mapping[str, Any],
    key: str,
    seeds: Sequence[int],
    axes: Sequence[str],
    derived: Mapping[str, Any],
) -> Identity:
    """Return what W&B receives of a run.

    Args:
      run: its directory, in the folder of its sweep.
      config: resolved.
      key: the run key.
      seeds: one, or those that share the run.
      axes: what its sweep sweeps.
      derived: further values that the configuration entails.
    """
    sweep = run.parent.name
    model = str(config["model"].get("_target_", "model")).rpartition(".")[2].lower()
    tags = [sweep, str(config["dataset"].get("name", "dataset")), model, *axes]
    details = dict(config) | {"derived": {"key": key, "run": run.name, **derived}}
    details |= {"seed": seeds[0]} if len(seeds) == 1 else {"seeds": list(seeds)}
    label = f"seed={seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds"
    return Identity(
        make_id(sweep, key, seeds),
        shorten(f"{run.name} {label}", MOST_NAME),
        shorten(run.name, MOST_NAME),
        list(dict.fromkeys(make_tag(tag) for tag in tags if tag)),
        details,
    )


def read_axes(sweep: Path) -> dict[str, set[str]]:
    """Return the overrides that a sweep sweeps → their values; none where there is no plan to tell."""
    try:
        configurations = json.loads((sweep / PLAN_NAME).read_text(encoding="utf-8"))["configurations"]
        values: dict[str, set[str]] = {}
        for one in configurations:
            for axis, value in one["axes"].items():
                values.setdefault(str(axis), set()).add(str(value))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {axis: found for axis, found in values.items() if len(found) > 1}


def make_row(record: Mapping[str, Any], layers: Sequence[str]) -> dict[str, Any]:
    """Return one record as metrics; what was not measured, or is not finite, is left out.

    Args:
      record: variable → value, (), [layers] or [modes].
      layers: their names.
    """
    row: dict[str, Any] = {}
    for variable, one in QUANTITIES.items():
        if variable not in record:
            continue
        values, dims = np.asarray(record[variable]), one.dims
        if dims == ("layer",):
            row |= {name_metric(variable, layer): float(v) for layer, v in zip(layers, values, strict=False)}
        elif dims == ("mode",):
            if (histogram := make_histogram(values)) is not None:
                row[SPECTRUM] = histogram
        elif not dims:
            row[name_metric(variable)] = float(values)
    loss = row.get("loss/train", math.nan)
    row[LOG_LOSS] = math.log(loss) if loss > 0 else math.nan
    row[PATH] = row.get("ntk/trace", math.nan) if math.isfinite(row[LOG_LOSS]) else math.nan
    return {name: value for name, value in row.items() if not isinstance(value, float) or math.isfinite(value)}


def make_histogram(eigenvalues: np.ndarray) -> Histogram | None:
    """Return the histogram of log10 of the positive eigenvalues; None where there are none."""
    positive = eigenvalues[np.isfinite(eigenvalues) & (eigenvalues > 0)]
    if not len(positive):
        return None
    counts, edges = np.histogram(np.log10(positive), BINS)
    return Histogram(counts.tolist(), edges.tolist())


def list_rows(trajectory: xr.Dataset) -> list[dict[str, Any]]:
    """Return every record of a trajectory as metrics."""
    layers = [str(layer) for layer in trajectory["layer"].values]
    variables = {name: trajectory[name].values for name in QUANTITIES if name in trajectory}
    return [
        make_row({name: values[index] for name, values in variables.items()}, layers)
        for index in range(trajectory.sizes["record"])
    ]


def digest_records(trajectories: Sequence[xr.Dataset]) -> list[str]:
    """Return what tells the records and the state of each trajectory from others: not when, where or how often made."""
    found = []
    for trajectory in trajectories:
        digest = hashlib.sha256(str(trajectory.attrs.get("state")).encode())
        for name in QUANTITIES:
            if name in trajectory:
                digest.update(name.encode() + trajectory[name].values.tobytes())
        found.append(digest.hexdigest()[:16])
    return found


def average_rows(members: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return the rows of several seeds as one: mean, and s.e.m., least and largest value; `seeds` of them in each row.

    Rows belong together by their `step`; each counts the seeds that have it, of which some may have ended before.
    """
    together: dict[float, list[Mapping[str, Any]]] = {}
    for rows in members:
        for row in rows:
            together.setdefault(row["step"], []).append(row)
    averaged = []
    for step in sorted(together):
        rows, out = together[step], {}
        for name in dict.fromkeys(name for row in rows for name in row):
            values = np.array([row[name] for row in rows if name in row and not isinstance(row[name], Histogram)])
            if name in ("step", "epoch"):
                out[name] = float(values[0])
            elif len(values):
                out |= summarise_values(name, values)
        averaged.append(out | {"seeds": float(len(rows))})
    return averaged


def summarise_values(name: str, values: np.ndarray) -> dict[str, float]:
    """Return mean, s.e.m. (of two or more), least and largest of finite values under their names."""
    error = {f"{name}_sem": float(np.std(values, ddof=1) / math.sqrt(len(values)))} if len(values) > 1 else {}
    return {
        name: float(values.mean()), **error, f"{name}_min": float(values.min()), f"{name}_max": float(values.max())
    }  # fmt: skip


def measure_summary(trajectory: xr.Dataset) -> dict[str, float]:
    """Return every observable of a trajectory that is a number."""
    found = {}
    for name, observable in OBSERVABLES.items():
        try:
            value = float(observable.measure(trajectory))
        except KeyError:  # a trajectory that holds less than today's
            continue
        if math.isfinite(value):
            found[name] = value
            if name in MAGNITUDES:
                found[f"{name}{MAGNITUDE}"] = abs(value)
    return found
