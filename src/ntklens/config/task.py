"""What `task=<name>` does, and how it may be asked for."""

import pydoc
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from omegaconf import DictConfig

from ntklens.config.lines import drop_words, find_key, format_command, get_words, quote_word
from ntklens.errors import InputError

SWEEP = ("name", "paths.results")  # keys by which a sweep is found
ANY = ("task", "task.", "tracking", "tracking.", "hydra/launcher", "hydra.")  # what changes no result
NAMING = ("dataset", "dataset.name", "experiment", "scaling")  # what chooses a name where none is typed


@dataclass(frozen=True)
class Task:
    """What a command does; `_target_` of a file of conf/task/ names it, or a plain function of the configuration.

    Attributes:
      do: takes the checked configuration; returns the exit status.
      sweep: does it for the configurations of a sweep, typed with -m; None: it is not for a sweep.
      launches: whether it hands work to hydra/launcher.
      several_names: whether `name` may be a list of sweeps.
      reads: keys that it reads of a configuration, `tracking.` for those below; None: all.
    """

    do: Callable[[DictConfig], int]
    sweep: Callable[..., int] | None = None
    launches: bool = False
    several_names: bool = False
    reads: Sequence[str] | None = None

    def __call__(self, cfg: DictConfig) -> int:
        """Do it, and return the exit status."""
        return self.do(cfg)


def task(
    sweep: Callable[..., int] | None = None,
    launches: bool = False,
    several_names: bool = False,
    reads: Sequence[str] | None = None,
) -> Callable[[Callable[[DictConfig], int]], Task]:
    """Return the decorator that makes a task of a function."""
    return lambda do: Task(do, sweep, launches, several_names, reads)


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


def check_read(target: str, overrides: Sequence[str]) -> None:
    """Refuse overrides that a task does not read: a report, say, is of all that lies in a sweep.

    Args:
      target: the task's `_target_`.
      overrides: as typed.

    Raises:
      InputError: naming the line to type.
    """
    reads = find_task(target).reads
    if reads is None:
        return
    naming = () if any(find_key(word) == "name" for word in overrides) else NAMING
    if unread := drop_words(overrides, *reads, *naming, *ANY):
        keys = ", ".join(key for key in reads if key[-1] != ".")
        line = format_command(word for word in get_words() if word not in unread)
        raise InputError(
            f"{' '.join(map(quote_word, unread))}: task={name_task(target)} reads {keys} alone; type: {line}"
        )
