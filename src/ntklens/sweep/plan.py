"""What a sweep is: its configurations, their states, the tasks that are cut from them, and plan.json."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from ntklens.errors import InputError
from ntklens.jobs.process import PROCESS_BYTES
from ntklens.store.files import write_atomically
from ntklens.store.units import FINISHED, STATES, Unit, find_units, select_pending
from ntklens.sweep.cost import COMPILE_SECONDS, PROCESS_SECONDS

PLAN_NAME = "plan.json"
PLAN_VERSION = 1


@dataclass
class Configuration:
    """One run: a resolved configuration, where its results lie, which seeds are asked for, and their states.

    Attributes:
      cfg: the resolved configuration.
      run: the run's directory.
      key: the run key.
      axes: the swept overrides, key → value.
      seeds: the seeds asked for.
      overrides: what composes it, as typed; one list for each configuration merged in it.
      units: the seeds' states.
      starts: the first seeds of the configurations merged in it, each once.
      repeated: the swept settings of those that are in the sweep already, with the same first seed.
      left_out: what its sweep leaves out of some configurations, in words.
    """

    cfg: DictConfig
    run: Path
    key: str
    axes: dict[str, Any]
    seeds: list[int]
    overrides: list[list[str]]
    units: list[Unit] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    left_out: Sequence[str] = ()

    retried: bool = False  # failed units have had their second chance in this launch

    invalidated: bool = False  # what `replace` asks for has been done

    @property
    def label(self) -> str:
        """The swept settings, as typed, by which people tell configurations apart."""
        return " ".join(f"{key}={'null' if value is None else value}" for key, value in self.axes.items())

    @property
    def replaces(self) -> bool:
        """Whether finished seeds are still to be invalidated."""
        return bool(self.cfg.replace) and not self.invalidated

    def find_pending(self) -> list[int]:
        """Return the seeds that are to be computed."""
        if self.replaces:
            asked = select_pending(self.units, bool(self.cfg.retry))
            return sorted({*asked, *(unit.seed for unit in self.units if unit.state in FINISHED)})
        return select_pending(self.units, bool(self.cfg.retry) and not self.retried)


class Slice(NamedTuple):
    """Seeds of one configuration, by its number in the plan."""

    configuration: int
    seeds: list[int]
    seconds: float


class Task(NamedTuple):
    """What one process does in a row."""

    slices: list[Slice]
    seconds: float
    memory: int


class Capacity(NamedTuple):
    """What tasks run on.

    Attributes:
      workers: processes side by side.
      cores: of each.
      share: bytes of memory of each, its libraries included.
      largest: bytes that one task may have at most, where it needs more than a share.
      seconds: of estimated work that a task is cut to, the longest and the shortest; None: `workers` decide.
      process: bytes of each before its first array: libraries, and what tracks it.
    """

    workers: int
    cores: int
    share: float
    largest: float
    seconds: tuple[float, float] | None = None
    process: int = PROCESS_BYTES


class Calibration(NamedTuple):
    """What finished units say of the estimates: true seconds ≈ factor × estimate, within a factor `error`."""

    factor: float
    error: float
    packs: int


UNCALIBRATED = Calibration(1.0, 1.0, 0)


@dataclass(frozen=True)
class Plan:
    """Everything a launch is about to do.

    Attributes:
      folder: of the sweep, which has its name.
      command: the line that continues it.
      configurations: all of the sweep, with the states of their seeds.
      tasks: what is cut from what is pending.
      calibration: of the estimates.
      workers: processes side by side.
      available: bytes of memory that the workers may use together.
      process: bytes of each worker before its first array.
      detached: whether tasks are handed over, and nobody waits for them.
      submitted: (run, seed) that SLURM has already, or a process outside of it computes.
      networks: how many networks are still to be compiled.
    """

    folder: Path
    command: str
    configurations: tuple[Configuration, ...]
    tasks: tuple[Task, ...] = ()
    calibration: Calibration = UNCALIBRATED
    workers: int = 1
    available: int = 0
    process: int = PROCESS_BYTES
    detached: bool = False
    submitted: frozenset[tuple[str, int]] = frozenset()
    networks: int = 0

    @property
    def name(self) -> str:
        """The sweep's name."""
        return self.folder.name

    @property
    def seconds(self) -> float:
        """The estimated wall time: of the longest task, or of all of them over the workers."""
        seconds = [task.seconds for task in self.tasks]
        return max(max(seconds, default=0.0), sum(seconds) / self.workers)

    @property
    def start_seconds(self) -> float:
        """The estimated wall time beside it: a process's imports, and compiling, which the workers share."""
        return PROCESS_SECONDS + COMPILE_SECONDS * -(-self.networks // self.workers) if self.tasks else 0.0

    @property
    def memory(self) -> int:
        """The estimated peak of memory, bytes, of the largest tasks that may run side by side."""
        return sum(sorted((task.memory for task in self.tasks), reverse=True)[: self.workers])

    def describe_task(self, task: Task, memory: float | None) -> dict[str, Any]:
        """Return a task as plain values: all that the process which does it needs.

        Args:
          task: one of the plan's.
          memory: bytes that the process may use, all included; None: what its device has.
        """
        slices = [
            {
                "configuration": piece.configuration,
                "config": OmegaConf.to_container(self.configurations[piece.configuration].cfg, resolve=True),
                "run": str(self.configurations[piece.configuration].run.absolute()),
                "label": self.configurations[piece.configuration].label,
                "seeds": piece.seeds,
                "seconds": piece.seconds,
            }
            for piece in task.slices
        ]
        return {"slices": slices, "memory": None if memory is None else memory - self.process}

    def without(self, submitted: frozenset[tuple[str, int]]) -> "Plan":
        """Return the plan without the seeds that have meanwhile ended, or been submitted."""
        pending = [set(configuration.find_pending()) for configuration in self.configurations]
        tasks = []
        for task in self.tasks:
            slices = []
            for piece in task.slices:
                run = self.configurations[piece.configuration].run.name
                seeds = [s for s in piece.seeds if s in pending[piece.configuration] and (run, s) not in submitted]
                slices += [piece._replace(seeds=seeds)] if seeds else []
            tasks += [task._replace(slices=slices)] if slices else []
        return replace(self, tasks=tuple(tasks), submitted=submitted)

    def count_states(self) -> dict[str, int]:
        """Return how many units are in each state."""
        return count_states([unit for configuration in self.configurations for unit in configuration.units])

    def to_json(self) -> dict[str, Any]:
        """Return plain values: what plan.json holds."""
        return {
            "version": PLAN_VERSION,
            "name": self.name,
            "command": self.command,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "states": self.count_states(),
            "estimated_seconds": round(self.seconds, 1),
            "estimated_start_seconds": round(self.start_seconds, 1),
            "estimated_memory_bytes": self.memory,
            "estimate_error_factor": round(self.calibration.error, 2),
            "measured_packs": self.calibration.packs,
            "workers": self.workers,
            "configurations": [
                {"run": c.run.name, "key": c.key, "axes": c.axes, "seeds": encode_ranges(c.seeds)}
                for c in self.configurations
            ],
            "tasks": [
                {
                    "seconds": round(task.seconds, 1),
                    "memory_bytes": task.memory,
                    "slices": [
                        [piece.configuration, encode_ranges(piece.seeds), round(piece.seconds, 2)]
                        for piece in task.slices
                    ],
                }
                for task in self.tasks
            ],
        }


def count_states(units: Sequence[Unit]) -> dict[str, int]:
    """Return how many units are in each of `STATES`, in their order."""
    return {state: sum(unit.state == state for unit in units) for state in STATES}


def merge_configurations(configurations: Sequence[Configuration]) -> list[Configuration]:
    """Return one configuration per run, with the seeds of all that are the same run: `-m seed=0,20` is one.

    Raises:
      InputError: if two differ in something that results do not depend on: one of them would be left out.
    """
    merged: dict[Path, Configuration] = {}
    for configuration in configurations:
        if configuration.run in merged:
            first = merged[configuration.run]
            differing = [key for key, value in configuration.axes.items() if first.axes.get(key, value) != value]
            if other := [key for key in differing if key not in ("seed", "ensemble")]:
                raise InputError(
                    f"{other[0]}: cannot be swept, its values share one run's directory; give it one value, or sweep "
                    f"name in step with it (hydra.sweeper.zip=[{other[0]},name])"
                )
            first.repeated += [configuration.label] if configuration.seeds[0] in first.starts else []
            first.starts = sorted({*first.starts, configuration.seeds[0]})
            first.overrides += configuration.overrides
            first.seeds = sorted({*first.seeds, *configuration.seeds})
            first.axes = {key: value for key, value in first.axes.items() if configuration.axes.get(key) == value}
        else:
            merged[configuration.run] = configuration
            configuration.starts = configuration.seeds[:1]
    return list(merged.values())


def look_up_units(configurations: Sequence[Configuration]) -> None:
    """Read the states of all units.

    Raises:
      InputError: if a trajectory was written in a newer schema, or may not be opened.
    """
    for configuration in configurations:
        configuration.units = find_units(configuration.run, configuration.seeds)


def write_plan(plan: Plan) -> None:
    """Write plan.json, which `task=status` reads.

    Raises:
      InputError: if the folder cannot be written.
    """
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(plan.folder / PLAN_NAME, json.dumps(plan.to_json()) + "\n")
    except OSError as error:
        raise InputError(f"paths.results: {plan.folder} cannot be written ({error.strerror})") from error


def encode_ranges(numbers: Sequence[int]) -> list[list[int]]:
    """Return increasing integers as [first, last] runs."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ranges


def decode_ranges(ranges: Sequence[Sequence[int]]) -> list[int]:
    """Return the integers of [first, last] runs."""
    return [number for first, last in ranges for number in range(first, last + 1)]
