"""What a launch tells Weights & Biases at its end, and what is left to type."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from ntklens.config import construct
from ntklens.errors import InputError
from ntklens.lines import format_task
from ntklens.signals import Stop
from ntklens.sweep.cost import PROCESS_BYTES
from ntklens.sweep.key import compute_key
from ntklens.sweep.progress import COMPLETE, UNFINISHED, read_sweep
from ntklens.sweep.states import Unit
from ntklens.tracking import end_tracking
from ntklens.tracking.runs import choose_mode, describe_tracking, find_unsynced, select_unlogged


def track_published(
    cfg: DictConfig, published: Iterable[tuple[Path, Sequence[Unit]]], again: bool = False
) -> list[str]:
    """Have the tracker show what is published and was not shown yet; return what to type for the rest.

    Args:
      cfg: the configuration.
      published: runs' directories and the states of their seeds, all of one sweep.
      again: see `describe_tracking`.
    """
    construct(cfg.tracking).catch_up(list(published))
    end_tracking()
    return describe_tracking(Path(cfg.paths.results) / cfg.name, again)


def track_failed(cfg: DictConfig, run: Path, seeds: Sequence[int], error: str) -> None:
    """Have the tracker show that seeds failed before anything was trained."""
    tracker = construct(cfg.tracking)
    tracker.start(run, OmegaConf.to_container(cfg, resolve=True), compute_key(cfg))
    tracker.fail(seeds, error)


def count_process_bytes(cfg: DictConfig) -> int:
    """Return the bytes of a process that computes, and of what tracks it, before its first array."""
    return PROCESS_BYTES + int(construct(cfg.tracking).memory)


def sync(cfg: DictConfig) -> int:
    """task=sync: upload from trajectories what W&B lacks of a sweep; exit status 0 if it then has all, 3 if not.

    Raises:
      InputError: if there is no such sweep, or no server to upload to.
    """
    folder = Path(cfg.paths.results) / cfg.name
    status = read_sweep(folder)
    if not cfg.tracking._target_.endswith("WandbTracker"):
        raise InputError("task=sync: needs tracking=wandb")
    if choose_mode(cfg.tracking.mode) != "online":
        raise InputError("task=sync: needs W&B's credentials; type wandb login, or set WANDB_API_KEY")
    published = [(folder / run.run, run.units) for run in status.runs]
    for line in track_published(cfg, published, again=True):
        print(line)
    wanted = construct(cfg.tracking).list_wanted(published)
    if missing := select_unlogged(wanted, online=True):
        line = format_task("sync", folder)
        print(f"wandb    the server lacks {len(missing):,} of {len(wanted):,} runs; type again: {line}")
        return UNFINISHED
    if find_unsynced(folder):  # a report, say: how to upload that was said
        return UNFINISHED
    print("wandb    the server has every finished run")
    return COMPLETE


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
