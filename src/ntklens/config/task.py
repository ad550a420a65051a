"""What `task=<name>` does, and how it may be asked for."""

import pydoc
from collections.abc import Callable
from dataclasses import dataclass

from omegaconf import DictConfig

from ntklens.errors import InputError


@dataclass(frozen=True)
class Task:
    """What a command does; `_target_` of a file of conf/task/ names it, or a plain function of the configuration.

    Attributes:
      do: takes the checked configuration; returns the exit status.
      sweep: does it for the configurations of a sweep, typed with -m; None: it is not for a sweep.
      launches: whether it hands work to hydra/launcher.
      several_names: whether `name` may be a list of sweeps.
    """

    do: Callable[[DictConfig], int]
    sweep: Callable[..., int] | None = None
    launches: bool = False
    several_names: bool = False

    def __call__(self, cfg: DictConfig) -> int:
        """Do it, and return the exit status."""
        return self.do(cfg)


def task(
    sweep: Callable[..., int] | None = None, launches: bool = False, several_names: bool = False
) -> Callable[[Callable[[DictConfig], int]], Task]:
    """Return the decorator that makes a task of a function."""
    return lambda do: Task(do, sweep, launches, several_names)


def find_task(target: str) -> Task:
    """Return the task that `task._target_` names.

    Raises:
      InputError: if there is none.
    """
    try:
        found = pydoc.locate(target)
    except pydoc.ErrorDuringImport as error:
        raise InputError(f"task._target_={target}: {error}") from error
    if not callable(found):
        raise InputError(f"task._target_={target}: there is no such function")
    return found if isinstance(found, Task) else Task(found)


def name_task(target: str) -> str:
    """Return a task's name, as typed behind `task=`."""
    return target.split(".")[-2] if "." in target else target
