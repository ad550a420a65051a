"""Progress in the terminal: updates done, rate, time left; silent when nobody watches."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class Watcher:
    """Is told how far a computation is; this one keeps silent. Used as a context, which ends what it shows."""

    def begin(self, total: int, label: str) -> None:
        """Take the number of updates to do, and what they are done for."""

    def advance(self, count: int, note: str) -> None:
        """Take the number of updates just done, and a note on the latest record, if there is one."""

    def say(self, text: str) -> None:
        """Take a line for the log."""

    def __enter__(self) -> "Watcher":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class RateColumn(ProgressColumn):
    """Updates per second."""

    def render(self, task: Task) -> Text:
        """Return the text of the column."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} updates/s")


class ProgressBar(Watcher):
    """Shows a bar on standard error, if that is a terminal."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            RateColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self.progress = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
        self.bar = self.progress.add_task("", total=None, note="", start=False)

    def begin(self, total: int, label: str) -> None:
        """Take the number of updates to do, and what they are done for."""
        self.progress.reset(self.bar, total=total, description=label)

    def advance(self, count: int, note: str) -> None:
        """Take the number of updates just done, and a note on the latest record, if there is one."""
        self.progress.update(self.bar, advance=count)
        if note:
            self.progress.update(self.bar, note=note)

    def __enter__(self) -> "ProgressBar":
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()
