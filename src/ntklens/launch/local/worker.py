"""A process of a sweep: does the tasks that it reads, a line of JSON each, until its input closes.

Standard output carries events; what libraries print goes to standard error, which is the worker's log.
"""

import json
import os
import queue
import sys
import threading
import time
from typing import IO, Any

from ntklens.jobs.slices import compute_slice
from ntklens.jobs.tracker import tracked
from ntklens.jobs.watcher import LogWatcher, Pace
from ntklens.signals import Stop, stop_on_signals

EVENT_SECONDS = 0.5  # between two reports of progress


def main() -> None:
    """Work until the input closes, or a signal asks for the end."""
    with stop_on_signals() as stop:  # before the heavy imports: a signal may come in the first second
        if len(sys.argv) > 1:
            os.sched_setaffinity(0, {int(core) for core in sys.argv[1].split(",")})
        events = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)
        tasks: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=_read_tasks, args=(tasks, stop), daemon=True).start()
        try:
            with tracked(stop):
                _work(tasks, stop, Reporter(events, stop))
        except KeyboardInterrupt:
            print("asked to end: finished seeds are kept, the others continue with the next launch", file=sys.stderr)
        os._exit(0)  # not through the interpreter's end, which would wait for the thread that reads


def _read_tasks(tasks: queue.Queue, stop: Stop) -> None:
    try:
        for line in sys.stdin:
            tasks.put(json.loads(line))
    finally:  # our parent has ended, perhaps in the middle of a line, or has nothing more for us
        stop.request()
        tasks.put(None)


class Reporter:
    """Writes events to whoever started this process; if nobody reads them any more, asks for the end."""

    def __init__(self, stream: IO[str], stop: Stop) -> None:
        self.stream, self.stop = stream, stop

    def tell(self, event: str, **details: Any) -> None:
        """Write one event."""
        try:
            self.stream.write(json.dumps({"event": event, **details}) + "\n")
        except OSError:
            self.stop.request()


def _work(tasks: queue.Queue, stop: Stop, reporter: Reporter) -> None:
    import ntklens.jobs.compute  # noqa: F401  # before a worker is ready, so that its first task finds it imported

    class EventWatcher(LogWatcher):
        """Passes on how far a slice is."""

        def __init__(self, configuration: int) -> None:
            self.configuration, self.pace, self.sent = configuration, Pace(0, 0), 0.0

        def begin(self, total: int, records: int, label: str) -> None:
            self.pace = Pace(total, records)

        def advance(self, count: int, note: str) -> None:
            self.pace.advance(count, note)
            if note and time.monotonic() - self.sent > EVENT_SECONDS:
                self.sent = time.monotonic()
                share = self.pace.find_share()
                reporter.tell("progress", configuration=self.configuration, share=share, note=note)

    reporter.tell("ready")
    while (task := tasks.get()) is not None:
        for piece in task["slices"]:
            watcher = EventWatcher(piece["configuration"])
            outcome = compute_slice(piece, task["memory"], stop, watcher)
            left = [*outcome.failed, *outcome.interrupted, *outcome.busy]
            reporter.tell(
                "slice",
                configuration=piece["configuration"],
                seconds=piece["seconds"],
                finished=len(piece["seeds"]) - len(left),
                busy=len(outcome.busy),
                error=f"{'failed' if outcome.failed else 'interrupted'}: {outcome.error}" if outcome.error else "",
            )
        reporter.tell("task", task=task["task"])


if __name__ == "__main__":
    main()
