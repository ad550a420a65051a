"""Progress of a whole launch in the terminal: seeds done, time left, the latest record."""

import time

from rich.console import Console
from rich.progress import TextColumn

from ntklens.jobs.watcher import LeftColumn, make_progress
from ntklens.launch.local.pool import Event
from ntklens.sweep.plan import Plan

LEAST_PRIOR, PRIOR_SHARE = 20.0, 0.1  # seconds of the plan's that what is measured is weighed against


class TimeLeft:
    """The time a launch still takes: what the plan estimates for the rest, times how much slower the plan was so far.

    With t seconds since something was done first, where the plan estimates e for what was done since, the rest takes
    (t + p) / (e + p) times the plan's estimate; p, a tenth of the plan's time, keeps the first minutes from deciding
    alone. What comes before, imports and compilations, tells nothing of the rest.

    Args:
      seconds: the plan's estimate for all.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.prior = max(LEAST_PRIOR, PRIOR_SHARE * seconds)
        self.share = 0.0
        self.first: tuple[float, float] | None = None

    def note(self, share: float, now: float) -> None:
        """Take the share of the plan's costs that is done, and the time in seconds."""
        self.share = share
        if share and self.first is None:
            self.first = share, now

    def find(self, now: float) -> float:
        """Return the seconds left."""
        share, started = self.first or (0.0, now)
        slower = (now - started + self.prior) / ((self.share - share) * self.seconds + self.prior)
        return (1 - self.share) * self.seconds * slower


class SweepBar:
    """Shows how far a launch is, weighted by what its parts cost; silent where nobody watches."""

    def __init__(self, plan: Plan, console: Console) -> None:
        self.plan = plan
        self.left = TimeLeft(plan.seconds)
        self.progress = make_progress(
            console, TextColumn("{task.fields[units]}"), LeftColumn(lambda: self.left.find(time.monotonic()))
        )
        self.total = sum(task.seconds for task in plan.tasks) or 1.0
        self.todo = sum(len(piece.seeds) for task in plan.tasks for piece in task.slices)
        self.bar = self.progress.add_task(plan.name, total=self.total, units=f"0/{self.todo} seeds", note="")
        self.seconds = self.completed = 0.0
        self.finished = 0
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
            place = self.plan.configurations[number].label
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
        self.completed = max(self.completed, min(self.total, self.seconds + sum(self.partial.values())))
        self.left.note(self.completed / self.total, time.monotonic())
        self.progress.update(self.bar, completed=self.completed)

    def __enter__(self) -> "SweepBar":
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()
