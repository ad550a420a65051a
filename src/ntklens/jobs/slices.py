"""One slice of a task: seeds of one configuration, computed by a worker or in a SLURM job."""

import contextlib
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ntklens.config.construct import construct
from ntklens.config.identity import compute_key
from ntklens.errors import Unavailable
from ntklens.jobs.watcher import Watcher
from ntklens.signals import Stop


def compute_slice(piece: dict[str, Any], memory: float | None, stop: Stop, watcher: Watcher) -> Any:
    """Compute seeds of one configuration; whatever goes wrong becomes a state.

    Args:
      piece: `config`, `run` and `seeds`; of a sweep `label`, the swept settings, for the log.
      memory: bytes that arrays may use; None: what the device has.
      stop: says when to end.
      watcher: receives the progress.

    Returns:
      What became of them, a `compute.Outcome`.

    Raises:
      KeyboardInterrupt: if `stop` asked for the end.
    """
    from omegaconf import OmegaConf

    from ntklens.jobs import compute, failures
    from ntklens.store.locks import find_locked
    from ntklens.store.units import write_unfinished

    run, seeds, cfg = Path(piece["run"]), piece["seeds"], OmegaConf.create(piece["config"])
    if label := piece.get("label"):
        watcher.say(f"{run.name}: {label}")
    try:
        return compute.compute_seeds(cfg, run, seeds, stop, watcher, memory)
    except Exception as error:  # before anything was trained: input that only this process could check
        with contextlib.suppress(OSError):
            traceback.print_exc()
        cause = error.__cause__ or error
        no_fault = failures.is_of_the_disk(cause) or isinstance(error, Unavailable)
        message = failures.describe_failure(error)
        mine = sorted(set(seeds) - find_locked(run, seeds))  # others may be computing the rest
        state = "interrupted" if no_fault else "failed"
        write_unfinished(run, mine, state, error=message, traceback=traceback.format_exc())
        if mine and not no_fault:
            track_failed(cfg, run, mine, message)
        return compute.Outcome([], mine, [], message) if no_fault else compute.Outcome(mine, [], [], message)


def track_failed(cfg: DictConfig, run: Path, seeds: Sequence[int], error: str) -> None:
    """Have the tracker show that seeds failed before anything was trained."""
    tracker = construct(cfg.tracking)
    tracker.start(run, OmegaConf.to_container(cfg, resolve=True), compute_key(cfg))
    tracker.fail(seeds, error)
