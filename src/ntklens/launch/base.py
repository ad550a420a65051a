"""What a launch does; hydra/launcher names which."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from rich.console import Console

from ntklens.signals import Stop
from ntklens.sweep.cost import Cost
from ntklens.sweep.plan import Capacity, Configuration, Plan

NO_LIMIT = 1e15  # bytes


class Launch(Protocol):
    """Carries out plans."""

    detached: bool  # whether `run` returns before the work is done

    def find_capacity(self, configurations: Sequence[Configuration], costs: Sequence[Cost]) -> Capacity:
        """Return what tasks will run on."""

    def find_submitted(self, folder: Path, configurations: Sequence[Configuration]) -> frozenset[tuple[str, int]]:
        """Return the (run, seed) of a sweep that somebody else computes, or will."""

    def check(self, plan: Plan) -> None:
        """Refuse a plan that cannot be carried out, before anything is written."""

    def run(self, plan: Plan, stop: Stop, console: Console) -> bool:
        """Carry out a plan's tasks; return whether all of them were taken."""

    def wait(self, plan: Plan, stop: Stop, console: Console) -> None:
        """Wait until what was handed over has ended."""
