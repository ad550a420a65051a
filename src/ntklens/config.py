"""The configuration: its schema, its registration with Hydra, and the checks that a type cannot express.

The schema holds types; the values live in conf/. A key that the schema lacks fails at composition.
"""

import difflib
import inspect
import math
import pydoc
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from ntklens.errors import InputError
from ntklens.lines import find_key, get_words
from ntklens.snapshots import KEPT

GIB = 2**30  # bytes: the unit of ntk.memory_limit


@dataclass
class MLPConfig:
    """Arguments of `models.mlp.MLP`."""

    _target_: str = MISSING
    width: int = MISSING
    depth: int = MISSING
    activation: str = MISSING
    bias: bool = MISSING
    parameterization: str = MISSING


@dataclass
class DatasetConfig:
    """What every loader takes."""

    _target_: str = MISSING
    name: str = MISSING
    train_size: int | None = MISSING
    test_size: int | None = MISSING
    probe_size: int = MISSING
    data_seed: int | None = MISSING
    standardize: bool = MISSING


@dataclass
class FileDatasetConfig(DatasetConfig):
    """Arguments of a loader of files."""

    root: str | None = MISSING


@dataclass
class SyntheticConfig(DatasetConfig):
    """Arguments of `data.synthetic.load`."""

    input_dim: int = MISSING
    classes: int = MISSING
    teacher_width: int = MISSING
    teacher_depth: int = MISSING
    teacher_seed: int = MISSING


@dataclass
class OptimizerConfig:
    """Arguments of `optax.sgd`."""

    _target_: str = MISSING
    learning_rate: float = MISSING


@dataclass
class AdamConfig(OptimizerConfig):
    """Arguments of `optax.adam`."""

    b1: float = MISSING
    b2: float = MISSING
    eps: float = MISSING


@dataclass
class AdamWConfig(AdamConfig):
    """Arguments of `optax.adamw`."""

    weight_decay: float = MISSING


@dataclass
class MomentumConfig(OptimizerConfig):
    """Arguments of `optax.sgd` with momentum."""

    momentum: float = MISSING
    nesterov: bool = MISSING


@dataclass
class TrainingConfig:
    """What a protocol sets."""

    epochs: int = MISSING
    loss: str = MISSING
    batch_size: int | None = MISSING
    stop_after: int | None = MISSING


@dataclass
class ScheduleConfig:
    """When a run is looked at."""

    record_ratio: float = MISSING
    spectrum_ratio: float = MISSING


@dataclass
class NTKConfig:
    """How kernels are computed."""

    engine: str = MISSING
    memory_limit: float | None = MISSING


@dataclass
class CheckpointConfig:
    """When a seed's checkpoint is written."""

    minutes: float | None = MISSING
    grace: float = MISSING


@dataclass
class LaunchConfig:
    """How a sweep is spread over processes."""

    workers: int | None = MISSING
    wait: bool = MISSING


