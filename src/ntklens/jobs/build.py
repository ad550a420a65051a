"""From a configuration to what trains and measures it."""

import functools
import json
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from omegaconf import DictConfig, OmegaConf

from ntklens.config.identity import find_step_rule
from ntklens.data import Dataset
from ntklens.data.probes import choose_probes
from ntklens.errors import InputError
from ntklens.jobs.datasets import load_dataset
from ntklens.jobs.limit import check_metrics_limit
from ntklens.jobs.models import build_model
from ntklens.jobs.needs import Needs, Sizes, count_needs
from ntklens.jobs.optimizers import build_optimizer
from ntklens.ntk.projection import MOST_OUTPUTS
from ntklens.recording.measure import Measurer
from ntklens.recording.quantities import QUANTITIES, TWIN, list_metrics
from ntklens.training.controls import add_controls
from ntklens.training.ensemble import Trainer
from ntklens.training.losses import LOSSES
from ntklens.training.memory import MemoryNeed
from ntklens.training.schedule import make_geometric_steps

KEPT = 4  # trainers whose programs stay in memory, some 30 MB each: a sweep's axes may come back to a network


class Built(NamedTuple):
    """What a configuration makes.

    Attributes:
      dataset: loaded and checked.
      trainer: of its model, optimizer and loss.
      steps: the updates at which a run is looked at, shape [K].
      need: memory that training and measuring need.
    """

    dataset: Dataset
    trainer: Trainer
    steps: np.ndarray
    need: MemoryNeed


def build(cfg: DictConfig) -> Built:
    """Load the data and build what trains a configuration, in its precision; nothing is written.

    Returns:
      What it makes.

    Raises:
      InputError: if something in the configuration cannot be had.
    """
    jax.config.update("jax_enable_x64", cfg.precision == "float64")
    dataset = load_dataset(cfg)
    trainer = build_trainer(cfg, dataset)
    steps = make_record_steps(cfg, trainer, len(dataset.train))
    return Built(dataset, trainer, steps, estimate_need(cfg, trainer, dataset))


def build_trainer(cfg: DictConfig, dataset: Dataset) -> Trainer:
    """Return what trains a configuration; configurations that differ in the learning rate share one, and its programs.

    Raises:
      InputError: if the batch is larger than the training set, or a quantity needs a twin that there is none of.
    """
    batch_size = cfg.training.batch_size
    if batch_size is not None and batch_size > len(dataset.train):
        raise InputError(f"training.batch_size={batch_size}: there are {len(dataset.train)} training samples")
    optimizer = OmegaConf.create({name: value for name, value in cfg.optimizer.items() if name != "learning_rate"})
    sample = describe_sample(dataset)
    trainer = _build_trainer(
        _encode(cfg.model),
        _encode(optimizer),
        cfg.training.loss,
        batch_size,
        sample.shape,
        sample.dtype == jnp.int32,
        dataset.classes,
        cfg.precision,
    )
    choose_probes(dataset, (cfg.get("ntk") or {}).get("probes", 1))  # refused where there are too few samples
    metrics = list(cfg.get("metrics") or ())
    if trainer.twin is None and (twins := [name for name in metrics if TWIN in QUANTITIES[name].needs]):
        raise InputError(f"metrics=[{','.join(metrics)}]: {', '.join(twins)}: needs model.linearised=true")
    check_metrics_limit(cfg, dataset)
    return trainer


def describe_sample(dataset: Dataset) -> jax.ShapeDtypeStruct:
    """Return the shape and dtype of one input as the model takes it."""
    dtype = jnp.int32 if dataset.probe.holds_tokens else jnp.zeros(()).dtype
    return jax.ShapeDtypeStruct(dataset.probe.inputs.shape[1:], dtype)


@functools.lru_cache(maxsize=KEPT)
def _build_trainer(
    model: str,
    optimizer: str,
    loss: str,
    batch_size: int | None,
    shape: tuple,
    tokens: bool,
    classes: int,
    _precision: str,
) -> Trainer:
    sample = jnp.zeros((1, *shape), jnp.int32 if tokens else jnp.float32)
    network = build_model(node := OmegaConf.create(json.loads(model)), classes, sample)
    make, rates, precondition = build_optimizer(OmegaConf.create(json.loads(optimizer)), network, node)
    trainer = Trainer(network.init, network.apply, LOSSES[loss], make, batch_size, None, rates, precondition)
    if network.output_scale is None and not network.linearised:
        return trainer
    return add_controls(trainer, network.output_scale, network.linearised)


def _encode(node: DictConfig) -> str:
    return json.dumps(OmegaConf.to_container(node, resolve=True))


def projects_outputs(dataset: Dataset) -> bool:
    """Return whether the kernel is that of projected outputs: of vocabularies, which may be large."""
    return dataset.probe.holds_tokens and dataset.classes > MOST_OUTPUTS


def build_measurer(cfg: DictConfig, trainer: Trainer, dataset: Dataset) -> Measurer:
    """Return what measures the networks of a configuration."""
    ntk = cfg.ntk
    draws = ntk.trace_draws if ntk.get("trace") == "estimate" else None
    metrics = list_metrics(cfg.get("metrics") or (), ntk.get("probes", 1), draws is not None)
    return Measurer.of(trainer, ntk.engine, metrics, draws, projects_outputs(dataset))


def make_record_steps(cfg: DictConfig, trainer: Trainer, train_size: int) -> np.ndarray:
    """Return the updates at which a run is looked at, shape [K]."""
    return make_geometric_steps(
        cfg.training.epochs * trainer.count_steps_per_epoch(train_size), cfg.schedule.record_ratio
    )


def count_sizes(dataset: Dataset) -> Sizes:
    """Return the numbers of samples of a dataset's splits."""
    return Sizes(*(len(split) for split in (dataset.train, dataset.selection, dataset.test, dataset.probe)))


def count_member_needs(cfg: DictConfig, trainer: Trainer, dataset: Dataset, sizes: Sizes | None = None) -> Needs:
    """Count what one member of a configuration takes.

    Args:
      cfg: the configuration.
      trainer: what trains it.
      dataset: its data.
      sizes: numbers of samples to count with; None: those of the dataset.

    Returns:
      Operations and bytes of each program.
    """
    return count_needs(
        trainer,
        build_measurer(cfg, trainer, dataset),
        describe_sample(dataset),
        sizes or count_sizes(dataset),
        cfg.ntk.get("probes", 1),
        find_step_rule(cfg.optimizer) is not None,
    )


def estimate_need(cfg: DictConfig, trainer: Trainer, dataset: Dataset) -> MemoryNeed:
    """Return the memory that training and measuring need."""
    needs = count_member_needs(cfg, trainer, dataset)
    return needs.estimate_memory(describe_sample(dataset), count_sizes(dataset), tuple(cfg.get("metrics") or ()))
