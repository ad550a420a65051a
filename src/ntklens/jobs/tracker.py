"""What a run tells whoever watches it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ntklens.signals import Stop

if TYPE_CHECKING:  # its module imports xarray, which a command line that is refused does without
    from ntklens.store.units import Unit

_starts: list[Callable[[], object]] = []
_ends: list[Callable[[Callable[[], bool]], None]] = []  # of what trackers have started in this process


class Tracker:
    """Watches the seeds of one configuration; this one keeps silent. Subclasses show what they receive.

    Attributes:
      memory: bytes that it needs beside each process that computes.
    """

    memory = 0

    def check(self) -> None:
        """Refuse settings that cannot work; called by a launch, before anything is written.

        Raises:
          InputError: naming what to type.
        """

    def announce(self, sweep: Path) -> str:
        """Return a line for what will be written unasked to a sweep's folder; empty where nothing is, or was before."""
        return ""

    def start(self, run: Path, config: dict[str, Any], key: str) -> None:
        """Begin.

        Args:
          run: the run's directory, in the folder of its sweep.
          config: the resolved configuration.
          key: the run key.
        """

    def record(
        self, seed: int, record: Mapping[str, Any], layers: Sequence[str], spectrum: Future | None = None
    ) -> None:
        """Take what was measured of a seed; called between two pieces of training, it returns at once.

        Args:
          seed: whose record it is.
          record: variable → value.
          layers: the names along `layer`.
          spectrum: the future of variables that are still being computed.
        """

    def finish(self, seed: int, directory: Path) -> None:
        """Take note that a seed's trajectory is published in its directory."""

    def fail(self, seeds: Sequence[int], error: str) -> None:
        """Take note that seeds failed, and why."""

    def close(self, units: "Sequence[Unit]") -> None:
        """End: here no more is computed of these seeds, all that the configuration was asked for."""

    def catch_up(self, published: "Sequence[tuple[Path, Sequence[Unit]]]") -> None:
        """Show what is published and was not shown when it was computed.

        Args:
          published: runs' directories and the states of their seeds, all of one sweep.
        """

    def report(self, folder: Path, sweeps: Sequence[str], places: Sequence[Path]) -> None:
        """Show a report.

        Args:
          folder: where it lies.
          sweeps: what it is of.
          places: the directories of their trajectories.
        """


def at_start(function: Callable[[], object]) -> None:
    """Have a function called before each command of this process."""
    _starts.append(function)


def begin_tracking() -> None:
    """Forget what trackers know of an earlier command of this process."""
    for function in _starts:
        function()


def at_end(function: Callable[[Callable[[], bool]], None]) -> None:
    """Have a function called before this process ends; it is given one that says whether there is little time."""
    _ends.append(function)


def end_tracking(is_hurried: Callable[[], bool] = lambda: False) -> None:
    """Wait for what trackers have begun, a bounded time.

    Args:
      is_hurried: says, again and again, whether the process was asked to end.
    """
    while _ends:
        _ends.pop()(is_hurried)


@contextmanager
def tracked(stop: Stop | None = None) -> Iterator[None]:
    """At its end, wait for what trackers have begun: not for long, if this process was asked to end."""
    interrupted = False
    try:
        yield
    except KeyboardInterrupt:
        interrupted = True
        raise
    finally:
        end_tracking(lambda: interrupted or (stop is not None and bool(stop.signals)))
