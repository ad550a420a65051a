"""ntklens's sweeper: composes and checks a whole sweep, and hands what is pending to the launcher in tasks."""

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import setup_globals
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict

from ntklens.cli import note_status
from ntklens.config.checks import validate
from ntklens.config.lines import get_words
from ntklens.config.options import type_groups
from ntklens.config.task import find_task, name_task
from ntklens.errors import InputError
from ntklens.recording.quantities import check_metrics


@dataclass
class NtklensSweeperConfig:
    """Parameters to sweep over, as Hydra's own sweeper takes them, and which of them go in step."""

    _target_: str = "hydra_plugins.ntklens_sweeper.ntklens_sweeper.NtklensSweeper"
    max_batch_size: int | None = None
    params: dict[str, str] | None = field(default_factory=dict)
    zip: list[Any] = field(default_factory=list)  # [a, b]: the k-th value of a with the k-th of b; or a list of such


ConfigStore.instance().store(group="hydra/sweeper", name="ntklens", node=NtklensSweeperConfig, provider="ntklens")


class NtklensSweeper(BasicSweeper):
    """Composes once per combination of group choices and applies value overrides with OmegaConf.

    The configurations mean what Hydra's own sweeper would compose, at a twentieth of its time.
    """

    def __init__(self, max_batch_size: int | None, params: dict[str, str] | None, zip: Sequence[Any] = ()) -> None:
        super().__init__(max_batch_size, params)
        groups = list(zip)
        nested = all(not isinstance(group, str | int | float) for group in groups) and bool(groups)
        names = [name for group in groups for name in group] if nested else groups
        if not all(isinstance(name, str) for name in names):
            raise InputError(
                f"hydra.sweeper.zip={list(zip)}: must be a list of axes, [a,b], or of such lists, [[a,b],[c,d]]"
            )
        self.zipped: list[list[str]] = [list(group) for group in (groups if nested else [groups])]
        self.bases: dict[tuple[str, ...], DictConfig] = {}
        self.axes: dict[tuple[str, ...], DictConfig] = {}  # what each combination of group choices would sweep
        self.groups: dict[str, bool] = {}
        self.left_out: list[str] = []  # of some configurations, in words

    def sweep(self, arguments: list[str]) -> Any:
        """Sweep over the product of the overrides.

        Raises:
          InputError: if a configuration is wrong; nothing is launched then, and nothing written.
        """
        assert self.hydra_context is not None
        assert self.config is not None
        assert self.launcher is not None
        setup_globals()
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        parsed = parser.parse_overrides([*self._parse_config(), *arguments])
        jobs, swept = expand_overrides(parsed, self.zipped)
        check_swept(swept)
        jobs = self.fit_to_options(jobs, swept, parser)
        composed = self.compose(jobs, parser)
        self._check_groups(swept)
        for cfg in composed:
            validate(cfg)
            check_metrics(cfg.metrics)
        from ntklens.launch.planning import make_configuration  # not above: it takes longer than a wrong value may

        target = composed[0].task._target_
        launch = find_task(target).sweep
        if launch is None:
            raise InputError(f"task={name_task(target)}: not for a sweep; type it without -m")
        configurations = [
            make_configuration(cfg, words, find_axes(words, swept, cfg))
            for words, cfg in zip(jobs, composed, strict=True)
        ]
        for configuration in configurations:
            configuration.left_out = self.left_out
        launcher = self.launcher
        note_status(
            launch(
                configurations,
                get_words(),
                getattr(launcher, "tasks", None),
                lambda overrides: launcher.launch(overrides, initial_job_idx=0),
            )
        )

    def fit_to_options(
        self, jobs: Sequence[list[str]], swept: Sequence[str], parser: OverridesParser
    ) -> list[list[str]]:
        """Leave out of each job the values that its swept option has no key for, and note it, once each.

        `optimizer=momentum,sgd optimizer.momentum=0.5` sets the momentum of the one that has it. Jobs that become
        equal by that are one.

        Returns:
          The overrides of every job that is left.

        Raises:
          InputError: if none of the options has the key.
        """
        groups = [key for key in swept if key.isidentifier() and self._is_group(key)]
        if not groups:
            return list(jobs)
        words = dict.fromkeys(word for job in jobs for word in job)
        parsed = dict(zip(words, parser.parse_overrides(list(words)), strict=True))
        fitted: list[list[str]] = []
        with_key: set[str] = set()
        without: dict[str, list[str]] = {}
        for job in jobs:
            base = self._compose_base(tuple(word for word in job if self._chooses_a_group(parsed[word])))
            left_out = set()
            for word in job:
                key = parsed[word].key_or_group
                group = key.partition(".")[0]
                if group not in groups or "." not in key or parsed[word].is_add() or parsed[word].is_force_add():
                    continue
                if _has_key(base, key):
                    with_key.add(key)
                else:
                    left_out.add(word)
                    option = next(one for one in job if one.partition("=")[0] == group)
                    without.setdefault(key, []).append(option)
            words_left = [word for word in job if word not in left_out]
            if not left_out or words_left not in fitted:
                fitted.append(words_left)
        for key, options in without.items():
            listed = ", ".join(dict.fromkeys(options))
            if key not in with_key:
                raise InputError(f"{key}: unknown key; {listed}: none of the swept options has it")
            self.left_out.append(f"{key} is left out where there is no such key: {listed}")
        return fitted

    def compose(self, jobs: Sequence[Sequence[str]], parser: OverridesParser) -> list[DictConfig]:
        """Return the resolved configuration of every job, given by its overrides."""
        assert self.config is not None
        words = dict.fromkeys(word for job in jobs for word in job)
        parsed = dict(zip(words, parser.parse_overrides(list(words)), strict=True))
        composed = []
        for job in jobs:
            chosen = tuple(word for word in job if self._chooses_a_group(parsed[word]))
            cfg = copy.deepcopy(self._compose_base(chosen))
            # What Hydra itself does with values after composing, errors included.
            ConfigLoaderImpl._apply_overrides_to_config([parsed[word] for word in job if word not in chosen], cfg)
            OmegaConf.resolve(cfg)
            composed.append(cfg)
        return composed

    def _compose_base(self, chosen: tuple[str, ...]) -> DictConfig:
        if chosen not in self.bases:
            assert self.hydra_context is not None
            assert self.config is not None
            base = self.hydra_context.config_loader.load_sweep_config(self.config, list(chosen))
            self.axes[chosen] = base.hydra.sweeper
            with open_dict(base):
                del base["hydra"]  # most of what there would be to copy
            type_groups(base)
            self.bases[chosen] = base
        return self.bases[chosen]

    def _check_groups(self, swept: Sequence[str]) -> None:
        """Refuse to sweep over options that set axes of their own: Hydra takes axes from what is chosen once."""
        assert self.config is not None
        own = self.config.hydra.sweeper
        for axes in self.axes.values():
            if axes.params != own.params or axes.get("zip") != own.get("zip"):
                groups = " and ".join(key for key in swept if key in ("scaling", "experiment")) or swept[0]
                raise InputError(
                    f"{groups}: cannot be swept, because its options set axes of their own; type a line for each"
                )

    def _chooses_a_group(self, override: Override) -> bool:
        """Return whether an override changes what is composed, and not a value in it."""
        key = override.key_or_group
        return key.startswith("hydra.") or (self._is_group(key) and not isinstance(override.value(), dict))

    def _is_group(self, key: str) -> bool:
        if key not in self.groups:
            assert self.hydra_context is not None
            self.groups[key] = bool(self.hydra_context.config_loader.get_group_options(key))
        return self.groups[key]


