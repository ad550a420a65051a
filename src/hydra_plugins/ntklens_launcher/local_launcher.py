"""hydra/launcher=local: the tasks of a sweep in several processes on this machine."""

from dataclasses import dataclass
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.config_store import ConfigStore


@dataclass
class LocalLauncherConfig:
    """Takes no values of its own: launch.workers says how many processes."""

    _target_: str = "hydra_plugins.ntklens_launcher.local_launcher.LocalLauncher"


ConfigStore.instance().store(group="hydra/launcher", name="local", node=LocalLauncherConfig, provider="ntklens")


class LocalLauncher(BasicLauncher):
    """Under ntklens's sweeper it runs tasks; under Hydra's own, one configuration after another in this process."""

    @property
    def tasks(self) -> Any:
        """Who carries out the tasks of a plan."""
        from ntklens.launch.local.launch import LocalLaunch

        return LocalLaunch()
