"""How far a sweep is, read from its files: plan.json says what was asked for, status.json what became of it."""

import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ntklens.errors import InputError
from ntklens.store.locks import is_launched
from ntklens.store.step import read_step
from ntklens.store.trajectory import NewerSchema
from ntklens.store.units import FINISHED, Unit, find_units, read_command
from ntklens.sweep.plan import PLAN_NAME, PLAN_VERSION, Configuration, count_states, decode_ranges

COMPLETE, FAILED, UNFINISHED = 0, 1, 3  # exit statuses
SEED = re.compile(r"seed=(\d+)")


class Job(NamedTuple):
    """A job that SLURM knows: `12`, or `12_3` for a task of an array."""

    number: str
    state: str
    reason: str
    node: str
    elapsed: str
    name: str

    @property
    def pends(self) -> bool:
        """Whether it has not begun."""
        return self.state == "PENDING"


class RunStatus(NamedTuple):
    """One configuration: its directory's name, swept overrides, units, the line of a single run, and its chosen step.

    The step is what a rule chose for it; None: it was given, or is not chosen yet.
    """

    run: str
    axes: dict[str, Any]
    units: list[Unit]
    command: str = ""
    step: float | None = None


class SweepStatus(NamedTuple):
    """A sweep: where it lies, the line that launches it, its runs, how many others there are, and whether it is on.

    Single runs have a line each, and the sweep has none.
    """

    folder: Path
    command: str
    runs: list[RunStatus]
    others: int
    launched: bool = False
    damaged: bool = False  # the plan cannot be read: what was asked for is not known
    jobs: Sequence[Job] = ()  # what waits or runs in SLURM
    lost: Sequence[tuple[str, Unit]] = ()  # (run, unit) running by their files, and unknown to SLURM
    unseen: Sequence[tuple[str, Unit, int]] = ()  # the same with another user, whose jobs may not be for us to see
    vanished: Sequence[tuple[str, str, Path]] = ()  # (job, how it ended, its logs) of jobs that left nothing
    ended: Sequence[str] = ()  # how the jobs of interrupted units ended, by sacct

    def count_units(self) -> int:
        """Return the number of units asked for."""
        return sum(len(run.units) for run in self.runs)

    def count_states(self) -> dict[str, int]:
        """Return how many units are in each state."""
        return count_states([unit for run in self.runs for unit in run.units])

    def list_units(self, state: str) -> list[tuple[str, Unit]]:
        """Return (run, unit) of those in a state."""
        return [(run.run, unit) for run in self.runs for unit in run.units if unit.state == state]

    def list_commands(self, *states: str) -> list[str]:
        """Return the lines that continue units in these states."""
        if self.command:
            return [self.command]
        runs = [run for run in self.runs if run.command and any(unit.state in states for unit in run.units)]
        return list(dict.fromkeys(run.command for run in runs))

    def is_going(self) -> bool:
        """Return whether somebody is computing units of this sweep, or about to."""
        return (
            self.launched or bool(self.jobs) or any(unit.state == "running" for run in self.runs for unit in run.units)
        )

    @property
    def exit_status(self) -> int:
        """0: all done or diverged. 1: some failed. 3: unfinished."""
        states = {unit.state for run in self.runs for unit in run.units}
        if states <= set(FINISHED):
            return UNFINISHED if self.damaged else COMPLETE
        return FAILED if "failed" in states else UNFINISHED

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "name": self.folder.name,
            "states": self.count_states(),
            "exit_status": self.exit_status,
            "jobs": [job._asdict() for job in self.jobs],
            "lost": [[run, unit.seed, unit.details["job"]] for run, unit in self.lost],
            "runs": [
                {
                    "run": run.run,
                    "axes": run.axes,
                    "step": run.step,
                    "seeds": {str(unit.seed): unit.state for unit in run.units},
                    "errors": {str(u.seed): u.details.get("error", "") for u in run.units if u.state == "failed"},
                }
                for run in self.runs
            ],
        }


