"""The checks that a type cannot express, one line each, before anything is written."""

import math
import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ntklens.config.identity import AUTO, RESOLVED, is_not_identity, is_same, list_neutral
from ntklens.config.lines import find_key, format_override, get_words
from ntklens.config.options import check_choices, describe_unknown_key, list_choices, name_choice, type_groups
from ntklens.config.schemas import KEPT
from ntklens.config.task import find_task
from ntklens.errors import InputError

PILOT_SEED = 2**32 - 1  # of the network on which a rule chooses the step; no run's own
DESCENDING = ("optax.sgd",)  # optimizers whose stable step is known from the curvature alone
REQUIRED = ("dataset.name", "optimizer.learning_rate")  # keys that the file of every option has

_SECONDS: tuple[Callable[[Any], bool], str] = (lambda value: value >= 1, "must be 1 or more, in seconds")


def _at_least(low: float) -> tuple[Callable[[Any], bool], str]:
    kind = "a positive integer" if low == 1 else f"{low:g} or more"
    return lambda value: value >= low, f"must be {kind}"


def _number_from(low: float) -> tuple[Callable[[Any], bool], str]:
    return lambda value: low <= value < math.inf, f"must be a number, {low:g} or more"


ONE_OF = "must be one of "


def _one_of(*options: str) -> tuple[Callable[[Any], bool], str]:
    return lambda value: value in options, f"{ONE_OF}{', '.join(options)}"


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
    "model.base_width": _at_least(1),
    "model.output_scale": _positive(),
    **dict.fromkeys(("model.kernel_size", "model.stride", "model.stages", "model.groups"), _at_least(1)),
    **dict.fromkeys(("model.patch_size", "model.heads", "model.mlp_ratio", "model.vocabulary"), _at_least(1)),
    "dataset.train_size": _at_least(1),
    "dataset.test_size": _at_least(2),
    "dataset.probe_size": _at_least(1),
    "dataset.probe_seed": _at_least(0),
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
    "optimizer.weight_decay": _number_from(0),
    "protocol.arm": _one_of("paper", "resolved"),
    "protocol.step_divisor": _number_from(1),
    "training.epochs": _at_least(1),
    "training.loss": _one_of("cross_entropy", "mse"),
    "training.batch_size": _at_least(1),
    "training.stop_after": _at_least(1),
    "schedule.record_ratio": (lambda value: 1 < value <= 1.08, "must be above 1 and at most 1.08"),
    "schedule.spectrum_ratio": (lambda value: 1 < value < math.inf, "must be above 1"),
    "ntk.engine": _one_of("structured", "neural_tangents"),
    "ntk.memory_limit": _positive(),
    "ntk.probes": _at_least(1),
    "ntk.trace": _one_of("exact", "estimate"),
    "ntk.trace_draws": _at_least(2),
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
    "keep": (
        lambda value: set(value) <= set(KEPT),
        f"must list none, one or both of {', '.join(KEPT)}, as in keep=[{','.join(KEPT)}]",
    ),
    "paths.results": (bool, "must name a folder"),
    "name": (
        lambda value: all(_is_folder_name(name) for name in list_names(value)) and bool(list_names(value)),
        "must be a folder's name: 1 to 200 characters, no slash",
    ),
}


def _holds(rule: Callable[[Any], bool], value: Any) -> bool:
    """Return whether a rule holds; of several widths, as a model of the user's own may take them, for each."""
    try:
        return rule(value)
    except TypeError:
        return OmegaConf.is_list(value) and all(_holds(rule, one) for one in value)


def _show(key: str, value: Any) -> str:
    """Return the override that gives this value."""
    return format_override(key, OmegaConf.to_container(value) if OmegaConf.is_config(value) else value)


def _leave_step_to_the_rule(cfg: DictConfig) -> None:
    """Empty the step: the number of an option's file, or of an experiment, is for runs whose step is given."""
    key = "optimizer.learning_rate"
    typed = [word for word in get_words() if find_key(word).lstrip("+") == key]
    if typed and not typed[-1].endswith("=null"):
        raise InputError(f"{typed[-1]}: protocol=resolved chooses the step; leave {key} out, or type protocol=paper")
    if OmegaConf.is_dict(cfg.optimizer) and "learning_rate" in cfg.optimizer:
        cfg.optimizer.learning_rate = RESOLVED


