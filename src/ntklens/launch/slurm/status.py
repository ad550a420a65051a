"""Joins a sweep's state with what SLURM knows of its jobs."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ntklens.launch.slurm.client import explain_jobs, list_jobs
from ntklens.launch.slurm.submissions import Submission, find_submitted, read_submissions
from ntklens.store.units import Unit, find_units
from ntklens.sweep.status import Job, SweepStatus

UNENDED = ("PENDING", "RUNNING", "REQUEUED", "COMPLETING", "SUSPENDED")


def ask_slurm(status: SweepStatus) -> SweepStatus:
    """Join a sweep's state with what SLURM says of its jobs, where there are any."""
    submissions = read_submissions(status.folder)
    running = [entry for entry in status.list_units("running") if entry[1].details.get("job")]
    stopped = [unit.details["job"] for _, unit in status.list_units("interrupted") if unit.details.get("job")]
    if not (submissions or running or stopped):
        return status
    numbers = [s.job for s in submissions if s.job] + [unit.details["job"] for _, unit in running]
    if (jobs := list_jobs(numbers)) is None:
        return status
    mine = {job.number: job for job in find_submitted(submissions, jobs).values()}
    unknown = [(run, unit) for run, unit in running if unit.details["job"] not in jobs]
    lost = [  # looked at again: what ended while SLURM was asked is not lost
        (run, now)
        for run, unit in unknown
        for now in find_units(status.folder / run, [unit.seed])
        if now.state == "running"
    ]
    ends = explain_jobs(number for number in stopped if number not in jobs)
    owners = {s.job: s.owner for s in submissions if s.owner not in (None, os.getuid())}

    def find_other(unit: Unit) -> int | None:
        return owners.get(unit.details["job"].partition("_")[0])

    return status._replace(
        jobs=list(mine.values()),
        lost=[(run, unit) for run, unit in lost if find_other(unit) is None],
        unseen=[(run, unit, user) for run, unit in lost if (user := find_other(unit)) is not None],
        ended=[end for end in ends.values() if end.partition(" ")[0] not in UNENDED],
        vanished=_find_vanished(status, submissions, jobs),
    )


def _find_vanished(
    status: SweepStatus, submissions: Sequence[Submission], jobs: Mapping[str, Job]
) -> list[tuple[str, str, Path]]:
    """Return (job, how it ended, its logs) of tasks that SLURM has ended and of whose seeds nothing is there."""
    untouched = {(run.run, unit.seed) for run in status.runs for unit in run.units if unit.state == "queued"}
    untouched -= set(find_submitted(submissions, jobs))
    suspects = {}
    for submission in submissions:
        for index, task in enumerate(submission.tasks):
            if submission.job and all((run, seed) in untouched for run, seeds in task for seed in seeds):
                suspects[f"{submission.job}_{index}" if len(submission.tasks) > 1 else submission.job] = submission.logs
    ends = explain_jobs(suspects)
    others = {s.job for s in submissions if s.owner != os.getuid()}  # that we see none of them says nothing
    return [
        (job, ends.get(job, "unknown"), logs)
        for job, logs in suspects.items()
        if ends.get(job) not in UNENDED and (job in ends or job.partition("_")[0] not in others)
    ]