def read_sweep(folder: Path, configurations: Sequence[Configuration] | None = None) -> SweepStatus:
    """Read the state of every unit of a sweep.

    Args:
      folder: `multirun/<name>`.
      configurations: with their units, if they are known; else plan.json says what was asked for, and where there is
        none, what lies in the folder.

    Returns:
      The states, and what was asked for.

    Raises:
      InputError: if there is no such folder, or its plan was written by a newer version.
    """
    plan = _read_plan(folder)
    command = plan.get("command", "")
    if configurations is not None:
        runs = [RunStatus(c.run.name, c.axes, c.units, step=find_chosen_step(c.run)) for c in configurations]
        return SweepStatus(folder, command, runs, 0)
    present = _list_runs(folder)
    if "asked" not in plan and not present:
        entries = [entry for entry in _scan(folder.parent) if entry.is_dir() and entry.name[0] != "."]
        names = sorted(entry.name for entry in entries if (Path(entry) / PLAN_NAME).exists() or _list_runs(Path(entry)))
        verb = "is" if len(names) == 1 else "are"
        known = f"there {verb} {', '.join(names)}" if names else "there is none yet"
        raise InputError(f"name={folder.name}: no sweep of this name in {folder.parent}; {known}")
    asked = plan["asked"] if "asked" in plan else [(run, {}, _list_seeds(folder / run)) for run in present]
    runs = [
        RunStatus(
            run,
            axes,
            _find_all(folder / run, seeds),
            "" if command else read_command(folder / run),
            find_chosen_step(folder / run),
        )
        for run, axes, seeds in asked
    ]
    others = len(set(present) - {run.run for run in runs})
    return SweepStatus(folder, command, runs, others, is_launched(folder), plan.get("damaged", False))


def find_chosen_step(run: Path) -> float | None:
    """Return the step that a rule chose for a run; None where it was given, or is not chosen yet."""
    return read_step(run).get("learning_rate")


def _find_all(run: Path, seeds: Sequence[int]) -> list[Unit]:
    """Return the units of a run; one whose file this ntklens is too old to read is done: a newer one wrote it."""
    try:
        return find_units(run, seeds)
    except NewerSchema:
        units = []
        for seed in seeds:
            try:
                units += find_units(run, [seed])
            except NewerSchema:
                units.append(Unit(seed, "done", {}))
        return units


def _read_plan(folder: Path) -> dict[str, Any]:
    """Return a plan's `command` and what it `asked` for, (run, axes, seeds) each; nothing if there is no plan."""
    path = folder / PLAN_NAME
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        if plan["version"] > PLAN_VERSION:
            raise InputError(f"{path}: written by a newer ntklens; upgrade, or choose another name=…")
        asked = [(str(c["run"]), dict(c["axes"]), decode_ranges(c["seeds"])) for c in plan["configurations"]]
        return {"command": str(plan["command"]), "asked": asked}
    except FileNotFoundError:
        return {}
    except InputError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        print(
            f"{path} cannot be read ({type(error).__name__}): what lies in the folder is shown; launch the sweep again",
            file=sys.stderr,
        )
        return {"damaged": True}


def _scan(folder: Path) -> list[os.DirEntry]:
    try:
        return list(os.scandir(folder))
    except OSError:
        return []


def _list_runs(folder: Path) -> list[str]:
    """Return the names of the runs' directories: those with a configuration, or with a seed."""
    return sorted(
        entry.name
        for entry in _scan(folder)
        if os.path.exists(os.path.join(entry.path, "config.yaml"))
        or any(SEED.fullmatch(inner.name) for inner in _scan(Path(entry.path)))
    )


def _list_seeds(run: Path) -> list[int]:
    return sorted(int(match[1]) for entry in _scan(run) if (match := SEED.fullmatch(entry.name)))
