"""Hands the tasks of a plan to SLURM, through submitit."""

import contextlib
import io
import itertools
import math
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.console import Console

from ntklens.config.schemas import GIB
from ntklens.errors import InputError
from ntklens.jobs.process import PROCESS_BYTES
from ntklens.launch.slurm.client import cancel_jobs, find_max_array, hide_own_job, list_jobs
from ntklens.launch.slurm.settings import SlurmSettings
from ntklens.launch.slurm.submissions import Submission, open_submission
from ntklens.sweep.plan import Plan, Task
from ntklens.words import count

CUDA_BYTES = 3 * GIB  # of the machine's memory, for CUDA's libraries and what is on its way to a GPU
START_MINUTES = 10  # for a job's start: imports, data, compiling
LEAST_SECONDS = 30.0  # of a time limit, beyond the time that checkpoints may take
# What sbatch says where fewer tasks may be taken: a quota, or a limit of arrays that the cluster does not tell.
TOO_MANY = re.compile(
    r"Max\w*Submit\w*|submit limit|accounting/QOS policy|Invalid job array|array index", re.IGNORECASE
)
UNSURE = re.compile(r"time[ds]?[ -]?out", re.IGNORECASE)  # SLURM may still take what it did not answer in time
SAFETY = 1.5  # beyond the plan's own factor of error
# A signal may come before Python can take it: it is held back from the first instruction, until the job is ready.
BLOCK = (
    "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2]); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)


def check_together(plan: Plan, settings: SlurmSettings) -> None:
    """Refuse what a plan and the settings do not allow together.

    Raises:
      InputError: naming what to change.
    """
    grace = float(plan.configurations[0].cfg.checkpoint.grace)
    name, minutes = ("minutes", settings.minutes) if settings.minutes else ("most_minutes", settings.most_minutes)
    if 60 * minutes <= grace + LEAST_SECONDS:
        raise InputError(
            f"hydra.launcher.{name}={minutes}: the signal to save would come at once; give it more than "
            f"checkpoint.grace={grace:g} seconds and half a minute"
        )
    if "%" in str(plan.folder.absolute()):
        raise InputError(
            f"name={plan.name}: SLURM replaces % in the names of files; choose another name or paths.results"
        )


def check_slurm() -> None:
    """Refuse to go on where there is no SLURM.

    Raises:
      InputError: naming what is missing.
    """
    for command in ("sbatch", "srun"):
        if not shutil.which(command):
            raise InputError(
                f"hydra/launcher: {command} is not on this machine; launch from a cluster's login node, or leave "
                "hydra/launcher out to compute here"
            )


def try_submission(plan: Plan, settings: SlurmSettings) -> None:
    """Ask sbatch whether it would take a job with the plan's longest time and largest memory; nothing is submitted.

    Raises:
      InputError: if it would not, with its reason.
    """
    options = describe_resources(plan.tasks, settings, plan.calibration.error)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if value is not None]
    flags.append(f"--signal=USR2@{math.ceil(plan.configurations[0].cfg.checkpoint.grace)}")
    flags += [f"--{name}" if value is True else f"--{name}={value}" for name, value in settings.more.items()]
    try:
        with hide_own_job():
            subprocess.run(
                ["sbatch", "--test-only", *flags, "--wrap=true"], capture_output=True, text=True, check=True, timeout=60
            )
    except (OSError, subprocess.SubprocessError) as error:
        names = ("partition", "account", "qos", "constraint", "exclude", "gpus", "cpus", "memory_gb", "minutes")
        chosen = [f"{name}={value}" for name in names if (value := getattr(settings, name))]
        raise InputError(
            f"hydra/launcher: SLURM would not take the job: {explain_refusal(error)} (hydra.launcher: "
            f"{', '.join(chosen)})"
        ) from error


