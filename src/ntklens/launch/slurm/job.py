"""What a SLURM job does: one task of a plan, to its end, or to the signal that asks it to make room.

SLURM sends SIGUSR2 before a time limit and, where so configured, before a preemption: the seeds are saved and the job
goes back into the queue. It sends SIGTERM when it will end the job itself, to requeue it or for good: the seeds are
saved, and SLURM has the last word.
"""

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from ntklens.jobs.slices import compute_slice
from ntklens.jobs.tracker import tracked
from ntklens.jobs.watcher import LogWatcher
from ntklens.launch.slurm.client import requeue_job
from ntklens.machine import count_cores, find_own_job
from ntklens.signals import Stop, stop_on_signals
from ntklens.sweep.cost import split_evenly

IDLE_LIVES = 3  # how often in a row a job may be requeued without having got any further
TURN_SECONDS = 3.0  # between the processes of one job: a requeue by one of them ends them all
LAST_WORD_SECONDS = 900.0  # how long a job that was asked to end waits for SLURM to end it


def do_task(task: dict[str, Any]) -> None:
    """Compute the slices of a task, or this process's part of them.

    Args:
      task: as `Plan.describe_task` describes it.

    Raises:
      SystemExit: with status 1 if something failed, so that SLURM says so too.
    """
    prepare_environment()
    with stop_on_signals() as stop:
        if hasattr(signal, "pthread_sigmask"):  # held back since this process began
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])
        rank, size = int(os.environ.get("SLURM_PROCID", 0)), int(os.environ.get("SLURM_NTASKS", 1))
        pieces = share_slices(task["slices"], rank, size)
        before = measure_progress(task["slices"])  # of the whole job
        failed = False
        try:
            with tracked(stop):
                for piece in pieces:
                    stop.check()
                    failed |= bool(compute_slice(piece, task["memory"], stop, LogWatcher()).failed)
        except KeyboardInterrupt:
            end_early(stop, rank, measure_progress(task["slices"]) > before)
    if failed:
        sys.exit(1)


def prepare_environment() -> None:
    """Set what libraries read when they are first imported; what the user has set stays."""
    threads = str(count_cores())
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC"):  # the last is XLA's
        os.environ.setdefault(name, threads)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # a GPU may be shared


def share_slices(slices: list[dict[str, Any]], rank: int, size: int) -> list[dict[str, Any]]:
    """Return what one of several processes of a job computes: its part of every slice's seeds."""
    shared = []
    for number, piece in enumerate(slices):
        parts = split_evenly(piece["seeds"], -(-len(piece["seeds"]) // size))
        turn = (rank + number) % size  # so that slices of few seeds go around
        if turn < len(parts):
            shared.append(piece | {"seeds": parts[turn]})
    return shared


def measure_progress(pieces: list[dict[str, Any]]) -> tuple[int, int]:
    """Return how many seeds are finished, and how many updates the others' checkpoints hold."""
    from ntklens.store.checkpoint import find_checkpoint_step
    from ntklens.store.layout import find_seed_directory
    from ntklens.store.units import FINISHED, find_units

    finished = steps = 0
    for piece in pieces:
        run = Path(piece["run"])
        for unit in find_units(run, piece["seeds"]):
            finished += unit.state in FINISHED
            steps += find_checkpoint_step(find_seed_directory(run, unit.seed))
    return finished, steps


def end_early(stop: Stop, rank: int, progressed: bool) -> None:
    """Go back into the queue, or let SLURM end this job.

    Args:
      stop: knows which signals came.
      rank: of this process in the job; the first that is left speaks for all.
      progressed: whether anything was gained since the job began.

    Raises:
      SystemExit: if SLURM does not end it.
    """
    job, started = find_own_job(), time.monotonic()
    warned = signal.SIGUSR2 in stop.signals  # of a sudden end no time limit is the cause
    idle = count_idle_lives(job, progressed) if job and (warned or progressed) else 0
    deadline = started + LAST_WORD_SECONDS
    say = LogWatcher().say
    say(f"asked to end by {', '.join(signal.Signals(number).name for number in stop.signals)}: seeds are saved")
    while time.monotonic() < deadline:
        if signal.SIGUSR2 in stop.signals and job and time.monotonic() - started >= TURN_SECONDS * rank:
            if idle > IDLE_LIVES:
                say(f"not requeued: nothing was gained in {idle} lives in a row; raise the launcher's minutes")
                sys.exit(1)
            if requeue_job(job):
                say(f"job {job} goes back into the queue")
            else:
                say(f"job {job} could not be requeued: launch the sweep again to continue")
            sys.exit(1)
        if signal.SIGINT in stop.signals or not job:
            break
        time.sleep(0.2)
    sys.exit(1)


def count_idle_lives(job: str, progressed: bool) -> int:
    """Return how many lives of a job in a row, this one included, gained nothing; kept in a file beside its log.

    SLURM's own count of restarts does not tell: many preemptions in a run that gets on are no reason to give up.
    """
    from ntklens.store.files import write_atomically

    path = Path(os.environ.get("SUBMITIT_FOLDER", ".")) / f"{job}_idle.json"
    if progressed:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        return 0
    lives = {int(os.environ.get("SLURM_RESTART_COUNT", 0))}  # by number: several processes of a life may count it
    with contextlib.suppress(OSError, ValueError, TypeError):
        lives |= set(json.loads(path.read_text(encoding="utf-8")))
    with contextlib.suppress(OSError):
        write_atomically(path, json.dumps(sorted(lives)) + "\n")
    return len(lives)
