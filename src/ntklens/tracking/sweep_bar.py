"""Progress of a whole launch in the terminal: seeds done, time left, the latest record."""

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from ntklens.sweep.plan import Plan
from ntklens.sweep.pool import Event


class SweepBar:
    """Shows how far a launch is, weighted by what its parts cost; silent where nobody watches."""

    def __init__(self, plan: Plan, console: Console) -> None:
        self.plan = plan
        columns = (
            TextColumn("{task.description}"),
            BarColumn(30),
            TextColumn("{task.fields[units]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
        )
        self.progress = Progress(
            *columns, console=console, disable=not console.is_terminal, transient=True, expand=True
        )
        self.total = sum(task.seconds for task in plan.tasks) or 1.0
        self.todo = sum(len(piece.seeds) for task in plan.tasks for piece in task.slices)
        self.bar = self.progress.add_task(plan.name, total=self.total, units=f"0/{self.todo} seeds", note="")
        self.seconds, self.finished = 0.0, 0
        self.errors: list[str] = []
        self.busy = 0  # seeds that another launch was computing
        self.partial: dict[int, float] = {}
        self.pieces = {
            (piece.configuration, number): piece.seconds
            for number, task in enumerate(plan.tasks)
            for piece in task.slices
        }

    def take(self, event: Event) -> None:
        """Take an event of the pool."""
        slot = event["slot"]
        if event["event"] == "progress":
            number = event["configuration"]
            mean = max((s for (c, _), s in self.pieces.items() if c == number), default=0.0)
            self.partial[slot] = min(1.0, event["share"]) * mean
            axes = self.plan.configurations[number].axes
            place = ", ".join(f"{key}={value}" for key, value in axes.items())
            self.progress.update(self.bar, note=f"{place}: {event['note']}" if place else event["note"])
        elif event["event"] == "slice":
            self.partial.pop(slot, None)
            self.seconds += event["seconds"]
            self.finished += event["finished"]
            self.busy += event["busy"]
            self.errors += [event["error"]] if event["error"] else []
            self.progress.update(self.bar, units=f"{self.finished}/{self.todo} seeds")
        elif event["event"] == "task":
            self.partial.pop(slot, None)
        self.progress.update(self.bar, completed=min(self.total, self.seconds + sum(self.partial.values())))

    def __enter__(self) -> "SweepBar":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()
