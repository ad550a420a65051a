"""task=status: print how far a sweep is."""

import json
import time
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.live import Live

from ntklens.config.task import SWEEP, task
from ntklens.launch.slurm.status import ask_slurm
from ntklens.report.console import make_console
from ntklens.report.sweep_table import build_status_table, describe_status
from ntklens.sweep.status import SweepStatus, read_sweep
from ntklens.wandb.runs import describe_tracking, find_partial, find_unsynced

LIVE_SECONDS = 2.0


@task(reads=(*SWEEP, "task.format", "task.live"))
def show_status(cfg: DictConfig) -> int:
    """task=status: print how far a sweep is, and return 0 if it is complete, 1 if units failed, 3 if it is unfinished.

    Returns:
      The exit status.

    Raises:
      InputError: if there is no such sweep.
    """
    folder = Path(cfg.paths.results) / cfg.name
    status = ask_slurm(read_sweep(folder))
    if cfg.task.format == "json":
        unsynced = [run.id for run in find_unsynced(folder)] + find_partial(folder)
        print(json.dumps(status.to_json() | {"unsynced": unsynced}, indent=1))
        return status.exit_status
    console = make_console()
    if cfg.task.live:
        status = _watch(folder, status, console)
    else:
        console.print(build_status_table(status))
    for line in [*describe_status(status), *describe_tracking(folder)]:
        console.print(line)
    return status.exit_status


def _watch(folder: Path, status: SweepStatus, console: Console) -> SweepStatus:
    """Show a sweep's table until nothing runs and nothing is queued, or somebody presses Ctrl-C."""
    try:
        while status.is_going() and not console.is_terminal:  # a file wants the last table alone
            time.sleep(LIVE_SECONDS)
            status = ask_slurm(read_sweep(folder))
        with Live(build_status_table(status), console=console, auto_refresh=False) as live:
            while status.is_going():
                time.sleep(LIVE_SECONDS)
                status = ask_slurm(read_sweep(folder))
                live.update(build_status_table(status), refresh=True)
    except KeyboardInterrupt:
        pass
    return status