@dataclass
class SlurmSettings:
    """What jobs ask SLURM for: the values of hydra/launcher=slurm_gpu and slurm_cpu.

    Attributes:
      partition, account, qos, constraint, exclude, comment: as sbatch takes them.
      gpus: of each process; 0: it computes on processors.
      cpus: of each process.
      processes: of each task, on one node: for clusters that give whole nodes. They share the task's seeds.
      memory_gb: of each task's node; None: by the plan.
      gpu_memory_gb: of each GPU, for the plan alone; None: 16.
      minutes: time limit of each task; None: by the plan, at most `most_minutes`. What takes longer is checkpointed and
        put into the queue again.
      most_minutes: longest time limit to ask for.
      task_minutes: of estimated work that a task is cut to; None: 2 to 60, so that `launch.workers` tasks side by side
        (16 if unset) run some six each.
      side_by_side: tasks that may run at a time.
      setup: lines of shell before the job, such as `module load cuda`.
      more: further options of sbatch, name → value; true for those without a value.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    comment: str | None = None
    gpus: int = 0
    cpus: int = 1
    processes: int = 1
    memory_gb: float | None = None
    gpu_memory_gb: float | None = None
    minutes: int | None = None
    most_minutes: int = 1440
    task_minutes: float | None = None
    side_by_side: int = 256
    setup: list[str] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)


@dataclass
class WandbConfig:
    """Arguments of `tracking.wandb.WandbTracker`."""

    _target_: str = MISSING
    mode: str = MISSING
    project: str = MISSING
    entity: str | None = MISSING
    per_seed: bool = MISSING
    interval: float = MISSING
    patience: float = MISSING
    figures: bool = MISSING
    artifacts: bool = MISSING


@dataclass
class PathsConfig:
    """Where results go."""

    results: str = MISSING


@dataclass
class Config:
    """The whole configuration."""

    model: Any = MISSING
    dataset: Any = MISSING
    optimizer: Any = MISSING
    tracking: Any = MISSING
    task: Any = MISSING
    training: TrainingConfig = field(default_factory=TrainingConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    ntk: NTKConfig = field(default_factory=NTKConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    launch: LaunchConfig = field(default_factory=LaunchConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)
    name: Any = MISSING  # text; for task=report also a list of texts
    seed: int = MISSING
    ensemble: int = MISSING
    precision: str = MISSING
    retry: bool = MISSING
    replace: bool = MISSING
    keep: list[str] = MISSING


SCHEMAS = {
    "config": Config,
    "mlp": MLPConfig,
    "file_dataset": FileDatasetConfig,
    "synthetic": SyntheticConfig,
    "adam": AdamConfig,
    "adamw": AdamWConfig,
    "sgd": OptimizerConfig,
    "momentum": MomentumConfig,
    "wandb": WandbConfig,
}


# The schemas of a group's options: where a key that was typed without its group, or with another option, belongs.
GROUP_SCHEMAS = {
    "model": ("mlp",),
    "dataset": ("file_dataset", "synthetic"),
    "optimizer": ("sgd", "momentum", "adam", "adamw"),
    "tracking": ("wandb",),
}
# Names that other programs give to keys of ours.
ALIASES = {
    **dict.fromkeys(("seeds", "n_seeds", "num_seeds", "ensemble_size", "members", "repeats", "runs"), "ensemble"),
    **dict.fromkeys(("lr", "step_size", "learningrate", "eta"), "optimizer.learning_rate"),
    **dict.fromkeys(("hidden", "hidden_size", "hidden_dim", "widths", "units"), "model.width"),
    **dict.fromkeys(("layers", "n_layers", "num_layers", "depths"), "model.depth"),
    **dict.fromkeys(("batch", "batchsize", "bs"), "training.batch_size"),
    **dict.fromkeys(("epoch", "n_epochs", "num_epochs", "steps", "max_epochs"), "training.epochs"),
    **dict.fromkeys(("n_train", "num_train", "samples", "train_samples", "size"), "dataset.train_size"),
    **dict.fromkeys(("data", "datasets"), "dataset"),
    **dict.fromkeys(("data_dir", "data_root", "datadir", "root"), "dataset.root"),
    **dict.fromkeys(("opt", "optim"), "optimizer"),
    **dict.fromkeys(("out", "output", "output_dir", "outdir", "results", "save_dir", "folder"), "paths.results"),
    **dict.fromkeys(("workers", "n_jobs", "num_workers", "jobs", "processes"), "launch.workers"),
    **dict.fromkeys(("init", "param"), "model.parameterization"),
    **dict.fromkeys(("dtype", "float"), "precision"),
    **dict.fromkeys(("network", "net", "arch", "architecture"), "model"),
    **dict.fromkeys(("random_seed", "rng"), "seed"),
    **dict.fromkeys(("wandb", "logger", "logging"), "tracking"),
}


def register_schemas() -> None:
    """Put the schemas where the defaults lists of conf/ find them: `/schema/<name>`."""
    store = ConfigStore.instance()
    for name, schema in SCHEMAS.items():
        store.store(group="schema", name=name, node=schema, provider="ntklens")


def find_config_directory() -> Path:
    """Return the folder conf/: inside the installed package, or beside src/ in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


