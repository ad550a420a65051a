"""Launches a plan as job arrays of SLURM."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from ntklens.config.schemas import GIB
from ntklens.errors import InputError
from ntklens.jobs.process import count_process_bytes
from ntklens.launch.base import NO_LIMIT
from ntklens.launch.slurm.client import cancel_jobs
from ntklens.launch.slurm.job import do_task
from ntklens.launch.slurm.settings import SlurmSettings
from ntklens.launch.slurm.submissions import Submission, ask_for_jobs, find_submitted, forget_ended, read_submissions
from ntklens.launch.slurm.submit import check_slurm, check_together, submit_plan, try_submission
from ntklens.signals import Stop
from ntklens.store.locks import find_locked, lock_submission
from ntklens.sweep.cost import Cost
from ntklens.sweep.plan import Capacity, Configuration, Plan, look_up_units
from ntklens.sweep.status import Job

WAIT_SECONDS = 0.5
POLL_SECONDS = 5.0  # between two questions to SLURM
ENDING_SECONDS = 90.0  # how long a launch waits for jobs that are ending
AGAIN_SECONDS = 2.0  # before a second look at what seems to have ended
GRACE_POLLS = 3  # how often a job may be unknown to squeue before it is taken to have ended
DEFAULT_TASKS = 16  # SLURM tasks side by side that a plan is cut for
DEFAULT_SHARE = 4 * GIB  # bytes of a SLURM task where neither launcher nor configuration says
TASK_MINUTES = (60.0, 2.0)  # the longest and the shortest work that one is cut to
GPU_BYTES = 16 * GIB  # of a GPU that nobody has described


def list_settled_jobs(submissions: Sequence[Submission]) -> dict[str, Job] | None:
    """Return what SLURM knows once no job of these is about to end: it may be gone then, or back in the queue."""
    deadline = time.monotonic() + ENDING_SECONDS
    announced = False
    while (jobs := ask_for_jobs(submissions)) is not None and time.monotonic() < deadline:
        ending = {job.number for job in find_submitted(submissions, jobs).values() if job.state == "COMPLETING"}
        if not ending:
            break
        if not announced:
            print(f"{len(ending)} tasks are ending: waiting to see what becomes of them", file=sys.stderr)
            announced = True
        time.sleep(WAIT_SECONDS)
    return jobs


def find_orphans(folder: Path, submissions: Sequence[Submission], jobs: Mapping[str, Job], held: bool) -> list[Job]:
    """Return the jobs that can only fail; none while another launch is about to put their files in place.

    Args:
      folder: of the sweep.
      submissions: its.
      jobs: what SLURM knows.
      held: whether this process is the one that submits.
    """
    orphans = [job for submission in submissions for job in submission.find_orphans(jobs)]
    if not orphans or held:  # a second lock by one process would end the first
        return orphans
    with lock_submission(folder) as nobody_submits:
        return orphans if nobody_submits else []


class SlurmLaunch:
    """Job arrays of SLURM; `launch.wait=true` waits for their end."""

    detached = True

    def __init__(self, settings: SlurmSettings) -> None:
        self.settings = settings

    def find_capacity(self, configurations: Sequence[Configuration], costs: Sequence[Cost]) -> Capacity:
        """Return what a SLURM task has."""
        cfg, own = configurations[0].cfg, self.settings
        process = count_process_bytes(cfg)
        if own.gpus:
            share = largest = (own.gpu_memory_gb * GIB if own.gpu_memory_gb else GPU_BYTES) + process
        else:
            largest = own.memory_gb * GIB / own.processes if own.memory_gb else NO_LIMIT
            share = min(cfg.ntk.memory_limit * GIB if cfg.ntk.memory_limit else DEFAULT_SHARE, largest)
        longest, shortest = (own.task_minutes,) * 2 if own.task_minutes else TASK_MINUTES
        seconds = (60 * longest, 60 * shortest)
        return Capacity(cfg.launch.workers or DEFAULT_TASKS, own.cpus, share, largest, seconds, process)

    def find_submitted(
        self, folder: Path, configurations: Sequence[Configuration], held: bool = False
    ) -> frozenset[tuple[str, int]]:
        """Return the (run, seed) that SLURM has already, and those that a process outside of it computes.

        Args:
          folder: of the sweep.
          configurations: of the sweep, with their units.
          held: whether this process is the one that submits.

        Raises:
          InputError: if jobs were submitted before and squeue does not answer, or results of theirs are to be replaced.
        """
        submissions = read_submissions(folder)
        jobs = list_settled_jobs(submissions)
        if jobs is None:
            if submissions:
                known = ", ".join(s.job or s.name for s in submissions)
                raise InputError(
                    f"hydra/launcher: squeue does not answer, and jobs of this sweep ({known}) may still wait or run; "
                    f"nothing is submitted twice: try again later, or remove {submissions[0].path.parent}/*.json"
                )
            jobs = {}
        orphans = {job.number for job in find_orphans(folder, submissions, jobs, held)}
        alive = {number: job for number, job in jobs.items() if number not in orphans}
        failed = {(c.run.name, u.seed) for c in configurations for u in c.units if u.state == "failed"}
        # What has failed only a job that retries it tries again.
        retried = find_submitted([submission for submission in submissions if submission.retry], alive)
        found = {key for key in find_submitted(submissions, alive) if key not in failed or key in retried}
        if found and any(configuration.replaces for configuration in configurations):
            raise InputError(
                f"replace=true: jobs of {folder.name} wait or run; let them end, or type task=cancel, and then replace"
            )
        for configuration in configurations:
            pending = set(configuration.find_pending())
            computed = find_locked(configuration.run, pending) if pending else set()
            found |= {(configuration.run.name, seed) for seed in computed}
        return frozenset(found)

    def check(self, plan: Plan) -> None:
        """Ask SLURM whether it would take the jobs.

        Raises:
          InputError: if it is not here, or would not.
        """
        check_slurm()
        check_together(plan, self.settings)
        if plan.tasks:
            try_submission(plan, self.settings)

    def run(self, plan: Plan, stop: Stop, console: Console) -> bool:
        """Submit a plan's tasks.

        Returns:
          Whether all tasks were submitted.

        Raises:
          InputError: if SLURM does not take even the first job.
        """
        with lock_submission(plan.folder) as mine:
            if not mine:
                console.print("another launch submits jobs of this sweep at this moment: nothing is submitted twice")
                taken = True
            else:
                submissions = read_submissions(plan.folder)
                if (jobs := ask_for_jobs(submissions)) is not None:
                    cancel_jobs([job.number for s in submissions for job in s.find_orphans(jobs)])
                    forget_ended(submissions, jobs)
                # Much may have ended since the plan was made, and another launch may have submitted.
                look_up_units(plan.configurations)
                submitted = self.find_submitted(plan.folder, plan.configurations, held=True)
                taken = submit_plan(plan.without(submitted), self.settings, do_task, console)
        return taken

    def wait(self, plan: Plan, stop: Stop, console: Console) -> None:
        """Wait until no job of the sweep waits or runs; what is unknown for a moment may be about to be requeued."""
        console.print("waiting for them; to stop waiting is harmless, the jobs go on")
        unknown, announced = 0, False
        while unknown < GRACE_POLLS:
            submissions = read_submissions(plan.folder)
            jobs = ask_for_jobs(submissions)
            if jobs is None:
                if not announced:
                    print("squeue does not answer: waiting until all seeds are there, or it does", file=sys.stderr)
                announced = True
                look_up_units(plan.configurations)
                going = any(configuration.find_pending() for configuration in plan.configurations)
            else:
                going = bool(find_submitted(submissions, jobs))
            with lock_submission(plan.folder) as nobody_submits:
                going |= not nobody_submits
            unknown = 0 if going else unknown + 1
            for _ in range(int((POLL_SECONDS if going else AGAIN_SECONDS) / WAIT_SECONDS)):
                stop.check()
                time.sleep(WAIT_SECONDS)
