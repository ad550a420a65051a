"""What a configuration will cost, from its model, data and schedule; nothing is compiled or trained."""

import functools
import json
import math
from typing import Any

import jax
from omegaconf import DictConfig, OmegaConf

from ntklens.config.identity import RESOLVED, STEP_RULES, find_step_rule
from ntklens.data import Dataset
from ntklens.data.check import load_checked
from ntklens.errors import InputError
from ntklens.jobs.build import build_trainer, describe_sample, estimate_need, make_record_steps
from ntklens.recording.quantities import PREVIOUS, list_needs
from ntklens.sweep.cost import Cost, Workload
from ntklens.sweep.counting import count_checkpoint_bytes, count_operations, count_workload
from ntklens.training.ensemble import trains_faster_alone
from ntklens.training.schedule import choose_sparse

# A pilot's usual round; λ_0: some 40 products with the Hessian, each of two updates' operations. A pilot's record
# has losses alone, about a quarter of the operations of a run's.
ROUND_UPDATES, ROUND_RECORDS, SHARPNESS_UPDATES, LOSSES_SHARE = 300, 32, 80, 0.25
WIDTH_GRID = 1.1  # widths are rounded up to powers of this: a thousand widths then cost sixty traces


def estimate_cost(cfg: DictConfig) -> Cost:
    """Return what a checked configuration needs.

    Raises:
      InputError: if its data are missing or too few, its batch is too large, or its model cannot be traced.
    """
    load_dataset_sizes(cfg)
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    relevant = {name: plain[name] for name in ("model", "dataset", "optimizer", "training", "schedule", "precision")}
    relevant["metrics"] = plain.get("metrics") or []
    relevant["optimizer"]["learning_rate"] = 0.0
    relevant["dataset"] = _choose_any(plain["dataset"])
    if relevant["model"].get("width"):
        relevant["model"]["width"] = round_up(relevant["model"]["width"])
    try:
        cost = _estimate(json.dumps(relevant, sort_keys=True))
        rule = find_step_rule(cfg.optimizer)
        return cost._replace(pilot=_estimate_pilot(cost.workload, rule) if rule else None)
    except InputError:
        raise
    except Exception as error:  # whatever a model says when it is traced
        raise InputError(f"model._target_={cfg.model._target_}: {type(error).__name__}: {error}") from error


def _estimate_pilot(run: Workload, rule: str) -> Workload:
    """Return what a pilot does: usually one round of some 300 updates; of λ_0 alone, some 40 products."""
    updates, records = (ROUND_UPDATES, ROUND_RECORDS) if rule == STEP_RULES[RESOLVED] else (SHARPNESS_UPDATES, 0)
    kernels = run.kernels * records / max(run.records, 1) * LOSSES_SHARE
    return Workload(run.training * updates / max(run.updates, 1), kernels, 0.0, updates, records)


def round_up(width: int) -> int:
    """Return the width, or the next power of `WIDTH_GRID` above it where that is coarser than the integers."""
    if width * (WIDTH_GRID - 1) < 1:
        return width
    return math.ceil(WIDTH_GRID ** math.ceil(math.log(width) / math.log(WIDTH_GRID) - 1e-9) - 1e-9)


def load_dataset_sizes(cfg: DictConfig) -> Dataset:
    """Return a dataset of the configuration's sizes; which samples it holds (`data_seed`, `probe_seed`) may differ."""
    plain: dict[str, Any] = OmegaConf.to_container(cfg.dataset, resolve=True)  # type: ignore[assignment]
    return _load(json.dumps(_choose_any(plain), sort_keys=True))


def _choose_any(node: dict[str, Any]) -> dict[str, Any]:
    """Return a dataset's settings with one choice of the samples that it draws."""
    return node | {name: 0 for name in ("data_seed", "probe_seed") if node.get(name)}


@functools.lru_cache(maxsize=4)
def _load(node: str) -> Dataset:
    return load_checked(OmegaConf.create(json.loads(node)))


@functools.cache
def _estimate(relevant: str) -> Cost:
    cfg = OmegaConf.create(json.loads(relevant))
    assert isinstance(cfg, DictConfig)
    jax.config.update("jax_enable_x64", cfg.precision == "float64")
    dataset = _load(json.dumps(json.loads(relevant)["dataset"], sort_keys=True))
    trainer = build_trainer(cfg, dataset)
    params = jax.eval_shape(trainer.init, jax.random.key(0))
    opt_state = jax.eval_shape(trainer.optimizer(0.0).init, params)
    steps = make_record_steps(cfg, trainer, len(dataset.train))
    sample = describe_sample(dataset)
    sample = jax.ShapeDtypeStruct((1, *sample.shape), sample.dtype)
    outputs, metrics = (len(dataset.probe), dataset.classes), list(cfg.metrics)
    kernels = len(list_needs(metrics) & {PREVIOUS})
    workload = count_workload(
        count_operations(trainer.apply, params, sample),
        params,
        outputs,
        trainer.batch_size or len(dataset.train),
        int(steps[-1]),
        len(steps),
        int(choose_sparse(steps, cfg.schedule.spectrum_ratio).sum()),
        len(dataset.train) + len(dataset.selection) + len(dataset.test),
    )
    return Cost(
        workload,
        estimate_need(trainer, dataset, metrics),
        1 if trains_faster_alone(params) else None,
        count_checkpoint_bytes(params, opt_state, len(steps), math.prod(outputs), kernels),
    )