def describe_resources(tasks: Sequence[Task], settings: SlurmSettings, error: float) -> dict[str, Any]:
    """Return what tasks ask for, by sbatch's names."""
    return {
        "partition": settings.partition,
        "account": settings.account,
        "qos": settings.qos,
        "constraint": settings.constraint,
        "exclude": settings.exclude,
        "comment": settings.comment,
        "time": ask_for_minutes(tasks, settings, error),
        "mem": format_memory(ask_for_memory(tasks, settings)),
        "nodes": 1,
        "ntasks_per_node": settings.processes,
        "cpus_per_task": settings.cpus,
        "gpus_per_task": settings.gpus or None,
    }


def submit_plan(
    plan: Plan, settings: SlurmSettings, do_task: Callable[[dict[str, Any]], None], console: Console
) -> bool:
    """Submit a plan's tasks as arrays of similar tasks, each below the cluster's MaxArraySize, halved under a quota.

    Args:
      plan: with its tasks.
      settings: what to ask for.
      do_task: what a job calls.
      console: where to say what was submitted.

    Returns:
      Whether SLURM took all; if not, what it took goes on, and the next launch submits the rest.

    Raises:
      InputError: if SLURM does not take even one task.
    """
    done = 0
    left = list(cut_into_arrays(plan.tasks, settings, plan.calibration.error, find_max_array()))
    while left:
        tasks = left.pop(0)
        submission = open_submission(plan, tasks)
        try:
            submit_array(plan, tasks, submission, settings, do_task)
        except Exception as error:  # submitit's own kinds, a missing sbatch, a timeout
            reason = explain_refusal(error)
            if not withdraw(submission, late=bool(UNSURE.search(reason))):
                console.print(f"refused  {reason}")
                console.print("         whether SLURM took it is not known: type the line again later")
                return False
            if TOO_MANY.search(reason) and (half := len(tasks) // 2):
                left[:0] = [tasks[:half], tasks[half:]]
                continue
            if not done:
                raise InputError(f"hydra/launcher: SLURM refuses the job: {reason}") from error
            console.print(f"refused  {reason}")
            console.print(
                f"         {done} of {len(plan.tasks)} tasks were submitted; type the same line later for the rest"
            )
            console.print(f"next     {plan.command}")
            if TOO_MANY.search(reason):
                console.print("         fewer, longer tasks: raise hydra.launcher.task_minutes, lower launch.workers")
            return False
        done += len(tasks)
        minutes, memory = ask_for_minutes(tasks, settings, plan.calibration.error), ask_for_memory(tasks, settings)
        asked = f"{minutes} min, {memory:g} GB each" + (f", {settings.gpus} GPU" if settings.gpus else "")
        console.print(f"job      {submission.job}: {count(len(tasks), 'task')}, {asked}", highlight=False)
    return True


def withdraw(submission: Submission, late: bool) -> bool:
    """Make sure that a submission which ended with an error left no job, and forget it; return whether that is sure.

    sbatch may answer an error, such as a timeout, although it took the job; without submitit's files that cannot run.

    Args:
      submission: to withdraw.
      late: whether SLURM may still be about to take it; it is then kept, so that a later launch knows the job.

    Returns:
      Whether it is sure that there is no job.
    """
    jobs = list_jobs()
    if jobs is None:
        return False
    left = sorted({job.number.partition("_")[0] for job in jobs.values() if job.name == submission.name})
    if (left and not cancel_jobs(left)) or late:
        return False
    submission.path.unlink(missing_ok=True)
    shutil.rmtree(submission.logs, ignore_errors=True)
    return True


def cut_into_arrays(tasks: Sequence[Task], settings: SlurmSettings, error: float, largest: int) -> Iterable[list[Task]]:
    """Yield tasks that ask for the same time and memory, which an array shares, no more than an array may have.

    Args:
      tasks: of a plan.
      settings: what to ask for.
      error: the factor that estimates may be off.
      largest: the cluster's MaxArraySize, which is one more than the largest index.
    """

    def describe(task: Task) -> tuple[int, float]:
        return ask_for_minutes([task], settings, error), ask_for_memory([task], settings)

    for _, alike in itertools.groupby(sorted(tasks, key=describe, reverse=True), key=describe):
        members = list(alike)
        for first in range(0, len(members), largest):
            yield members[first : first + largest]


def ask_for_minutes(tasks: Sequence[Task], settings: SlurmSettings, error: float) -> int:
    """Return the time limit to ask for: a power of two times a quarter of an hour."""
    if settings.minutes:
        return int(settings.minutes)
    longest = max(task.seconds for task in tasks) / 60 * error * SAFETY + START_MINUTES
    return int(min(settings.most_minutes, 15 * 2 ** max(0, math.ceil(math.log2(longest / 15)))))


def ask_for_memory(tasks: Sequence[Task], settings: SlurmSettings) -> float:
    """Return the GiB of a node to ask for, which SLURM calls G: a power of two."""
    if settings.memory_gb:
        return float(settings.memory_gb)
    each = max(task.memory for task in tasks)
    need = settings.processes * ((each if not settings.gpus else PROCESS_BYTES + each / 4 + CUDA_BYTES) * 1.25)
    return 2.0 ** max(0, math.ceil(math.log2(need / GIB)))


def format_memory(gigabytes: float) -> str:
    """Return memory as sbatch takes it."""
    return f"{gigabytes:.0f}G" if gigabytes == int(gigabytes) else f"{math.ceil(1024 * gigabytes)}M"


def submit_array(
    plan: Plan,
    tasks: Sequence[Task],
    submission: Submission,
    settings: SlurmSettings,
    do_task: Callable[[dict[str, Any]], None],
) -> None:
    """Submit one array and write its number down."""
    executor = make_executor(plan, tasks, submission, settings)
    described = [plan.describe_task(task, None if settings.gpus else task.memory) for task in tasks]
    # sbatch's refusal becomes one line.
    with hide_own_job(), contextlib.redirect_stderr(io.StringIO()):
        jobs = executor.map_array(do_task, described)
    submission.job = jobs[0].job_id.partition("_")[0]
    submission.store()


def make_executor(plan: Plan, tasks: Sequence[Task], submission: Submission, settings: SlurmSettings) -> Any:
    """Return the submitit executor that submits these tasks."""
    import submitit

    executor = submitit.SlurmExecutor(folder=submission.logs.absolute(), python=make_python_command())
    grace = plan.configurations[0].cfg.checkpoint.grace
    options = {
        "job_name": submission.name,
        **describe_resources(tasks, settings, plan.calibration.error),
        "signal_delay_s": math.ceil(grace),
        "array_parallelism": settings.side_by_side,
        "stderr_to_stdout": True,
        "srun_args": [f"--cpus-per-task={settings.cpus}"],  # from SLURM 22.05 on srun does not take it from sbatch
        "setup": list(settings.setup) or None,
        "wckey": None,
        "additional_parameters": {"requeue": True, **settings.more},
    }
    executor.update_parameters(**{name: value for name, value in options.items() if value is not None})
    executor.parameters["wckey"] = None  # submitit's own default is one that a cluster may not know
    return executor


def make_python_command() -> str:
    """Return what starts Python with SIGUSR2 held back."""
    python = shlex.quote(sys.executable)
    held = ["env", "--block-signal=USR2"]  # of coreutils 8.31 and later
    try:
        if not subprocess.run([*held, "true"], capture_output=True, check=False).returncode:
            return f"{shlex.join(held)} {python}"
    except OSError:
        pass
    return f"{python} -I -S -c {shlex.quote(BLOCK)}"


def explain_refusal(error: Exception) -> str:
    """Return the output of sbatch, in a line."""
    lines = [line.strip() for line in (getattr(error, "stderr", "") or str(error)).splitlines() if line.strip()]
    chosen = [line for line in lines if "error:" in line] or lines or [type(error).__name__]
    return " ".join(dict.fromkeys(line.removeprefix("sbatch: ").removeprefix("error: ") for line in chosen))[:300]
