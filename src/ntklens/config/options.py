"""The groups whose options are constructor calls: typed by the signature of what `_target_` names.

So an option of anyone's own, a YAML file in a folder given by --config-dir, is checked like those of conf/.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field, fields, is_dataclass, make_dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf

from ntklens.config.amounts import name_unit, read_meant
from ntklens.config.identity import AUTO, RESOLVED
from ntklens.config.lines import find_key, format_command, format_override, get_words, list_typed
from ntklens.config.schemas import ALIASES, Config, find_config_directory
from ntklens.config.signatures import Arguments, read_arguments
from ntklens.errors import InputError

# Group → the arguments of its targets that the program gives.
GROUPS: dict[str, tuple[str, ...]] = {"model": ("classes",), "dataset": (), "optimizer": (), "tracking": ()}
CHOSEN = (*GROUPS, "task")  # groups whose options have keys of their own
# Numbers for which optax's signatures name no plain type.
KINDS = {"optimizer.momentum": float}
READ: dict[str, Callable[[str], Any]] = {"an integer": int, "a number": float}  # kind → what reads its values
RULED = "optimizer.learning_rate"  # may be left to a rule
CHOICES = "choices"  # of a field's metadata


def type_groups(cfg: DictConfig) -> None:
    """Give each group's node the types of its target's arguments; values are converted, such as 1 to 1.0.

    Args:
      cfg: the composed configuration; changed.

    Raises:
      InputError: if there is no such target, or it lacks an argument of the node, or the step is no number.
      ValidationError: if a value is not of the argument's type.
    """
    for group in GROUPS:
        node = cfg[group]
        if OmegaConf.is_dict(node) and not _is_typed(node):
            _type_group(cfg, group, node)
    _convert_step(cfg)


def _convert_step(cfg: DictConfig) -> None:
    """Make the step a float, unless a rule chooses it.

    Raises:
      InputError: if it is neither.
    """  # noqa: DOC501
    if not OmegaConf.is_dict(cfg.optimizer) or "learning_rate" not in cfg.optimizer:
        return
    rate = cfg.optimizer.learning_rate
    if rate is RESOLVED and (cfg.get("protocol") or {}).get("arm") != "resolved":
        raise InputError(f"{RULED}=null: needs a value; leave {RULED} out for its default")
    if rate is RESOLVED or rate == AUTO:
        return
    try:
        if isinstance(rate, bool):
            raise TypeError
        cfg.optimizer.learning_rate = float(rate)
    except (TypeError, ValueError):
        raise InputError(describe_wrong_kind(RULED, rate, "a number", "0.001")) from None


def describe_wrong_kind(key: str, value: Any, kind: str, example: str) -> str:
    """Return the line for a value of another kind: where a sweep lists it, with the values that are of this kind.

    Args:
      key: as typed.
      value: as it was read.
      kind: a key of `READ`, or another that no sweep is searched for.
      example: a value of this kind.
    """
    right = ",".join(filter(None, (_find_right(key, one, kind) for one in list_typed(key))))
    words = get_words()
    if key == "seed" and (seeds := right.split(","))[1:] and not {"-m", "--multirun"} & set(words):
        hint = f"; type seed={seeds[0]} ensemble={len(seeds)}"
    elif "," in right and not {"-m", "--multirun"} & set(words):
        words = [f"{key}={right}" if find_key(word) == key else word for word in words]
        hint = f"; for a sweep type: {format_command(['-m', *words])}"
    else:
        hint = f"; type {key}={right}" if right else f", such as {key}={example}"
    return f"{format_override(key, value)}: must be {kind}{name_unit(key)}{hint}"


def _find_right(key: str, text: str, kind: str) -> str:
    """Return what to type for one value: itself if it is of this kind, or what is meant by it; empty if unknown."""
    for one in (text, read_meant(key, text.replace("\\", ""))):  # Hydra writes 32\:128
        try:
            [READ[kind](value) for value in one.split(",")]
        except (KeyError, ValueError):
            continue
        return one
    return ""


def find_example(key: str, *kinds: type) -> str:
    """Return the value of a key in conf/, as an example of what can be typed; empty if none of these kinds is there."""
    group, _, leaf = key.rpartition(".")
    nodes = [OmegaConf.load(find_config_directory() / name) for name in ("base.yaml", "protocol/paper.yaml")]
    values = [OmegaConf.select(node, key) for node in nodes] if group != "hydra.launcher" else []
    options = list_options(group) if group in GROUPS else {}
    values += [options[name].get(leaf) for name in sorted(options, key=lambda name: name != _find_default(group))]
    return next((format_override(key, one).partition("=")[2] for one in values if type(one) in kinds), "")


def _is_typed(node: DictConfig) -> bool:
    schema = OmegaConf.get_type(node)
    return is_dataclass(schema) and set(node) <= {entry.name for entry in fields(schema)}


def _type_group(cfg: DictConfig, group: str, node: DictConfig) -> None:
    if OmegaConf.is_missing(node, "_target_") or node.get("_target_") is None:
        raise InputError(
            f"{group}._target_: missing; the option's file names a class or function: _target_: module.name"
        )
    target = str(node._target_)
    arguments = find_arguments(group, target)
    names = [str(name) for name in node if name != "_target_"]
    if given := [name for name in names if name in GROUPS[group]]:
        raise InputError(f"{group}.{given[0]}: ntklens passes {given[0]}; remove it")
    if not arguments.others and (unknown := [name for name in names if name not in arguments.named]):
        raise InputError(_describe_unknown(group, target, unknown[0], arguments.named))
    entries = [(name, _choose_kind(group, name, arguments), _make_field(name, arguments)) for name in names]
    schema = make_dataclass(target.rpartition(".")[2], [("_target_", str, MISSING), *entries])
    typed = OmegaConf.structured(schema)
    typed._set_parent(cfg)
    typed._metadata.key = group
    values: dict[str, Any] = OmegaConf.to_container(node, resolve=False)  # type: ignore[assignment]
    for name, value in values.items():
        typed[name] = value
    cfg[group] = typed


def _make_field(name: str, arguments: Arguments) -> Any:
    choices = arguments.named[name].choices if name in arguments.named else ()
    return field(default=MISSING, metadata={CHOICES: choices})


def check_choices(cfg: DictConfig) -> None:
    """Refuse a value that is none of those which the signature of its group's target lists.

    Args:
      cfg: the composed configuration, its groups typed.

    Raises:
      InputError: naming the override to type.
    """
    for group in GROUPS:
        for entry in fields(OmegaConf.get_type(cfg[group])):  # type: ignore[arg-type]
            choices = entry.metadata.get(CHOICES)
            if choices and (value := cfg[group][entry.name]) not in choices:
                listed = ", ".join(map(str, choices))
                raise InputError(f"{format_override(f'{group}.{entry.name}', value)}: must be one of {listed}")


def list_choices() -> dict[str, str]:
    """Return {override's name: its values, separated by commas} of what the signatures of all options list."""
    choices = {}
    for group in GROUPS:
        for node in list_options(group).values():
            for name, argument in find_arguments(group, str(node.get("_target_"))).named.items():
                if argument.choices and name in node:
                    choices[f"{group}.{name}"] = ", ".join(map(str, argument.choices))
    return choices


def find_arguments(group: str, target: str) -> Arguments:
    """Return what a group's target takes, without what the program gives it.

    Raises:
      InputError: if there is no such class or function.
    """
    try:
        arguments = read_arguments(target)
    except InputError as error:
        raise InputError(f"{group}.{error}") from error
    named = {name: argument for name, argument in arguments.named.items() if name not in GROUPS[group]}
    return Arguments(named, arguments.others)


def _choose_kind(group: str, name: str, arguments: Arguments) -> Any:
    kind = arguments.named[name].kind if name in arguments.named and f"{group}.{name}" != RULED else Any
    return KINDS.get(f"{group}.{name}", Any) if kind is Any else kind


def _describe_unknown(group: str, target: str, name: str, known: Iterable[str]) -> str:
    others = sorted(known)
    if any(find_key(word) == f"{group}.{name}" for word in get_words()):
        return describe_unknown_key(f"{group}.{name}", others)
    near = difflib.get_close_matches(name, others, n=1)
    hint = f"did you mean {near[0]}" if near else f"there are {', '.join(others)}"
    return f"{name_choice(group, target)}: {target} takes no argument {name}; {hint}"


def name_choice(group: str, target: object) -> str:
    """Return the word that chose a group's target: `model=cnn`, or `model._target_=…` if it was typed, or none was.

    Args:
      group: such as model.
      target: its `_target_`, of one configuration.
    """
    word, options, typed = f"{group}._target_={target}", list_options(group), list_typed(group)
    if list_typed(f"{group}._target_"):
        return word
    found = typed if len(typed) == 1 else [name for name in typed or options if _get_target(options, name) == target]
    found = found or [name for name in typed if not _get_target(options, name)]  # of one's own, made of another
    return f"{group}={found[0]}" if len(found) == 1 else word


def _get_target(options: Mapping[str, Mapping[str, Any]], name: str) -> object:
    return options.get(name, {}).get("_target_")


def list_options(group: str) -> dict[str, dict[str, Any]]:
    """Return option → what its file holds, of conf/ and of a folder given by --config-dir."""
    words = get_words()
    pairs = zip(words, [*words[1:], ""], strict=False)  # in a notebook there are none
    own = [word.partition("=")[2] or value for word, value in pairs if word.startswith(("--config-dir", "-cd"))]
    folders = [find_config_directory(), *map(Path, own)]
    files = [path for folder in folders for path in sorted((folder / group).glob("*.yaml"))]
    nodes = {path.stem: OmegaConf.to_container(OmegaConf.load(path)) for path in files}
    return {
        name: {str(key): value for key, value in node.items()} for name, node in nodes.items() if isinstance(node, dict)
    }


def _list_owners(key: str) -> list[str]:
    """Return the options of a key's group whose files have it."""
    group, _, leaf = key.rpartition(".")
    return [name for name, keys in list_options(group).items() if leaf in keys] if group in CHOSEN else []


def list_launchers() -> list[str]:
    """Return the options of hydra/launcher that are for users: not those of submitit's, which ours are made of."""
    return sorted(["basic", "local", *list_options("hydra/launcher")])


def suggest_key(key: str) -> str | None:
    """Return the key that is meant by one that does not exist: its other name, or the group that it belongs to.

    Args:
      key: as typed: `width`, `seeds`, `optimizer.lr`.
    """
    leaf = key.rpartition(".")[2].lower()
    if leaf in ALIASES and ALIASES[leaf] != key:
        return ALIASES[leaf]
    places = [f"{group}.{leaf}" for group in CHOSEN if _list_owners(f"{group}.{leaf}")]
    places += [
        f"{entry.name}.{leaf}"
        for entry in fields(Config)
        if is_dataclass(entry.type) and leaf in {inner.name for inner in fields(entry.type)}
    ]
    places += [entry.name for entry in fields(Config) if entry.name == leaf]
    return next((place for place in places if place != key), None)


def describe_unknown_key(key: str, known: Iterable[str], target: str = "") -> str:
    """Return the line for a key that its group does not have, with the nearest one that there is.

    Args:
      key: as typed, `model.widht`.
      known: the keys of its group.
      target: the `_target_` of its group, if there is one.
    """
    group = key.rpartition(".")[0]
    names = sorted(name for name in known if name != "_target_")
    if group == "hydra.launcher" and not names:  # launchers of this machine: they take launch.workers
        line = f"-m hydra/launcher=slurm_gpu {key}{_find_typed_value(key)}"
        return f"{key}: the chosen hydra/launcher has no such key; on a cluster type {line}"
    hint = _find_argument_hint(key, target) or _find_typed_hint(key) or _find_near(key, names)
    there = f"there are {', '.join(names)}" if names else f"the chosen {group} has none"
    return f"{key}: unknown key; {hint or there}"


def _find_near(key: str, names: Sequence[str]) -> str:
    group, point, leaf = key.rpartition(".")
    near = difflib.get_close_matches(leaf, names, n=1)
    return f"did you mean {group}{point}{near[0]}{_find_typed_value(key)}" if near else ""


def _find_argument_hint(key: str, target: str) -> str:
    """Return what to type where an option's file leaves out an argument that its target takes.

    Where only options of the same target have it, as momentum has beside sgd, these are the answer.
    """
    group, _, leaf = key.rpartition(".")
    if group not in GROUPS or not target:
        return ""
    having = [node for node in list_options(group).values() if leaf in node]
    if having and all(node.get("_target_") == target for node in having):
        return ""
    try:
        found = leaf in find_arguments(group, target).named
    except InputError:  # said where the options get their types
        return ""
    return f"the option's file lacks it, and {target} takes it; type +{key}{_find_typed_value(key)}" if found else ""


def _find_typed_value(key: str) -> str:
    """Return what was typed behind a key: `=3`, or `.width=3` where it was taken for a group; empty if nothing was."""
    typed = [word.lstrip("+~").removeprefix(key) for word in get_words() if f"{find_key(word)}.".startswith(f"{key}.")]
    return next((rest for rest in reversed(typed) if "=" in rest), "")


def _find_default(group: str) -> str | None:
    defaults = OmegaConf.load(find_config_directory() / "config.yaml").defaults
    return next((one[group] for one in defaults if OmegaConf.is_dict(one) and group in one), None)


def _find_typed_hint(key: str) -> str:
    """Return what to type instead of a key that has another name or belongs to another option, with its value."""
    value = _find_typed_value(key)
    if options := _list_owners(key):
        group = key.partition(".")[0]
        first = default if (default := _find_default(group)) in options else options[0]
        return f"it belongs to {_list_choices(key)}; type {group}={first} {key}{value}"
    right = suggest_key(key)
    if not right:
        return ""
    group, options = right.partition(".")[0], _list_owners(right)
    chosen = list_typed(group) or [str(_find_default(group))]
    others = bool(options) and all(_get_target(list_options(group), one) and one not in options for one in chosen)
    return f"did you mean {right}{value}" + (f", which belongs to {_list_choices(right)}" if others else "")


def _list_choices(key: str) -> str:
    return " or ".join(f"{key.partition('.')[0]}={option}" for option in _list_owners(key))
