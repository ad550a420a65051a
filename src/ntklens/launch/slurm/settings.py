"""What jobs ask SLURM for."""

import math
from dataclasses import dataclass, field
from typing import Any

from ntklens.errors import InputError

OURS = (
    "array", "job-name", "output", "error", "signal", "requeue", "no-requeue", "open-mode", "time", "mem", "nodes",
    "ntasks-per-node", "ntasks", "cpus-per-task", "gpus-per-task", "partition", "account", "qos", "wrap",
)  # fmt: skip
AGAINST_US = ("clusters", "M", "parsable", "quiet", "wait", "test-only")  # sbatch would answer otherwise, or elsewhere


@dataclass
class SlurmSettings:
    """What jobs ask SLURM for: the values of hydra/launcher=slurm_gpu and slurm_cpu.

    Attributes:
      partition, account, qos, constraint, exclude, comment: as sbatch takes them.
      gpus: of each process; 0: it computes on processors.
      cpus: of each process.
      processes: of each task, on one node: for clusters that give whole nodes. They share the task's seeds.
      memory_gb: of each task's node; None: by the plan.
      gpu_memory_gb: of each GPU, for the plan alone; None: 16.
      minutes: time limit of each task; None: by the plan, at most `most_minutes`. What takes longer is checkpointed and
        put into the queue again.
      most_minutes: longest time limit to ask for.
      task_minutes: of estimated work that a task is cut to; None: 2 to 60, so that `launch.workers` tasks side by side
        (16 if unset) run some six each.
      side_by_side: tasks that may run at a time.
      setup: lines of shell before the job, such as `module load cuda`.
      more: further options of sbatch, name → value; true for those without a value.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    comment: str | None = None
    gpus: int = 0
    cpus: int = 1
    processes: int = 1
    memory_gb: float | None = None
    gpu_memory_gb: float | None = None
    minutes: int | None = None
    most_minutes: int = 1440
    task_minutes: float | None = None
    side_by_side: int = 256
    setup: list[str] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)


def check_settings(settings: SlurmSettings) -> None:
    """Refuse settings that no cluster has.

    Raises:
      InputError: naming the one to change.
    """
    for name, least in {"gpus": 0, "cpus": 1, "processes": 1, "side_by_side": 1, "most_minutes": 1}.items():
        if getattr(settings, name) < least:
            raise InputError(f"hydra.launcher.{name}={getattr(settings, name)}: must be {least} or more")
    for name in ("memory_gb", "gpu_memory_gb", "minutes", "task_minutes"):
        value = getattr(settings, name)
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"hydra.launcher.{name}={value}: must be a positive number, or null")
    for name in settings.more:
        option = name.replace("_", "-")
        if option in OURS:
            raise InputError(
                f"hydra.launcher.more.{name}: {name} is set by the plan, or by another value of the launcher"
            )
        if any(other.startswith(option) for other in AGAINST_US):  # sbatch takes the beginning of an option for it
            raise InputError(f"hydra.launcher.more.{name}: with it the launcher would not know its jobs; leave it out")
