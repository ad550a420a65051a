"""task=sync: upload from trajectories what Weights & Biases lacks of a sweep."""

from pathlib import Path

from omegaconf import DictConfig

from ntklens.config.construct import construct
from ntklens.config.lines import format_task
from ntklens.config.task import SWEEP, task
from ntklens.errors import InputError
from ntklens.sweep.status import COMPLETE, UNFINISHED, read_sweep
from ntklens.wandb.catch_up import track_published
from ntklens.wandb.runs import choose_mode, find_unsynced, select_unlogged
from ntklens.wandb.tracker import WandbTracker


@task(reads=(*SWEEP, "tracking", "tracking."))
def sync(cfg: DictConfig) -> int:
    """task=sync: upload from trajectories what W&B lacks of a sweep; exit status 0 if it then has all, 3 if not.

    Returns:
      The exit status.

    Raises:
      InputError: if there is no such sweep, or no server to upload to.
    """
    folder = Path(cfg.paths.results) / cfg.name
    status = read_sweep(folder)
    if not isinstance(construct(cfg.tracking), WandbTracker):
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
    if find_unsynced(folder):  # a report, say: how to upload that was printed
        return UNFINISHED
    print("wandb    the server has every finished run")
    return COMPLETE
