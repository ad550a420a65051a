"""One slice of a task: seeds of one configuration, computed by a worker or in a SLURM job."""

import contextlib
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from ntklens.errors import Unavailable
from ntklens.signals import Stop
from ntklens.tracking.progress import Watcher


class LogWatcher(Watcher):
    """Writes lines into the log of a process that nobody watches."""

    def say(self, text: str) -> None:
        """Write a line with the time."""
        with contextlib.suppress(OSError):  # the log may lie on a full disk
            print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


def compute_slice(piece: dict[str, Any], memory: float | None, stop: Stop, watcher: Watcher) -> Any:
    """Compute seeds of one configuration; whatever goes wrong becomes a state.

    Args:
      piece: `config`, `run` and `seeds`.
      memory: bytes that arrays may use; None: what the device has.
      stop: says when to end.
      watcher: is told how far it is.

    Returns:
      What became of them, a `compute.Outcome`.

    Raises:
      KeyboardInterrupt: if `stop` asked for the end.
    """
    from omegaconf import OmegaConf

    from ntklens.sweep.claims import find_claimed
    from ntklens.sweep.states import write_unfinished
    from ntklens.tasks import compute
    from ntklens.tasks.track import track_failed

    run, seeds, cfg = Path(piece["run"]), piece["seeds"], OmegaConf.create(piece["config"])
    try:
        return compute.compute_seeds(cfg, run, seeds, stop, watcher, memory)
    except Exception as error:  # before anything was trained: input that only this process could check
        with contextlib.suppress(OSError):
            traceback.print_exc()
        cause = error.__cause__ or error
        no_fault = compute.is_of_the_disk(cause) or isinstance(error, Unavailable)
        message = compute.describe_failure(error)
        mine = sorted(set(seeds) - find_claimed(run, seeds))  # others may be computing the rest
        state = "interrupted" if no_fault else "failed"
        write_unfinished(run, mine, state, error=message, traceback=traceback.format_exc())
        if mine and not no_fault:
            track_failed(cfg, run, mine, message)
        return compute.Outcome([], mine, [], message) if no_fault else compute.Outcome(mine, [], [], message)