def construct(node: DictConfig, **arguments: Any) -> Any:
    """Call the node's `_target_` with its other values and `arguments`; its errors pass through as they are."""
    values = {str(key): value for key, value in node.items() if key != "_target_"}
    try:
        target = pydoc.locate(node._target_)
        if not callable(target):
            raise InputError(f"_target_={node._target_}: there is no such class or function")
        inspect.signature(target).bind(**values, **arguments)
    except (pydoc.ErrorDuringImport, TypeError) as error:
        raise InputError(f"_target_={node._target_}: {error}") from error
    return target(**values, **arguments)


def _at_least(low: float) -> tuple[Callable[[Any], bool], str]:
    kind = "a positive integer" if low == 1 else f"{low:g} or more"
    return lambda value: value >= low, f"must be {kind}"


_SECONDS: tuple[Callable[[Any], bool], str] = (lambda value: value >= 1, "must be 1 or more, in seconds")


def _one_of(*options: str) -> tuple[Callable[[Any], bool], str]:
    return lambda value: value in options, f"must be one of {', '.join(options)}"


def list_names(name: Any) -> list[str]:
    """Return the names of sweeps that `name` holds: it is one, or a list of them."""
    return [str(one) for one in name] if OmegaConf.is_list(name) else [str(name)]


def _is_folder_name(name: str) -> bool:
    return 0 < len(name) <= 200 and name not in (".", "..") and not set(name) & set("/\\\0\n")


def _positive() -> tuple[Callable[[Any], bool], str]:
    return lambda value: math.isfinite(value) and value > 0, "must be a positive number"


def _within(low: float, high: float) -> tuple[Callable[[Any], bool], str]:
    return lambda value: low <= value < high, f"must lie in [{low:g}, {high:g})"


CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "model.width": _at_least(1),
    "model.depth": _at_least(1),
    "dataset.train_size": _at_least(1),
    "dataset.test_size": _at_least(2),
    "dataset.probe_size": _at_least(1),
    "dataset.data_seed": _at_least(0),
    "dataset.input_dim": _at_least(1),
    "dataset.classes": _at_least(2),
    "dataset.teacher_width": _at_least(1),
    "dataset.teacher_depth": _at_least(1),
    "dataset.teacher_seed": _at_least(0),
    "optimizer.learning_rate": _positive(),
    "optimizer.momentum": _within(0, 1),
    "optimizer.b1": _within(0, 1),
    "optimizer.b2": _within(0, 1),
    "optimizer.eps": _positive(),
    "optimizer.weight_decay": _at_least(0),
    "training.epochs": _at_least(1),
    "training.loss": _one_of("cross_entropy", "mse"),
    "training.batch_size": _at_least(1),
    "training.stop_after": _at_least(1),
    "schedule.record_ratio": (lambda value: 1 < value <= 1.08, "must be above 1 and at most 1.08"),
    "schedule.spectrum_ratio": (lambda value: 1 < value < math.inf, "must be above 1"),
    "ntk.engine": _one_of("structured", "neural_tangents"),
    "ntk.memory_limit": _positive(),
    "checkpoint.minutes": _positive(),
    "checkpoint.grace": _positive(),
    "launch.workers": _at_least(1),
    "tracking.mode": _one_of("auto", "online", "offline", "disabled"),
    "tracking.project": (
        lambda value: 0 < len(value) <= 128 and not set(value) & set("/\\#?%:"),
        "must be a project's name: 1 to 128 characters, none of / \\ # ? % :",
    ),
    "tracking.entity": (
        lambda value: value is None or re.fullmatch(r"[A-Za-z0-9_.-]{1,128}", value) is not None,
        "must be the name of a user or a team: letters, digits, - _ .",
    ),
    "tracking.interval": _SECONDS,
    "tracking.patience": _SECONDS,
    "task.format": _one_of("table", "json"),
    "seed": (lambda value: 0 <= value < 2**32, "must be an integer from 0 to 2^32 - 1"),
    "ensemble": _at_least(1),
    "precision": _one_of("float32", "float64"),
    "keep": (lambda value: set(value) <= set(KEPT), f"must list none, one or both of {', '.join(KEPT)}"),
    "paths.results": (bool, "must name a folder"),
    "name": (
        lambda value: all(_is_folder_name(name) for name in list_names(value)) and bool(list_names(value)),
        "must be a folder's name: 1 to 200 characters, no slash",
    ),
}


