"""Identity: the same scientific configuration has the same key, and lies in the same directory."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

# What changes where, when or how fast a result is computed, but not what it is.
NOT_IDENTITY = (
    "seed",
    "ensemble",
    "name",
    "paths",
    "scaling",
    "retry",
    "replace",
    "keep",
    "metrics",
    "launch",
    "launcher",
    "tracking",
    "task",
    "device",
    "checkpoint",
    "dataset.root",
    "ntk.engine",
    "ntk.memory_limit",
)
SCHEMA_VERSION = 1
# optimizer.learning_rate where a rule chooses the step.
AUTO, RESOLVED = "auto", None
# By name and version: a rule that changes gets another, and so its runs another key.
STEP_RULES = {AUTO: "auto 1", RESOLVED: "resolved 1"}

# `_target_` today → the name by which keys know it: where a module moves, the key stays.
CANONICAL_TARGETS: dict[str, str] = {}


def is_not_identity(key: str) -> bool:
    """Return whether a setting, by its override's name, changes no result."""
    return any(key == name or key.startswith(f"{name}.") for name in NOT_IDENTITY)


def select_identity(cfg: DictConfig) -> dict[str, Any]:
    """Return the resolved configuration without what is not part of a result's identity.

    Args:
      cfg: the composed configuration.

    Returns:
      Nested plain values; groups left empty and later options of neutral value are dropped, targets have their
      canonical names, and a step that a rule chooses is that rule's name.
    """
    plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    for key in NOT_IDENTITY:
        group, _, leaf = key.rpartition(".")
        node = plain.get(group) if group else plain
        if isinstance(node, dict):
            node.pop(leaf, None)
    for key, neutral in list_neutral().items():
        group, _, leaf = key.rpartition(".")
        node = plain.get(group) if group else plain
        if isinstance(node, dict) and leaf in node and is_same(node[leaf], neutral):
            del node[leaf]
    optimizer = plain.get("optimizer")
    if isinstance(optimizer, dict) and (rule := find_step_rule(optimizer)):
        optimizer["learning_rate"] = rule
    return {name: _name_targets(value) for name, value in plain.items() if value != {}}


def find_step_rule(optimizer: Mapping[str, Any]) -> str | None:
    """Return the name and version of the rule that chooses the step; None where it is a number.

    Args:
      optimizer: the configuration's group, as plain values.
    """
    rate = optimizer.get("learning_rate", 0.0)
    return STEP_RULES[rate] if rate is RESOLVED or rate == AUTO else None


def list_neutral() -> dict[str, Any]:
    """Return {override's name: the value that does what was done before there was such an option}."""
    from ntklens.config import schemas  # not above: who reads results needs no Hydra

    return schemas.list_neutral()


def is_same(value: Any, other: Any) -> bool:
    """Return whether two plain values are equal; 1 and 1.0 are, 1 and true are not."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def _name_targets(node: Any) -> Any:
    """Return a node with the canonical name of every `_target_` in it."""
    if isinstance(node, list):
        return [_name_targets(value) for value in node]
    if not isinstance(node, dict):
        return node
    named = {name: _name_targets(value) for name, value in node.items()}
    if "_target_" in named:
        named["_target_"] = CANONICAL_TARGETS.get(named["_target_"], named["_target_"])
    return named


def compute_key(cfg: DictConfig) -> str:
    """Return the run key: the first 16 hexadecimal digits of SHA-256 of the canonical JSON of identity and schema."""
    return hash_identity(select_identity(cfg))


def hash_identity(config: dict[str, Any]) -> str:
    """Return the run key of what `select_identity` leaves of a configuration."""
    identity = {"schema": SCHEMA_VERSION, "config": config}
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def name_step(cfg: DictConfig) -> str:
    """Return a configuration's step, or its rule and what divides the step: `0.001`, `resolved`, `auto-over-3`."""
    rule = find_step_rule(cfg.optimizer)
    if rule is None:
        return f"{cfg.optimizer.learning_rate:g}"
    divisor = get_step_divisor(cfg)
    return rule.split()[0] + ("" if divisor == 1 else f"-over-{divisor:g}")


def get_step_divisor(cfg: DictConfig) -> float:
    """Return by how much the step that a rule chooses is divided: 1 where the configuration is older than that."""
    return float((cfg.get("protocol") or {}).get("step_divisor", 1.0))


def name_run(cfg: DictConfig, key: str | None = None) -> str:
    """Return the run's directory name: the settings people ask for first, then eight digits of the key.

    Args:
      cfg: the composed configuration.
      key: its run key, if that is known already.
    """
    model = cfg.model._target_.rsplit(".", 1)[-1].lower()
    optimizer = cfg.optimizer._target_.rsplit(".", 1)[-1].lower()
    size = cfg.dataset.train_size if "train_size" in cfg.dataset else None
    words = [f"{cfg.dataset.name}-{size or 'all'}", model]
    words += [f"{short}{cfg.model[name]}" for short, name in (("w", "width"), ("d", "depth")) if name in cfg.model]
    words += [optimizer, name_step(cfg)]
    return re.sub(r"[^\w.=+-]", "_", "-".join(words)) + f"-{(key or compute_key(cfg))[:8]}"