def _check_width(cfg: DictConfig) -> None:
    """Refuse widths of our models that are cut into parts and do not divide."""
    for part in ("heads", "groups"):
        count, ours = cfg.model.get(part), str(cfg.model._target_).startswith("ntklens.")
        if ours and count and cfg.model.width % count:
            raise InputError(f"model.width={cfg.model.width}: must be a multiple of model.{part}={count}")


def _check_step(cfg: DictConfig) -> None:
    rate, target = cfg.optimizer.learning_rate, cfg.optimizer._target_
    if rate == AUTO and target not in DESCENDING:
        raise InputError(
            f"optimizer.learning_rate={AUTO}: c (1 − momentum)/λ_0 is a rule for optimizer=sgd and momentum, "
            f"not for {name_choice('optimizer', target)}; type a number, or protocol=resolved"
        )
    ruled = rate is RESOLVED or rate == AUTO
    divisor = cfg.protocol.step_divisor
    if divisor != 1 and not ruled:
        raise InputError(
            f"protocol.step_divisor={divisor:g}: divides a step that a rule chooses; type protocol=resolved, or "
            f"optimizer.learning_rate={rate / divisor:g} without it"
        )
    if ruled and cfg.seed <= PILOT_SEED < cfg.seed + cfg.ensemble:
        raise InputError(f"seed={PILOT_SEED}: is the pilot's, where a rule chooses the step; choose other seeds")


def _check_trace(cfg: DictConfig) -> None:
    """Refuse settings of the trace that contradict each other."""
    if cfg.ntk.trace == "estimate":
        if cfg.ntk.engine != "structured":
            raise InputError(f"ntk.engine={cfg.ntk.engine}: ntk.trace=estimate needs ntk.engine=structured")
    elif not is_same(cfg.ntk.trace_draws, list_neutral()["ntk.trace_draws"]):
        raise InputError(f"ntk.trace_draws={cfg.ntk.trace_draws}: needs ntk.trace=estimate")


def _check_finite(node: Any, key: str = "") -> None:
    """Refuse infinite numbers and NaN in what a result depends on: its key could not be computed."""
    if isinstance(node, dict):
        for name, value in node.items():
            _check_finite(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for value in node:
            _check_finite(value, key)
    elif isinstance(node, float) and not math.isfinite(node) and not is_not_identity(key):
        raise InputError(f"{key}={node}: must be a finite number")


def list_all_choices() -> dict[str, str]:
    """Return {override's name: its values, separated by commas} of every setting that takes one of a few."""
    checked = {key: rule.removeprefix(ONE_OF) for key, (_, rule) in CHECKS.items() if rule.startswith(ONE_OF)}
    return dict(sorted((checked | list_choices()).items()))


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
    elif not find_task(cfg.task._target_).several_names:
        raise InputError(f"{_show('name', cfg.name)}: several names are for task=report; name one sweep")
    for group in ("model", "dataset", "optimizer", "tracking", "task"):
        if not OmegaConf.is_dict(cfg[group]):
            raise InputError(f"{group}={cfg[group]}: must be one of conf/{group}")
    if cfg.protocol.arm == "resolved":
        _leave_step_to_the_rule(cfg)
    type_groups(cfg)
    for key in REQUIRED:
        group, _, leaf = key.partition(".")
        if leaf not in cfg[group]:
            raise InputError(f"{key}: missing; the option's file gives it a value")
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
        ruled = key == "optimizer.learning_rate" and value == AUTO
        if value is not None and not ruled and not _holds(holds, value):
            raise InputError(f"{_show(key, value)}: {rule}")
    check_choices(cfg)
    _check_finite(OmegaConf.to_container(cfg, resolve=True))
    _check_width(cfg)
    _check_step(cfg)
    _check_trace(cfg)
    last_seed = cfg.seed + cfg.ensemble - 1
    if last_seed >= 2**32:
        raise InputError(f"seed={cfg.seed}: with ensemble={cfg.ensemble} the last seed is above 2^32 - 1")