def suggest_key(key: str) -> str | None:
    """Return the key that is meant by one that does not exist: its other name, or the group that it belongs to.

    Args:
      key: as typed: `width`, `seeds`, `optimizer.lr`.
    """
    leaf = key.rpartition(".")[2].lower()
    if leaf in ALIASES and ALIASES[leaf] != key:
        return ALIASES[leaf]
    places = [
        f"{name}.{leaf}"
        for name, schemas in GROUP_SCHEMAS.items()
        if any(leaf in {entry.name for entry in fields(SCHEMAS[one])} for one in schemas)
    ]
    places += [
        f"{entry.name}.{leaf}"
        for entry in fields(Config)
        if is_dataclass(entry.type) and leaf in {inner.name for inner in fields(entry.type)}
    ]
    places += [entry.name for entry in fields(Config) if entry.name == leaf]
    return next((place for place in places if place != key), None)


def describe_unknown_key(key: str, known: Iterable[str]) -> str:
    """Return the line for a key that its group does not have, with the nearest one that there is.

    Args:
      key: as typed, `model.widht`.
      known: the keys of its group.
    """
    group, _, leaf = key.rpartition(".")
    names = sorted(name for name in known if name != "_target_")
    hint = _find_typed_hint(key) or _find_near(group, leaf, names)
    return f"{key}: unknown key; {hint or 'there are ' + ', '.join(names)}"


def _find_near(group: str, leaf: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(leaf, names, n=1)
    return f"did you mean {f'{group}.' if group else ''}{near[0]}" if near else ""


def _find_typed_hint(key: str) -> str:
    """Return what to type instead of a key that has another name or belongs to another option, with its value."""
    values = [word.partition("=")[2] for word in get_words() if "=" in word and find_key(word) == key]
    value = f"={values[-1]}" if values else ""
    group, _, leaf = key.rpartition(".")
    if group in ("dataset", "optimizer"):
        others = [name for name in GROUP_SCHEMAS[group] if leaf in {entry.name for entry in fields(SCHEMAS[name])}]
        if others:
            options = ["mnist" if name == "file_dataset" else name for name in others]
            listed = " or ".join(f"{group}={option}" for option in options)
            return f"it belongs to {listed}; type {group}={options[0]} {key}{value}"
    right = suggest_key(key)
    return f"did you mean {right}{value}" if right else ""


def validate(cfg: DictConfig) -> None:
    """Check every value that a type cannot express.

    Args:
      cfg: the composed configuration.

    Raises:
      InputError: naming the override to type.
    """
    if cfg.name is None:
        raise InputError("name=null: must be a folder's name; leave name out for the default, or type name=NAME")
    if not OmegaConf.is_list(cfg.name):
        cfg.name = str(cfg.name)
    elif not cfg.task._target_.endswith(".report"):
        raise InputError(f"name={list_names(cfg.name)}: several names are for task=report; name one sweep")
    for group in ("model", "dataset", "optimizer", "tracking", "task"):
        if not OmegaConf.is_dict(cfg[group]):
            raise InputError(f"{group}={cfg[group]}: must be one of conf/{group}")
    for prefix, node in [
        ("", cfg),
        *((f"{name!s}.", group) for name, group in cfg.items() if OmegaConf.is_dict(group)),
    ]:
        schema = OmegaConf.get_type(node)
        known = {entry.name for entry in fields(schema)} if is_dataclass(schema) else set(node)
        if unknown := [str(key) for key in node if key not in known]:
            raise InputError(describe_unknown_key(f"{prefix}{unknown[0]}", known))
    for key, (holds, rule) in CHECKS.items():
        group, _, leaf = key.rpartition(".")
        node = cfg[group] if group else cfg
        value = node.get(leaf) if leaf in node else None
        if value is not None and not holds(value):
            raise InputError(f"{key}={value}: {rule}")
    last_seed = cfg.seed + cfg.ensemble - 1
    if last_seed >= 2**32:
        raise InputError(f"seed={cfg.seed}: with ensemble={cfg.ensemble} the last seed is above 2^32 - 1")
