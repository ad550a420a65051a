"""What a sweep has handed to SLURM: which job computes which seeds.

`multirun/<name>/slurm/<id>.json` is written before the job is submitted, and again when its number is known; a launch
that dies in between is found by the job's name, which no other job has.
"""

import contextlib
import json
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ntklens.sweep.plan import Plan, Task, decode_ranges, encode_ranges
from ntklens.sweep.slurm import Job
from ntklens.sweep.states import write_atomically

FOLDER_NAME = "slurm"


@dataclass
class Submission:
    """One array, or one job: `tasks[k]` holds (run, seeds) of its k-th task."""

    path: Path
    name: str
    tasks: list[list[tuple[str, list[int]]]]
    job: str | None = None

    @property
    def logs(self) -> Path:
        """The folder of its logs, and of submitit's files."""
        return self.path.with_suffix("")

    def store(self) -> None:
        """Write its file."""
        tasks = [[[run, encode_ranges(seeds)] for run, seeds in task] for task in self.tasks]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, json.dumps({"name": self.name, "job": self.job, "tasks": tasks}) + "\n")

    def find_jobs(self, jobs: Mapping[str, Job]) -> dict[int, Job]:
        """Return those of its tasks that SLURM still knows, by their number in it."""
        known = {}
        for number, job in jobs.items():
            first, _, index = number.partition("_")
            mine = first == self.job if self.job else job.name == self.name
            if mine and int(index or 0) < len(self.tasks):
                known[int(index or 0)] = job
        return known

    def find_orphans(self, jobs: Mapping[str, Job]) -> list[Job]:
        """Return those of its jobs that can only fail: their launch died before submitit's files were in place."""
        known = self.find_jobs(jobs).values()
        return [job for job in known if not (self.logs / f"{job.number}_submitted.pkl").exists()]


def open_submission(plan: Plan, tasks: Sequence[Task]) -> Submission:
    """Write down that tasks of a plan are about to be submitted."""
    identity = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
    pieces = [[(plan.configurations[p.configuration].run.name, p.seeds) for p in task.slices] for task in tasks]
    submission = Submission(plan.folder / FOLDER_NAME / f"{identity}.json", f"{plan.name}.{identity[-6:]}", pieces)
    submission.store()
    return submission


def read_submissions(folder: Path) -> list[Submission]:
    """Return what a sweep has submitted, the oldest first; files that say nonsense are left out."""
    found = []
    for path in sorted((folder / FOLDER_NAME).glob("*.json")):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            plain: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            tasks = [[(str(run), decode_ranges(seeds)) for run, seeds in task] for task in plain["tasks"]]
            found.append(Submission(path, str(plain["name"]), tasks, plain["job"]))
    return found


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
    """Remove the files of submissions of which SLURM knows nothing any more; their logs stay."""
    for submission in submissions:
        if not submission.find_jobs(jobs):
            with contextlib.suppress(OSError):
                for path in submission.logs.glob("*.pkl"):
                    path.unlink()
                submission.path.unlink()
