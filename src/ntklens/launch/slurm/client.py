"""What SLURM is asked, and what it answers; every question also has an answer where there is no SLURM."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from ntklens.sweep.status import Job

ANSWER_SECONDS = 30.0
DEFAULT_MAX_ARRAY = 1001  # SLURM's own, where the cluster cannot be asked
JOBS_PER_QUESTION = 500
ARRAY = re.compile(r"(\d+)_\[([\d,:-]+)(?:%\d+)?\]")  # tasks listed together: `12_[0-3,7%2]`
PERSONAL = ("SQUEUE_", "SACCT_", "SCANCEL_", "SLURM_CLUSTERS")  # what users set for their own eyes, and changes answers


def ask(*command: str) -> str | None:
    """Return what one of SLURM's commands prints; None if it is not here, or does not answer."""
    if not shutil.which(command[0]):
        return None
    own = {name: value for name, value in os.environ.items() if not name.startswith(PERSONAL)}
    own["SLURM_BITSTR_LEN"] = "0"  # ranges of array tasks as a whole
    try:
        answer = subprocess.run(
            command,
            env=own,
            capture_output=True,
            encoding="utf-8",
            errors="replace",  # others name their jobs as they like
            timeout=ANSWER_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if answer.returncode else answer.stdout


def list_jobs(others: Iterable[str] = ()) -> dict[str, Job] | None:
    """Return this user's jobs that wait or run, by their number; None if squeue does not answer.

    Args:
      others: numbers of jobs to ask for as well: a colleague may look at a sweep.
    """
    # --all: also in partitions that are hidden
    command = ["squeue", "--noheader", "--all", "--array", "--format=%i|%T|%r|%N|%M|%j"]
    answer = ask(*command, f"--user={os.getuid()}")
    if answer is None:
        return None
    jobs = _read_jobs(answer)
    arrays = {number.partition("_")[0] for number in jobs}
    asked = sorted({number.partition("_")[0] for number in others} - arrays)
    for first in range(0, len(asked), JOBS_PER_QUESTION):
        part = asked[first : first + JOBS_PER_QUESTION]
        more = ask(*command, f"--jobs={','.join(part)}")
        if more is None and len(part) > 1:
            return None
        jobs |= _read_jobs(more or "")  # a single number that has ended is an error
    return jobs


def _read_jobs(answer: str) -> dict[str, Job]:
    # Not by splitlines: a name may hold what Unicode takes for the end of a line.
    lines = [fields for line in answer.split("\n") if len(fields := line.split("|", 5)) == 6]
    return {number: Job(number, *fields[1:]) for fields in lines for number in expand_number(fields[0])}


def expand_number(number: str) -> list[str]:
    """Return the jobs that a number stands for: `12_[0-2,7%2]` are four; what is no number of a job stands for none."""
    if not (ranges := ARRAY.fullmatch(number)):
        return [number] if re.fullmatch(r"\d+(_\d+)?", number) else []
    tasks: list[int] = []
    for part in re.finditer(r"(\d+)(?:-(\d+)(?::(\d+))?)?", ranges[2]):
        tasks += range(int(part[1]), int(part[2] or part[1]) + 1, int(part[3] or 1))
    return [f"{ranges[1]}_{task}" for task in tasks]


def explain_jobs(numbers: Iterable[str]) -> dict[str, str]:
    """Return how jobs ended (`OUT_OF_MEMORY`, `CANCELLED by 0`, …) as far as sacct knows."""
    asked = sorted(set(numbers))
    states: dict[str, str] = {}
    for first in range(0, len(asked), JOBS_PER_QUESTION):
        part = ",".join(asked[first : first + JOBS_PER_QUESTION])
        answer = ask("sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={part}", "--format=JobID,State")
        lines = [line.split("|") for line in (answer or "").splitlines()]
        states |= {number: fields[1] for fields in lines if len(fields) == 2 for number in expand_number(fields[0])}
    return {number: states[number] for number in asked if number in states}


def cancel_jobs(numbers: Sequence[str]) -> bool:
    """Cancel jobs; return whether scancel took the order."""
    parts = [numbers[k : k + JOBS_PER_QUESTION] for k in range(0, len(numbers), JOBS_PER_QUESTION)]
    answers = [ask("scancel", "--quiet", *part) for part in parts]
    return None not in answers


def requeue_job(number: str) -> bool:
    """Put a running job back into the queue; return whether SLURM did."""
    return ask("scontrol", "requeue", number) is not None


@contextmanager
def hide_own_job() -> Iterator[None]:
    """Hide, until the context ends, the job that this process may be part of: its limits are not the next job's."""
    hidden = {
        name: os.environ.pop(name)
        for name in list(os.environ)
        if name.startswith(("SLURM_", "SBATCH_", "SRUN_")) and name not in ("SLURM_CONF", "SLURM_JWT")
    }
    try:
        yield
    finally:
        os.environ.update(hidden)


def find_max_array() -> int:
    """Return how many tasks an array may have; one where the cluster has none."""
    answer = ask("scontrol", "show", "config") or ""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", answer, re.MULTILINE)
    limits = [int(found[1]) if found else DEFAULT_MAX_ARRAY]
    limits += [int(limit) for limit in re.findall(r"\bmax_array_tasks=(\d+)", answer)]
    return max(1, min(limits))