def _has_key(cfg: DictConfig, key: str) -> bool:
    """Return whether a configuration has a key, whatever its value."""
    node: Any = cfg
    for part in key.split("."):
        if not OmegaConf.is_dict(node) or part not in list(node):
            return False
        node = node._get_node(part)
    return True


def check_swept(swept: Sequence[str]) -> None:
    """Refuse axes that say how a sweep is done, and not what is swept.

    Raises:
      InputError: naming the axis.
    """
    whole = ("task", "launch", "checkpoint", "retry", "replace", "ntk.memory_limit")
    for key in (key.lstrip("+~") for key in swept):
        if key in whole or key.partition(".")[0] in whole:
            raise InputError(f"{key}: cannot be swept, it is one for the whole sweep; give it one value")


def expand_overrides(parsed: Sequence[Override], zipped: Sequence[Sequence[str]]) -> tuple[list[list[str]], list[str]]:
    """Return the overrides of every job, in the order of Hydra's own sweeper, and the keys that are swept.

    Args:
      parsed: the overrides as typed; of two with one key the later counts.
      zipped: keys whose values go in step.

    Raises:
      HydraException: if a swept key has no list of values.
      InputError: if keys that go in step are not swept, or have different numbers of values.
    """
    choices: dict[str, list[str]] = {}
    swept = []
    for override in parsed:
        key = override.get_key_element()
        if override.is_sweep_override():
            if not override.is_discrete_sweep():
                raise HydraException(f"{override.input_line}: a sweep needs a list of values: a,b,c or range(…)")
            choices[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
            if not choices[key]:
                raise InputError(f"{override.input_line}: an axis without values")
            swept.append(key)
        else:
            choices[key] = [f"{key}={override.get_value_element_as_str()}"]
    swept = [key for key in dict.fromkeys(swept) if len(choices[key]) > 1]
    axes: list[list[list[str]]] = [[[word] for word in words] for words in choices.values()]
    names = list(choices)
    named = [key for group in zipped for key in group]
    if twice := [key for key in named if named.count(key) > 1]:
        raise InputError(f"hydra.sweeper.zip: {twice[0]} stands in it twice")
    for group in filter(None, zipped):
        for key in group:
            if key not in choices:
                raise InputError(f"hydra.sweeper.zip: {key} is not swept; give it values, such as {key}=1,2")
        counts = {key: len(choices[key]) for key in group}
        if len(set(counts.values())) > 1:
            counted = ", ".join(f"{key} has {count}" for key, count in counts.items())
            raise InputError(f"hydra.sweeper.zip: axes in step need as many values each: {counted}")
        first = min(names.index(key) for key in group)
        axes[first] = [list(words) for words in zip(*(choices[key] for key in group), strict=True)]
        for key in group:
            if names.index(key) != first:
                axes[names.index(key)] = [[]]
    jobs = [[word for words in combination for word in words] for combination in itertools.product(*axes)]
    return jobs, swept


def find_axes(words: Sequence[str], swept: Sequence[str], cfg: DictConfig) -> dict[str, Any]:
    """Return the swept overrides with their values in a configuration; a group's value is its option."""
    typed = dict(word.split("=", 1) for word in words if "=" in word)
    axes: dict[str, Any] = {}
    for key in swept:
        value = OmegaConf.select(cfg, key, default=None) if key.isidentifier() or "." in key else None
        axes[key] = typed.get(key) if value is None or OmegaConf.is_config(value) else value
    return axes
