"""Several processes on one machine, each taking one task of a plan after another.

A worker reads tasks from its standard input, a line of JSON each, and answers with events on its standard output. It
ends, in order, when its input closes: workers never outlive whoever started them.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ntklens.machine import find_gpus
from ntklens.signals import Stop
from ntklens.store.locks import find_locked
from ntklens.store.units import FINISHED, find_units, write_unfinished
from ntklens.sweep.plan import Plan

LOGS_NAME = "logs"
FAILED_STARTS = 3  # how many workers may die before their first word
ATTEMPTS = 2  # how often a task is given to a worker before its death is taken for a failure
POLL_SECONDS = 0.2

Event = dict[str, Any]


@dataclass(eq=False)
class Worker:
    """A process, the task that it does, and where it writes what its libraries say."""

    process: subprocess.Popen
    log: Path
    task: int | None = None
    seen: bool = False


class Pool:
    """Runs the tasks of a plan.

    Args:
      plan: what to do.
      stop: says when to end.
      memory: bytes that all workers may use together; None: each asks its own device.
      grace: seconds that workers have to write their checkpoints.
      on_event: called with every event; `{"event": "task", "task": k}` when a task has ended.
    """

    def __init__(
        self, plan: Plan, stop: Stop, memory: float | None, grace: float, on_event: Callable[[Event], None]
    ) -> None:
        self.plan, self.stop, self.memory, self.grace, self.on_event = plan, stop, memory, grace, on_event
        self.waiting = list(range(len(plan.tasks)))
        self.attempts = [0] * len(plan.tasks)
        self.messages: queue.Queue[tuple[Worker, Event | None]] = queue.Queue()
        self.workers: dict[int, Worker] = {}
        self.gpus = find_gpus()
        self.started = self.failed_starts = 0

    def run(self) -> None:
        """Do all tasks.

        Raises:
          KeyboardInterrupt: if `stop` asked for the end, after every worker has ended.
        """
        try:
            while self.waiting or self.workers:
                self.stop.check()
                self._hand_out()
                self._listen(POLL_SECONDS)
        except BaseException:
            self._end_workers()
            raise

    def _hand_out(self) -> None:
        """Give waiting tasks to idle workers, as far as the memory goes; start and end workers as needed."""
        for number, worker in list(self.workers.items()):
            if worker.task is None and worker.seen and not self._give(worker):
                self._dismiss(number)
        slots = [slot for slot in range(self.plan.workers) if slot not in self.workers]
        for slot in slots[: max(0, len(self.waiting) - sum(w.task is None for w in self.workers.values()))]:
            if self._choose_task() is not None:
                self.workers[slot] = self._start(slot)

    def _choose_task(self) -> int | None:
        """Return the longest waiting task that fits beside those that run; any, if nothing runs."""
        tasks = self.plan.tasks
        running = [tasks[worker.task] for worker in self.workers.values() if worker.task is not None]
        used = sum(task.memory for task in running)
        fitting = (k for k in self.waiting if not running or not self.memory or used + tasks[k].memory <= self.memory)
        return next(fitting, None)

    def _give(self, worker: Worker) -> bool:
        number = self._choose_task()
        if number is None:
            return any(other.task is not None for other in self.workers.values()) and bool(self.waiting)
        self.waiting.remove(number)
        self.attempts[number] += 1
        worker.task = number
        assert worker.process.stdin is not None
        with contextlib.suppress(OSError):  # it died; its end of output says so
            worker.process.stdin.write(json.dumps(self._describe(number)) + "\n")
            worker.process.stdin.flush()
        return True

    def _describe(self, number: int) -> dict[str, Any]:
        task = self.plan.tasks[number]
        limit = None if self.memory is None else max(self.memory / self.plan.workers, task.memory)
        return {"task": number, **self.plan.describe_task(task, limit)}

    def _start(self, slot: int) -> Worker:
        """Start a worker on its own share of the cores, or on its own GPU."""
        logs = self.plan.folder / LOGS_NAME
        log = logs / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{self.started}.log"
        self.started += 1
        environment = dict(os.environ)
        if self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self.gpus[slot % len(self.gpus)]
        command = [sys.executable, "-m", "ntklens.launch.local.worker"]
        if cores := share_cores(slot, self.plan.workers):
            threads = str(len(cores))
            environment |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads)
            command.append(",".join(map(str, cores)))
        with contextlib.suppress(OSError):  # a full disk: the task itself will say so
            logs.mkdir(parents=True, exist_ok=True)
            log.touch()
        with open(log if log.exists() else os.devnull, "w") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env=environment,
                text=True,
                start_new_session=True,  # Ctrl-C is for us alone: we pass it on
            )
        assert process.stdout is not None
        worker = Worker(process, log)
        threading.Thread(target=self._read, args=(worker, process.stdout), daemon=True).start()
        return worker

    def _read(self, worker: Worker, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                try:
                    self.messages.put((worker, json.loads(line)))
                except ValueError:  # cut off by the worker's death
                    break
        self.messages.put((worker, None))

    def _listen(self, timeout: float) -> None:
        """Take what workers sent, for at most `timeout` seconds."""
        try:
            worker, event = self.messages.get(timeout=timeout)
        except queue.Empty:
            return
        slot = next((slot for slot, other in self.workers.items() if other is worker), None)
        if slot is None:  # of one that was dismissed
            return
        if event is None:
            self._note_end(slot)
            return
        worker.seen = True
        self.failed_starts = 0
        if event["event"] == "task":
            worker.task = None
        self.on_event(event | {"slot": slot})

    def _dismiss(self, slot: int) -> None:
        """Close a worker's input: it ends."""
        _close(self.workers[slot].process.stdin)
        if self.workers[slot].task is None:
            self.workers.pop(slot).process.wait()

    def _note_end(self, slot: int) -> None:
        """Note that a worker has ended; if it was at work, its task is tried again, or has failed."""
        worker = self.workers.pop(slot)
        worker.process.wait()
        _close(worker.process.stdin)
        number = worker.task
        if number is None:
            if not worker.seen:
                self.failed_starts += 1
                if self.failed_starts >= FAILED_STARTS and not self.workers:  # it would repeat for ever
                    self._give_up(self.waiting, worker)
            return
        if self.attempts[number] < ATTEMPTS:
            self.waiting.insert(0, number)
        elif worker.process.returncode not in (0, -signal.SIGTERM, -signal.SIGUSR2):  # asked to end: no failure
            self._give_up([number], worker)
        self.on_event({"event": "task", "task": number, "slot": slot})

    def _give_up(self, numbers: Sequence[int], worker: Worker) -> None:
        """Mark what dead workers were computing; what they had not begun waits for the next launch."""
        status = worker.process.returncode
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        hint = "; out of memory? lower model.width, ensemble or launch.workers" if status == -signal.SIGKILL else ""
        for number in list(numbers):
            left = [
                (self.plan.configurations[piece.configuration], unit)
                for piece in self.plan.tasks[number].slices
                for unit in find_units(self.plan.configurations[piece.configuration].run, piece.seeds)
                if unit.state not in (*FINISHED, "failed")
            ]
            # What another launch computes meanwhile is none of ours.
            left = [entry for entry in left if entry[1].seed not in find_locked(entry[0].run, [entry[1].seed])]
            begun = [entry for entry in left if entry[1].details.get("pid") == worker.process.pid]
            for configuration, unit in begun or left:
                error = f"the process that computed it ended by {how}{hint}"
                write_unfinished(
                    configuration.run, [unit.seed], "failed", key=configuration.key, error=error, log=str(worker.log)
                )
            if number in self.waiting:
                self.waiting.remove(number)

    def _end_workers(self) -> None:
        """Ask all workers to end, wait while they write their checkpoints, and kill what is left."""
        deadline = time.monotonic() + self.grace
        try:
            for worker in self.workers.values():
                worker.process.terminate()
                _close(worker.process.stdin)  # one that waits for a task looks at nothing else
            for worker in self.workers.values():
                worker.process.wait(max(0.0, deadline - time.monotonic()))
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            pass
        for worker in self.workers.values():
            if worker.process.poll() is None:
                worker.process.kill()
                worker.process.wait()


def _close(stream: IO[str] | None) -> None:
    """Close a worker's input, whether or not somebody still reads it."""
    assert stream is not None
    with contextlib.suppress(OSError):
        stream.close()


def share_cores(slot: int, workers: int) -> list[int]:
    """Return the cores of one of `workers` equal shares; none where processes cannot be bound to cores."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    cores = sorted(os.sched_getaffinity(0))
    if workers > len(cores):
        return [cores[slot % len(cores)]]
    bounds = [len(cores) * k // workers for k in range(workers + 1)]
    return cores[bounds[slot] : bounds[slot + 1]]
