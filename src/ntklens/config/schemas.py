"""The schema of the configuration and its registration with Hydra.

The schema holds types; the values live in conf/. A key that the schema lacks fails at composition.
"""

from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

GIB = 2**30  # bytes: the unit of ntk.memory_limit
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
    **dict.fromkeys(("init", "param", "parametrization", "parameterisation"), "model.parameterization"),
    **dict.fromkeys(("dtype", "float"), "precision"),
    **dict.fromkeys(("network", "net", "arch", "architecture"), "model"),
    **dict.fromkeys(("random_seed", "rng"), "seed"),
    **dict.fromkeys(("wandb", "logger", "logging"), "tracking"),
}
NEUTRAL = "neutral"  # of a field's metadata
# The same of arguments of models, datasets and optimizers, by the override's name: {"model.residual": False}.
LATER_ARGUMENTS: dict[str, Any] = {
    "model.base_width": 128,
    "model.output_scale": None,
    "model.linearised": False,
    "dataset.input_dim": None,
    "dataset.probe_seed": None,
}
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
class TrainingConfig:
    """What a protocol sets."""

    epochs: int = MISSING
    loss: str = MISSING
    batch_size: int | None = MISSING
    stop_after: int | None = MISSING


@dataclass
class ProtocolConfig:
    """How a run's step is chosen."""

    arm: str = added_later("paper")
    step_divisor: float = added_later(1.0)


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
    probes: int = added_later(1)
    trace: str = added_later("exact")
    trace_draws: int = added_later(16)


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
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
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


# Options of an earlier release named these in their defaults lists; today their types come from their targets.
EARLIER_SCHEMAS = ("mlp", "file_dataset", "synthetic", "adam", "adamw", "sgd", "momentum", "wandb")


def list_neutral() -> dict[str, Any]:
    """Return {override's name: neutral value} of the options that came later, see `added_later`."""
    places = [("", Config), *((f"{entry.name}.", entry.type) for entry in fields(Config) if is_dataclass(entry.type))]
    return LATER_ARGUMENTS | {
        f"{prefix}{entry.name}": entry.metadata[NEUTRAL]
        for prefix, schema in places
        for entry in fields(schema)
        if NEUTRAL in entry.metadata
    }


def register_schemas() -> None:
    """Put the schema where the defaults list of conf/config.yaml finds it: `/schema/config`."""
    store = ConfigStore.instance()
    store.store(group="schema", name="config", node=Config, provider="ntklens")
    for name in EARLIER_SCHEMAS:
        store.store(group="schema", name=name, node={}, provider="ntklens")


def find_config_directory() -> Path:
    """Return the folder conf/: inside the installed package, or beside src/ in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"
