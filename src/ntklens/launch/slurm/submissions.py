"""What a sweep has handed to SLURM: which job computes which seeds.

`multirun/<name>/slurm/<id>.json` is written before the job is submitted, and again when its number is known; a launch
that dies in between is found by the job's name, which no other job has.
"""

import contextlib
import json
import os
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ntklens.launch.slurm.client import list_jobs
from ntklens.store.files import write_atomically
from ntklens.sweep.plan import Plan, Task, decode_ranges, encode_ranges
from ntklens.sweep.status import Job

FOLDER_NAME = "slurm"


@dataclass
class Submission:
    """One array, or one job: `tasks[k]` holds (run, seeds) of its k-th task; with `retry` it takes failed seeds too."""

    path: Path
    name: str
    tasks: list[list[tuple[str, list[int]]]]
    job: str | None = None
    retry: bool = False

    @property
    def owner(self) -> int | None:
        """The number of the user who submitted it: several people may share a folder."""
        try:
            return self.path.stat().st_uid
        except OSError:
            return None

    @property
    def logs(self) -> Path:
        """The folder of its logs, and of submitit's files."""
        return self.path.with_suffix("")

    def store(self) -> None:
        """Write its file."""
        tasks = [[[run, encode_ranges(seeds)] for run, seeds in task] for task in self.tasks]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        plain = {"name": self.name, "job": self.job, "retry": self.retry, "tasks": tasks}
        write_atomically(self.path, json.dumps(plain) + "\n")

    def find_jobs(self, jobs: Mapping[str, Job]) -> dict[int, Job]:
        """Return those of its tasks that SLURM still knows, by their number in it."""
        known = {}
        for number, job in jobs.items():
            first, _, index = number.partition("_")
            # Numbers come again, so the name has to be ours as well; its end is enough, which is drawn at random.
            named = not job.name or job.name.rpartition(".")[2] == self.name.rpartition(".")[2]
            mine = named and first == self.job if self.job else job.name == self.name
            if mine and int(index or 0) < len(self.tasks):
                known[int(index or 0)] = job
        return known

    def find_orphans(self, jobs: Mapping[str, Job]) -> list[Job]:
        """Return those of its jobs that can only fail: their launch died before submitit's files were in place."""
        if self.owner != os.getuid():  # another's files may not be for us to see, nor its jobs to cancel
            return []
        known = self.find_jobs(jobs).values()
        return [job for job in known if not (self.logs / f"{job.number}_submitted.pkl").exists()]


def open_submission(plan: Plan, tasks: Sequence[Task]) -> Submission:
    """Write down that tasks of a plan are about to be submitted."""
    identity = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
    pieces = [[(plan.configurations[p.configuration].run.name, p.seeds) for p in task.slices] for task in tasks]
    path = plan.folder / FOLDER_NAME / f"{identity}.json"
    retry = all(configuration.cfg.retry for configuration in plan.configurations)
    submission = Submission(path, f"{plan.name}.{identity[-6:]}", pieces, retry=retry)
    submission.store()
    return submission


def read_submissions(folder: Path) -> list[Submission]:
    """Return what a sweep has submitted, the oldest first; files that say nonsense are left out."""
    found = []
    for path in sorted((folder / FOLDER_NAME).glob("*.json")):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            plain: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            tasks = [[(str(run), decode_ranges(seeds)) for run, seeds in task] for task in plain["tasks"]]
            found.append(Submission(path, str(plain["name"]), tasks, plain["job"], bool(plain.get("retry"))))
    return found


def ask_for_jobs(submissions: Iterable[Submission]) -> dict[str, Job] | None:
    """Return this user's jobs, and those of what others have submitted; None if squeue does not answer."""
    return list_jobs(s.job for s in submissions if s.job and s.owner != os.getuid())


def find_submitted(submissions: Iterable[Submission], jobs: Mapping[str, Job]) -> dict[tuple[str, int], Job]:
    """Return the (run, seed) that wait or are computed in SLURM, with their jobs."""
    return {
        (run, seed): job
        for submission in submissions
        for index, job in submission.find_jobs(jobs).items()
        for run, seeds in submission.tasks[index]
        for seed in seeds
    }


def forget_ended(submissions: Iterable[Submission], jobs: Mapping[str, Job]) -> None:
    """Remove the files of one's own submissions of which SLURM knows nothing any more; their logs stay."""
    for submission in submissions:
        if submission.owner == os.getuid() and not submission.find_jobs(jobs):
            with contextlib.suppress(OSError):
                for path in submission.logs.glob("*.pkl"):
                    path.unlink()
                submission.path.unlink()
