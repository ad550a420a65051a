"""Hydra's basic sweeper, which checks every configuration of a sweep before the first is launched or a file written."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import setup_globals
from omegaconf import DictConfig, OmegaConf, open_dict

from ntklens.config import validate


@dataclass
class NtklensSweeperConfig:
    """Parameters to sweep over, as Hydra's own sweeper takes them."""

    _target_: str = "hydra_plugins.ntklens_sweeper.ntklens_sweeper.NtklensSweeper"
    max_batch_size: int | None = None
    params: dict[str, str] | None = field(default_factory=dict)


ConfigStore.instance().store(group="hydra/sweeper", name="ntklens", node=NtklensSweeperConfig, provider="ntklens")


class NtklensSweeper(BasicSweeper):
    """Composes and checks all configurations, then sweeps."""

    def __init__(self, max_batch_size: int | None, params: dict[str, str] | None) -> None:
        super().__init__(max_batch_size, params)

    def sweep(self, arguments: list[str]) -> Any:
        """Sweep over the product of the overrides.

        Raises:
          InputError: if a configuration is wrong; nothing is launched then, and nothing written.
        """
        assert self.hydra_context is not None
        assert self.config is not None
        setup_globals()
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        batches = self.split_arguments(parser.parse_overrides([*self._parse_config(), *arguments]), None)
        for overrides in batches[0]:
            validate(self._compose(overrides))
        return super().sweep(arguments)

    def _compose(self, overrides: Sequence[str]) -> DictConfig:
        """Return the resolved configuration of one job."""
        assert self.hydra_context is not None
        assert self.config is not None
        cfg = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(cfg):
            del cfg["hydra"]
        OmegaConf.resolve(cfg)
        return cfg
