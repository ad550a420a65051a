"""hydra/launcher=slurm_gpu and slurm_cpu: the tasks of a sweep as job arrays of SLURM."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from ntklens.launch.slurm.settings import SlurmSettings


@dataclass
class SlurmLauncherConfig(SlurmSettings):
    """What jobs ask SLURM for; conf/hydra/launcher/ explains the values."""

    _target_: str = "hydra_plugins.ntklens_launcher.slurm_launcher.SlurmLauncher"


ConfigStore.instance().store(group="schema", name="slurm_launcher", node=SlurmLauncherConfig, provider="ntklens")


class SlurmLauncher(Launcher):
    """Knows the tasks of a plan alone, so it needs ntklens's sweeper."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take nothing: a job's command line holds all it needs."""

    @property
    def tasks(self) -> Any:
        """Who carries out the tasks of a plan."""
        from ntklens.launch.slurm.launch import SlurmLaunch
        from ntklens.launch.slurm.settings import check_settings

        plain: Any = OmegaConf.to_container(OmegaConf.create(self.values), resolve=True)
        settings = SlurmSettings(**plain)
        check_settings(settings)
        return SlurmLaunch(settings)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Any:
        """Refuse whole configurations.

        Raises:
          InputError: naming the launcher for them.
        """
        from ntklens.errors import InputError

        raise InputError(
            "hydra/launcher: slurm_gpu and slurm_cpu need hydra/sweeper=ntklens; with Hydra's own sweeper type "
            "hydra/launcher=stock_slurm"
        )
