"""The schema of the configuration and its registration with Hydra.

The schema holds types; the values live in conf/. A key that the schema lacks fails at composition.
"""

from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

GIB = 2**30  # bytes: the unit of ntk.memory_limit
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
NEUTRAL = "neutral"  # of a field's metadata
KERNEL, PARAMETERS = "kernel", "parameters"
KEPT = (KERNEL, PARAMETERS)  # what `keep` may list


def added_later(neutral: Any) -> Any:
    """Return the field of an option that came after results were published whose configuration lacks it.

    Args:
      neutral: the value that does what was done before. Keys leave the option out where it has this value, whatever its
        default is; so earlier results keep their keys, and another value, or another default, has a key of its own.
    """
    return field(default=MISSING, metadata={NEUTRAL: neutral})


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
    metrics: list[str] = MISSING


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


def list_neutral() -> dict[str, Any]:
    """Return {override's name: neutral value} of the options that came later, see `added_later`."""
    places = [("", Config), *((f"{entry.name}.", entry.type) for entry in fields(Config) if is_dataclass(entry.type))]
    places += [(f"{group}.", SCHEMAS[name]) for group, names in GROUP_SCHEMAS.items() for name in names]
    return {
        f"{prefix}{entry.name}": entry.metadata[NEUTRAL]
        for prefix, schema in places
        for entry in fields(schema)
        if NEUTRAL in entry.metadata
    }


def register_schemas() -> None:
    """Put the schemas where the defaults lists of conf/ find them: `/schema/<name>`."""
    store = ConfigStore.instance()
    for name, schema in SCHEMAS.items():
        store.store(group="schema", name=name, node=schema, provider="ntklens")


def find_config_directory() -> Path:
    """Return the folder conf/: inside the installed package, or beside src/ in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


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
