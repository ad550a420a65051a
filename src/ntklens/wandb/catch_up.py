"""What was published and not shown is shown at the end of a launch."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from omegaconf import DictConfig

from ntklens.config.construct import construct
from ntklens.jobs.tracker import end_tracking
from ntklens.store.units import Unit
from ntklens.wandb.runs import describe_tracking


def track_published(
    cfg: DictConfig, published: Iterable[tuple[Path, Sequence[Unit]]], again: bool = False
) -> list[str]:
    """Have the tracker show what is published and was not shown yet; return what to type for the rest.

    Args:
      cfg: the configuration.
      published: runs' directories and the states of their seeds, all of one sweep.
      again: see `describe_tracking`.

    Returns:
      Lines to type for the rest.
    """
    construct(cfg.tracking).catch_up(list(published))
    end_tracking()
    return describe_tracking(Path(cfg.paths.results) / cfg.name, again)
