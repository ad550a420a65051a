"""What a sweep is, in words: the settings of its runs, read from their configurations."""

import functools
import json
import math
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from ntklens.analysis.groups import describe_value
from ntklens.config.identity import AUTO, RESOLVED, find_step_rule
from ntklens.store.stack import flatten_config

FINISHED = ("done", "diverged")
MANY = 5  # values, beyond which numbers are given by their ends
LOSSES = {"cross_entropy": "cross-entropy", "mse": "mean squared error"}
OPTIMISERS = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD"}
DENSE = "MLP"
DESCRIBED = {  # settings of a model that its description holds already, or that need no word where they have this value
    "model": {"_target_", "width", "depth", "activation", "parameterization", "classes"},
    "optimizer": {"_target_", "learning_rate"},
}
# Situation → what to do about it by our settings, and in a loop of one's own.
ADVICE = {
    "stopped": ("Raise training.epochs", "Train for more epochs in your loop"),
    "still": (
        "Train longer (training.epochs) or, under protocol=paper, with a larger optimizer.learning_rate",
        "Train for more epochs in your loop, or with a larger step",
    ),
    "few seeds": (
        "Ask for more seeds: ensemble=20 computes only those that are missing",
        "Record more networks, each with a seed of its own",
    ),
    "wide intervals": ("more seeds: ensemble={}", "more seeds: {} in all"),
    "damaged": (
        "Damaged files: type the sweep's line again, which sets them aside and computes them anew",
        "Damaged files: save them again with replace=True",
    ),
    "no numbers": (
        "Look at their trajectory.nc; replace=true computes them anew",
        "Look at their trajectory.nc",
    ),
    "rounding": (
        "Compute one configuration with precision=float64 and compare",
        "Compute one configuration with jax_enable_x64 and compare",
    ),
    "unequal": (
        "Compare groups at equal n or at equal train loss (crossing_… columns of observables.csv); "
        "protocol=resolved chooses for each a step that brings n to 100–300",
        "Compare groups at equal n or at equal train loss (crossing_… columns of observables.csv)",
    ),
}
OWN_STEP = "Take smaller steps in your loop"  # by our settings: `advise_smaller_step`
PLAIN = {
    "model.bias": True, "model.base_width": 128, "model.output_scale": None, "model.linearised": False,
    "optimizer.b1": 0.9, "optimizer.b2": 0.999, "optimizer.eps": 1e-8, "optimizer.eps_root": 0.0,
    "optimizer.nesterov": False,
}  # fmt: skip


def read_configs(data: xr.Dataset, runs: Sequence[str] | None = None) -> list[dict[str, object]]:
    """Return the configurations of runs, each with one level of keys, the overrides' names; without those unknown.

    Args:
      data: as `ntklens.load` returns it.
      runs: their names; None: all.
    """
    if "config" not in data.coords:
        return []
    texts = (data["config"] if runs is None else data["config"].sel(run=list(runs))).values
    return [dict(_read_config(text)) for text in texts if text]


@functools.lru_cache(4096)
def _read_config(text: str) -> dict[str, object]:
    return flatten_config(json.loads(text))


def is_own_loop(data: xr.Dataset) -> bool:
    """Return whether all trajectories are of loops of people's own, which have none of our settings of training."""
    found = json.loads(data.attrs.get("provenance", "{}")).get("training", [])
    return bool(found) and not list_values(read_configs(data), "training.epochs")


def list_values(configs: Sequence[Mapping[str, object]], key: str) -> list[object]:
    """Return the different values of a setting, in the order of the runs."""
    found: list[object] = []
    for config in configs:
        if key in config and config[key] not in found:
            found.append(config[key])
    return found


def advise(situation: str, own_loop: bool) -> str:
    """Return what to do in a situation, as a sentence without its stop.

    Args:
      situation: a key of `ADVICE`.
      own_loop: whether training has none of our settings.
    """
    return ADVICE[situation][own_loop]


