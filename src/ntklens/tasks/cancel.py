"""task=cancel: cancel the jobs that a sweep has in SLURM."""

from pathlib import Path

from omegaconf import DictConfig

from ntklens.config.task import SWEEP, task
from ntklens.errors import InputError
from ntklens.launch.slurm.client import cancel_jobs
from ntklens.launch.slurm.submissions import ask_for_jobs, find_submitted, read_submissions
from ntklens.store.locks import lock_submission
from ntklens.sweep.status import COMPLETE, read_sweep
from ntklens.words import count


@task(reads=SWEEP)
def cancel(cfg: DictConfig) -> int:
    """task=cancel: cancel the jobs that a sweep has in SLURM; its finished seeds stay, the others can be continued.

    Returns:
      The exit status.

    Raises:
      InputError: if there is no such sweep, or SLURM does not answer.
    """
    folder = Path(cfg.paths.results) / cfg.name
    read_sweep(folder)
    with lock_submission(folder) as nobody_submits:
        if not nobody_submits:
            raise InputError(
                "task=cancel: a launch submits jobs of this sweep at this moment; type it again once it has"
            )
        return _cancel(folder)


def _cancel(folder: Path) -> int:
    submissions = read_submissions(folder)
    jobs = ask_for_jobs(submissions)
    if jobs is None:
        raise InputError("task=cancel: squeue does not answer; type it where SLURM is, such as a login node")
    mine = sorted({job.number for job in find_submitted(submissions, jobs).values()})
    if not mine:
        print(f"{folder.name} has no jobs in SLURM")
        return COMPLETE
    if not cancel_jobs(mine):
        raise InputError(f"task=cancel: scancel {' '.join(mine[:5])}{' …' if len(mine) > 5 else ''} did not succeed")
    print(f"{count(len(mine), 'task')} cancelled; they save what they have, launch the sweep again to continue")
    return COMPLETE
