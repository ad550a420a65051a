"""Progress in the terminal: updates done, rate, time left; silent when nobody watches."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class RateColumn(ProgressColumn):
    """Updates per second."""

    def render(self, task: Task) -> Text:
        """Return the text of the column."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} updates/s")


@contextmanager
def show_progress(total: int, label: str) -> Iterator[Callable[[int, str], None]]:
    """Show a bar on standard error, if that is a terminal.

    Args:
      total: updates to do.
      label: what stands before the bar.

    Yields:
      A function that takes the number of updates just done and a note to show behind the bar.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        bar = progress.add_task(label, total=total, note="")

        def advance(count: int, note: str) -> None:
            progress.update(bar, advance=count)
            if note:
                progress.update(bar, note=note)

        yield advance