def advise_smaller_step(configs: Sequence[Mapping[str, object]], also: str = "") -> str:
    """Return what to type for a smaller step: where a rule chooses it, it is no setting but can be divided.

    Args:
      configs: of the runs, one level of keys.
      also: what else there is to do where the step is given.
    """
    ruled = {find_step_rule({"learning_rate": one.get("optimizer.learning_rate", 0.0)}) is not None for one in configs}
    given, divided = (
        f"lower optimizer.learning_rate{also}",
        "raise protocol.step_divisor, which divides the chosen step",
    )
    if ruled == {True}:
        return divided
    return f"{given}; where a rule chooses the step {divided}" if True in ruled else given


def name_target(target: object) -> str:
    """Return what a `_target_` is called: `mnist` of a loader of ntklens, else the last part of its path."""
    parts = str(target).replace(":", ".").split(".")
    return parts[-2] if parts[-1] == "load" and len(parts) > 1 else parts[-1]


def is_ours(target: object) -> bool:
    """Return whether a `_target_` belongs to ntklens."""
    return str(target).startswith("ntklens.")


def name_optimiser(name: str, full_batch: bool) -> str:
    """Return an optimizer's name in words: `sgd` is gradient descent, GD, where every batch is the whole training set.

    Args:
      name: the last part of its `_target_`.
      full_batch: whether batches are the whole training set.
    """
    return OPTIMISERS.get(name, name) if name != "sgd" or not full_batch else "GD"


def is_full_batch(configs: Sequence[Mapping[str, object]]) -> bool:
    """Return whether every run is known to take its steps on the whole training set."""
    return list_values(configs, "training.batch_size") == [None]


