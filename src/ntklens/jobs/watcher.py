"""Watchers of a computation: silent, a log, or a bar in the terminal."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

LINE_SECONDS = 9.0  # between two lines where there is no terminal to draw in
RATE_WIDTH, NOTE_WIDTH = 100, 130  # columns of a terminal from which on there is room for them
BAR_WIDTH = 16


class Watcher:
    """Receives the progress of a computation; this one shows nothing. Used as a context, which ends what it shows."""

    def begin(self, total: int, records: int, label: str) -> None:
        """Take the numbers of updates and of records to do, and what they are done for."""

    def advance(self, count: int, note: str) -> None:
        """Take the number of updates just done; or none, and a note on the record just done."""

    def say(self, text: str) -> None:
        """Take a line for the log."""

    def __enter__(self) -> "Watcher":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class Pace:
    """The time that updates and records still take, each as long as those that were timed.

    The first of each compile. They are not timed, and before others are there is no estimate: after one update of
    thousands, the time so far tells nothing.

    Args:
      updates: number to do.
      records: number to do.
    """

    def __init__(self, updates: int, records: int) -> None:
        self.left = [updates, records]
        self.seconds, self.timed, self.compiled = [0.0, 0.0], [0, 0], [False, False]
        self.started = self.latest = time.monotonic()

    def advance(self, count: int, note: str) -> None:
        """Take what a watcher's `advance` takes."""
        if not count and not note:
            return
        kind, count = (0, count) if count else (1, 1)
        now = time.monotonic()
        if self.compiled[kind]:
            self.seconds[kind] += now - self.latest
            self.timed[kind] += count
        self.compiled[kind], self.latest = True, now
        self.left[kind] = max(0, self.left[kind] - count)

    def find_left(self) -> float | None:
        """Return the seconds left; None while they are unknown."""
        if any(left and not timed for left, timed in zip(self.left, self.timed, strict=True)):
            return None
        return sum(
            left * seconds / timed
            for left, seconds, timed in zip(self.left, self.seconds, self.timed, strict=True)
            if left
        )

    def find_share(self) -> float:
        """Return the share of the time that is over; 0 while it is unknown."""
        left, passed = self.find_left(), time.monotonic() - self.started
        return 0.0 if left is None else passed / (passed + left) if passed + left else 1.0


class LeftColumn(ProgressColumn):
    """The time left.

    Args:
      find: returns the seconds left, or None while they are unknown.
    """

    def __init__(self, find: Callable[[], float | None]) -> None:
        super().__init__()
        self.find = find

    def render(self, task: Task) -> Text:
        """Return the text of the column."""
        left = self.find()
        return Text("-:--:--" if left is None else str(timedelta(seconds=round(left))), style="progress.remaining")


class CountColumn(ProgressColumn):
    """Updates done of those to do."""

    def render(self, task: Task) -> Text:
        """Return the text of the column."""
        return Text("" if task.total is None else f"{int(task.completed):,}/{int(task.total):,}")


class RateColumn(ProgressColumn):
    """Updates per second."""

    def render(self, task: Task) -> Text:
        """Return the text of the column."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} updates/s")


def make_progress(console: Console, *columns: ProgressColumn, rate: ProgressColumn | None = None) -> Progress:
    """Return a progress display of one line that keeps its bar and numbers at every width: the name gives way.

    Args:
      console: where it is shown; nowhere, if that is no terminal.
      columns: numbers, right of the bar.
      rate: another, where there is room for it.
    """

    def give_way(text: str) -> TextColumn:
        return TextColumn(text, markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1))

    for column in (*columns, *([rate] if rate else [])):
        column._table_column = Column(no_wrap=True)
    return Progress(
        give_way("{task.description}"),
        BarColumn(BAR_WIDTH, table_column=Column(no_wrap=True, min_width=BAR_WIDTH)),
        *columns,
        *([rate] if rate and console.width >= RATE_WIDTH else []),
        *([give_way("{task.fields[note]}")] if console.width >= NOTE_WIDTH else []),
        console=console,
        disable=not console.is_terminal,
        redirect_stdout=sys.stdout.isatty(),  # what goes to a file goes there, and not above the bar
        transient=True,
        expand=True,
    )


class ProgressBar(Watcher):
    """Shows a bar on standard error, if that is a terminal; else, once training begins, lines on standard output.

    Args:
      label: what is done until training begins.
      console: where the bar is shown; None: standard error.
    """

    def __init__(self, label: str = "", console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        self.pace: Pace | None = None
        self.progress = make_progress(console, CountColumn(), LeftColumn(self.find_left), rate=RateColumn())
        self.bar = self.progress.add_task(label, total=None, note="", start=False)
        self.total = self.done = 0
        self.label = label
        self.ended = threading.Event()
        self.lines = None if console.is_terminal else threading.Thread(target=self._print_lines, daemon=True)

    def begin(self, total: int, records: int, label: str) -> None:
        """Take the numbers of updates and of records to do, and what they are done for."""
        self.progress.reset(self.bar, total=total, description=label)
        self.total, self.done, self.label, self.pace = total, 0, label, Pace(total, records)
        if self.lines and not self.lines.is_alive():
            self.lines.start()

    def advance(self, count: int, note: str) -> None:
        """Take the number of updates just done; or none, and a note on the record just done."""
        self.progress.update(self.bar, advance=count)
        self.done += count
        if self.pace:
            self.pace.advance(count, note)
        if note:
            self.progress.update(self.bar, note=note)

    def find_left(self) -> float | None:
        """Return the seconds left; None while they are unknown."""
        return None if self.pace is None else self.pace.find_left()

    def describe(self) -> str:
        """Return how far it is, as one line."""
        left = self.find_left()
        if left is None:
            return f"{self.label}: compiling, {self.done:,} of {self.total:,} updates"
        return f"{self.label}: {self.done:,} of {self.total:,} updates, about {left:,.0f} s left"

    def _print_lines(self) -> None:
        while not self.ended.wait(LINE_SECONDS):
            print(self.describe(), flush=True)

    def __enter__(self) -> "ProgressBar":
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended.set()
        if self.lines and self.lines.is_alive():
            self.lines.join()
        self.progress.stop()


class LogWatcher(Watcher):
    """Writes lines into the log of a process that nobody watches."""

    def say(self, text: str) -> None:
        """Write a line with the time."""
        with contextlib.suppress(OSError):  # the log may lie on a full disk
            print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)
