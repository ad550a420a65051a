"""What a configuration will cost, from its model, data and schedule; nothing is compiled or trained."""

import contextlib
import functools
import json
import math
from typing import Any

import jax
from omegaconf import DictConfig, OmegaConf

from ntklens.config.identity import RESOLVED, STEP_RULES, find_step_rule
from ntklens.config.options import name_choice
from ntklens.data import Dataset
from ntklens.errors import InputError
from ntklens.jobs.build import build_trainer, count_member_needs, count_sizes, describe_sample, make_record_steps
from ntklens.jobs.datasets import choose_any, load_dataset_sizes
from ntklens.jobs.needs import Needs, Sizes
from ntklens.recording.quantities import PREVIOUS, list_needs
from ntklens.sweep.cost import Cost, Workload
from ntklens.sweep.counting import count_checkpoint_bytes, count_workload
from ntklens.training.ensemble import Trainer, trains_faster_alone
from ntklens.training.schedule import choose_sparse

# A pilot's usual round; λ_0: some 40 products with the Hessian, each of two updates' operations. A pilot's record
# has losses alone, about a quarter of the operations of a run's.
ROUND_UPDATES, ROUND_RECORDS, SHARPNESS_UPDATES, LOSSES_SHARE = 300, 32, 80, 0.25
GRID = 1.1  # widths and sizes are rounded up to powers of this: a thousand widths then cost sixty traces
COUNTED = ("model", "optimizer", "precision", "metrics", "ntk")  # what a member's programs depend on, beside training


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
    relevant["ntk"] = {name: value for name, value in plain["ntk"].items() if name != "memory_limit"}
    rule = find_step_rule(cfg.optimizer)
    if rule is None:
        relevant["optimizer"]["learning_rate"] = 0.0
    relevant["dataset"] = choose_any(plain["dataset"])
    try:
        cost = _estimate_rounded(relevant)
        pilot = _estimate_pilot(cost.workload, rule) if rule else None
        return cost._replace(pilot=pilot, programs=_name_programs(relevant))
    except InputError:
        raise
    except Exception as error:  # whatever a model says when it is traced
        raise InputError(f"{name_choice('model', cfg.model._target_)}: {type(error).__name__}: {error}") from error


def _name_programs(relevant: dict[str, Any]) -> str:
    """Return a name of what is compiled: steps, rates and numbers of updates are no part of a program."""
    training = {name: relevant["training"][name] for name in ("loss", "batch_size")}
    return json.dumps([training, relevant["dataset"], *(relevant[name] for name in COUNTED)], sort_keys=True)


def _estimate_rounded(relevant: dict[str, Any]) -> Cost:
    """Estimate at a width rounded up, or as it is where the model refuses that: its heads may not divide it."""
    model = relevant["model"]
    if model.get("width") and round_up(model["width"]) != model["width"]:
        rounded = relevant | {"model": model | {"width": round_up(model["width"])}}
        with contextlib.suppress(Exception):
            return _estimate(json.dumps(rounded, sort_keys=True))
    return _estimate(json.dumps(relevant, sort_keys=True))


def _estimate_pilot(run: Workload, rule: str) -> Workload:
    """Return what a pilot does: usually one round of some 300 updates; of λ_0 alone, some 40 products."""
    updates, records = (ROUND_UPDATES, ROUND_RECORDS) if rule == STEP_RULES[RESOLVED] else (SHARPNESS_UPDATES, 0)
    kernels = run.kernels * records / max(run.records, 1) * LOSSES_SHARE
    return Workload(run.training * updates / max(run.updates, 1), kernels, 0.0, updates, records)


def round_up(width: int) -> int:
    """Return the width, or the next power of `GRID` above it where that is coarser than the integers."""
    if width * (GRID - 1) < 1:
        return width
    return math.ceil(GRID ** math.ceil(math.log(width) / math.log(GRID) - 1e-9) - 1e-9)


@functools.cache
def _estimate(relevant: str) -> Cost:
    cfg = OmegaConf.create(json.loads(relevant))
    assert isinstance(cfg, DictConfig)
    jax.config.update("jax_enable_x64", cfg.precision == "float64")
    dataset = load_dataset_sizes(cfg)
    trainer = build_trainer(cfg, dataset)
    needs = _count_needs(cfg, trainer, dataset)
    steps = make_record_steps(cfg, trainer, len(dataset.train))
    spectra = int(choose_sparse(steps, cfg.schedule.spectrum_ratio).sum())
    kernels = len(list_needs(cfg.metrics) & {PREVIOUS})
    return Cost(
        count_workload(needs, int(steps[-1]), len(steps), spectra),
        needs.estimate_memory(describe_sample(dataset), count_sizes(dataset), tuple(cfg.metrics)),
        1 if trains_faster_alone(needs.params) else None,
        count_checkpoint_bytes(needs, len(steps), kernels),
    )


def _count_needs(cfg: DictConfig, trainer: Trainer, dataset: Dataset) -> Needs:
    """Count what a member takes, once for all configurations whose programs and rounded sizes are alike."""
    plain: Any = OmegaConf.to_container(cfg)
    training = {name: plain["training"][name] for name in ("loss", "batch_size")}
    sample, sizes = describe_sample(dataset), count_sizes(dataset)
    sizes = Sizes(round_up(sizes.train), round_up(sizes.selection), round_up(sizes.test), sizes.probe)
    text = json.dumps([training, *(plain[name] for name in COUNTED)], sort_keys=True)
    key = (text, sample.shape, str(sample.dtype), dataset.classes, sizes)
    if key not in _NEEDS:
        _NEEDS[key] = count_member_needs(cfg, trainer, dataset, sizes)
    return _NEEDS[key]


_NEEDS: dict[tuple[Any, ...], Needs] = {}