def join_values(values: Sequence[object]) -> str:
    """Return values in words: `32 … 512 (5 values)` of many numbers, `2, 3` of few."""
    numbers = [float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == len(values) >= MANY:
        return f"{min(numbers):g} … {max(numbers):g} ({len(numbers)} values)"
    ordered = sorted(numbers) if len(numbers) == len(values) else values
    return ", ".join(_say(value) for value in ordered)


def describe_runs(data: xr.Dataset, runs: Sequence[str] | None = None) -> dict[str, str]:
    """Return what runs are: a heading (data, model, initialisation, optimiser, training, seeds, …) → words.

    Headings whose settings are not known are left out. Values that differ between the runs stand side by side.

    Args:
      data: as `ntklens.load` returns it.
      runs: their names; None: all.
    """
    configs = read_configs(data, runs)
    words = {
        "data": _describe_data(configs),
        "model": _describe_model(configs),
        "width": join_values(list_values(configs, "model.width")),
        "initialisation": _describe_initialisation(configs),
        "optimiser": _describe_optimiser(configs),
        "training": _describe_training(configs),
        "trace": _describe_trace(configs),
        "seeds": _describe_seeds(data, runs),
    }
    return {heading: text for heading, text in words.items() if text}


def describe_differences(columns: Sequence[Mapping[str, str]]) -> list[str]:
    """Return in what descriptions differ, a line for each heading: `optimiser: Adam, η = 0.001 | Adam, η = 0.0001`."""
    headings = dict.fromkeys(heading for column in columns for heading in column)
    lines = []
    for heading in headings:
        values = [column.get(heading, "not recorded") for column in columns]
        if len(set(values)) > 1:
            lines.append(f"{heading}: {' | '.join(values)}")
    return lines


def count_seeds(data: xr.Dataset, runs: Sequence[str] | None = None) -> np.ndarray:
    """Return how many seeds of each run are done."""
    states = (data["state"] if runs is None else data["state"].sel(run=list(runs))).values
    return (states.astype(str) == "done").sum(axis=1)


def _describe_data(configs: Sequence[Mapping[str, object]]) -> str:
    names = list_values(configs, "dataset.name") or [
        name_target(one) for one in list_values(configs, "dataset._target_")
    ]
    parts = [join_values(names)] if names else []
    if sizes := list_values(configs, "dataset.train_size"):
        parts.append(f"D = {'all' if sizes == [None] else join_values(sizes)}")
    draws = [seed for seed in list_values(configs, "dataset.data_seed") if seed is not None]
    if draws:
        parts.append(f"{len(draws)} balanced draw{'s' if len(draws) > 1 else ''}")
    if len(probes := list_values(configs, "dataset.probe_seed")) > 1:
        parts.append(f"{len(probes)} probes")
    if True in list_values(configs, "dataset.standardize"):
        parts.append("inputs standardised")
    if dims := [dim for dim in list_values(configs, "dataset.input_dim") if dim is not None]:
        parts.append(f"input dimension {join_values(dims)}")
    return ", ".join(parts)


def _describe_model(configs: Sequence[Mapping[str, object]]) -> str:
    parts = []
    targets, activations = list_values(configs, "model._target_"), list_values(configs, "model.activation")
    if targets and all(is_ours(one) and name_target(one) == DENSE for one in targets):
        names = [{"relu": "ReLU"}.get(str(one), str(one)) for one in activations]
        parts.append(" ".join(["dense", "/".join(names), "network"]) if names else "dense network")
    elif targets:
        parts.append(join_values([name_target(one) for one in targets]))
        parts += [join_values(activations)] if activations else []
    if depths := list_values(configs, "model.depth"):
        parts.append(f"depth {join_values(depths)}")
    return ", ".join([*parts, *_describe_rest(configs, "model")])


def _describe_trace(configs: Sequence[Mapping[str, object]]) -> str:
    """Return by how many draws of random signs the trace is estimated; nothing where it is exact."""
    estimated = [one for one in configs if one.get("ntk.trace") == "estimate"]
    if not estimated:
        return ""
    text = f"estimated from {join_values(list_values(estimated, 'ntk.trace_draws'))} draws of random signs"
    return text if len(estimated) == len(configs) else f"{text}, or exact"


def _describe_initialisation(configs: Sequence[Mapping[str, object]]) -> str:
    words = {"standard": "standard (LeCun normal)"}
    return ", ".join(words.get(str(one), str(one)) for one in list_values(configs, "model.parameterization"))


def _describe_optimiser(configs: Sequence[Mapping[str, object]]) -> str:
    targets = [name_target(one) for one in list_values(configs, "optimizer._target_")]
    parts = [join_values([name_optimiser(one, is_full_batch(configs)) for one in targets])]
    if steps := list_values(configs, "optimizer.learning_rate"):
        given = [step for step in steps if isinstance(step, int | float)]
        parts += [f"η = {join_values(given)}"] if given else []
        parts += ["η = c (1 − momentum)/λ_0"] if AUTO in steps else []
        parts += ["η by a pilot"] if RESOLVED in steps else []
        divided = [config for config in configs if config.get("protocol.step_divisor", 1) != 1]
        also = "" if len(divided) == len(configs) else "also "
        parts += [f"{also}divided by {join_values(list_values(divided, 'protocol.step_divisor'))}"] if divided else []
    return ", ".join(filter(None, [*parts, *_describe_rest(configs, "optimizer")]))


def _describe_training(configs: Sequence[Mapping[str, object]]) -> str:
    parts = []
    if batches := list_values(configs, "training.batch_size"):
        parts.append("full batch" if batches == [None] else f"batches of {join_values(batches)}")
    if losses := list_values(configs, "training.loss"):
        parts.append(join_values([LOSSES.get(str(one), str(one)) for one in losses]))
    if epochs := list_values(configs, "training.epochs"):
        parts.append(f"{join_values(epochs)} epochs")
    if stops := [one for one in list_values(configs, "training.stop_after") if one is not None]:
        parts.append(f"or {join_values(stops)} past the minimum")
    return ", ".join(parts)


def _describe_rest(configs: Sequence[Mapping[str, object]], group: str) -> list[str]:
    keys = dict.fromkeys(key for config in configs for key in config if key.startswith(f"{group}."))
    rest = []
    for key in keys:
        values = list_values(configs, key)
        if key.removeprefix(f"{group}.") in DESCRIBED[group] or (key in PLAIN and values == [PLAIN[key]]):
            continue
        if all(isinstance(value, bool | int | float | str) for value in values):
            rest.append(f"{key.removeprefix(f'{group}.')} = {join_values(values)}")
    return rest


def _describe_seeds(data: xr.Dataset, runs: Sequence[str] | None) -> str:
    counts = count_seeds(data, runs)
    if not counts.size:
        return ""
    least, most = int(counts.min()), int(counts.max())
    return f"{least}" if least == most else f"{least} … {most}"


def _say(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {None: "null", True: "yes", False: "no"}[value]
    if isinstance(value, float) and not math.isfinite(value):
        return "null"
    return describe_value(value) if isinstance(value, float) else str(value)
