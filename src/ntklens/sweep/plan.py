"""From configurations to tasks: what is done is dropped, the rest is cut into tasks of similar cost."""

import json
import math
import statistics
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from ntklens.config import GIB
from ntklens.errors import InputError
from ntklens.sweep.cost import PROCESS_BYTES, Cost, split_evenly
from ntklens.sweep.states import FINISHED, STATES, Unit, find_units, select_pending, write_atomically

PLAN_NAME = "plan.json"
LOWER_MEMORY = "lower model.width, dataset.probe_size, dataset.train_size or training.batch_size"
PLAN_VERSION = 1
TASKS_PER_WORKER = 6  # enough to even out what the estimates miss
SHORTEST_TASK = 20.0  # seconds of estimated work below which a task is not cut
UNMEASURED_ERROR = 3.0  # the factor that estimates may be off before anything was measured


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
    """

    cfg: DictConfig
    run: Path
    key: str
    axes: dict[str, Any]
    seeds: list[int]
    overrides: list[list[str]]
    units: list[Unit] = field(default_factory=list)

    retried: bool = False  # failed units have had their second chance in this launch

    taken_back: bool = False  # what `replace` asks for has been done

    @property
    def replaces(self) -> bool:
        """Whether finished seeds are still to be taken back."""
        return bool(self.cfg.replace) and not self.taken_back

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


@dataclass
class Plan:
    """Everything a launch is about to do."""

    name: str
    folder: Path
    command: str
    configurations: list[Configuration]
    tasks: list[Task]
    calibration: Calibration
    workers: int
    available: int = 0  # bytes of memory that the workers may use together
    process: int = PROCESS_BYTES  # of each, before its first array
    detached: bool = False  # tasks are handed over, and nobody waits for them
    excused: set[tuple[str, int]] = field(default_factory=set)  # (run, seed) that SLURM has already

    @property
    def seconds(self) -> float:
        """The estimated wall time: of the longest task, or of all of them over the workers."""
        seconds = [task.seconds for task in self.tasks]
        return max(max(seconds, default=0.0), sum(seconds) / self.workers)

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
                "seeds": piece.seeds,
                "seconds": piece.seconds,
            }
            for piece in task.slices
        ]
        return {"slices": slices, "memory": None if memory is None else memory - self.process}

    def drop_excused(self) -> None:
        """Take out of the tasks what has meanwhile ended or been taken care of."""
        pending = [set(configuration.find_pending()) for configuration in self.configurations]
        tasks = []
        for task in self.tasks:
            slices = []
            for piece in task.slices:
                run = self.configurations[piece.configuration].run.name
                seeds = [s for s in piece.seeds if s in pending[piece.configuration] and (run, s) not in self.excused]
                slices += [piece._replace(seeds=seeds)] if seeds else []
            tasks += [task._replace(slices=slices)] if slices else []
        self.tasks = tasks

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
            first.overrides += configuration.overrides
            first.seeds = sorted({*first.seeds, *configuration.seeds})
            first.axes = {key: value for key, value in first.axes.items() if configuration.axes.get(key) == value}
        else:
            merged[configuration.run] = configuration
    return list(merged.values())


def look_up_units(configurations: Sequence[Configuration]) -> None:
    """Read the states of all units.

    Raises:
      InputError: if a trajectory was written in a newer schema, or may not be opened.
    """
    for configuration in configurations:
        configuration.units = find_units(configuration.run, configuration.seeds)


def calibrate(configurations: Sequence[Configuration], costs: Sequence[Cost], cores: int) -> Calibration:
    """Compare what the sweep's finished packs took with what was estimated for them.

    Args:
      configurations: with their units.
      costs: of each.
      cores: cores that a pack had.
    """
    ratios = []
    for configuration, cost in zip(configurations, costs, strict=True):
        packs = {
            (unit.details["seconds"], unit.details.get("packed", 1))
            for unit in configuration.units
            if unit.state in FINISHED and unit.details.get("seconds")
        }
        ratios += [seconds / cost.estimate_seconds(packed, cores) for seconds, packed in packs]
    if not ratios:
        return Calibration(1.0, UNMEASURED_ERROR, 0)
    logs = [math.log(ratio) for ratio in ratios]
    factor = statistics.median(logs)
    distances = sorted(abs(value - factor) for value in logs)
    spread = distances[math.ceil(0.9 * len(logs)) - 1] if len(logs) > 1 else math.log(UNMEASURED_ERROR) / 2
    return Calibration(math.exp(factor), math.exp(max(spread, 0.05)), len(ratios))


def make_tasks(
    configurations: Sequence[Configuration],
    costs: Sequence[Cost],
    calibration: Calibration,
    capacity: Capacity,
    refuse: bool = True,
    excused: Collection[tuple[str, int]] = (),
) -> list[Task]:
    """Cut what is pending into tasks of similar cost, the longest first.

    Configurations that cost more than a fair share are cut by seeds; cheap ones are put together in their order, so
    that neighbours of one shape share compiled programs.

    Args:
      configurations: with their units.
      costs: of each.
      calibration: corrects the estimates.
      capacity: what they run on.
      excused: (run, seed) to leave out.
      refuse: whether what does not fit is an error; a plan may be looked at where it cannot be run.

    Raises:
      InputError: if one seed needs more memory than there is.
    """
    share = capacity.share - capacity.process
    pending = [[seed for seed in c.find_pending() if (c.run.name, seed) not in excused] for c in configurations]

    def estimate(index: int, members: int) -> float:
        return calibration.factor * costs[index].estimate_seconds(members, capacity.cores)

    total = sum(estimate(index, len(seeds)) for index, seeds in enumerate(pending) if seeds)
    target = max(total / (TASKS_PER_WORKER * capacity.workers), SHORTEST_TASK)
    if capacity.seconds is not None:
        longest, shortest = capacity.seconds
        target = min(max(target, shortest), longest)
    tasks: list[Task] = []
    group: list[Slice] = []
    group_memory = 0

    def close() -> None:
        nonlocal group, group_memory
        if group:
            tasks.append(Task(group, sum(piece.seconds for piece in group), group_memory))
        group, group_memory = [], 0

    for index, seeds in enumerate(pending):
        if not seeds:
            continue
        need = costs[index].memory
        if refuse and not need.count_members(capacity.largest - capacity.process):
            cfg = configurations[index].cfg
            raise InputError(describe_shortage(cfg, sum(need), capacity.largest, capacity.process))
        fitting = max(1, need.count_members(share))
        parts = math.ceil(estimate(index, len(seeds)) / target)
        for part in split_evenly(seeds, math.ceil(len(seeds) / parts)):
            members = min(costs[index].pack or fitting, fitting, len(part))
            seconds, peak = estimate(index, len(part)), capacity.process + need.shared + members * need.per_member
            if group and sum(piece.seconds for piece in group) + seconds > target:
                close()
            group.append(Slice(index, part, seconds))
            group_memory = max(group_memory, peak)
    close()
    return sorted(tasks, key=lambda task: -task.seconds)


def describe_shortage(cfg: DictConfig, need: float, limit: float, process: int) -> str:
    """Return what to say where one seed needs more bytes than may be used: `need`, and `process` beside its arrays."""
    asked = cfg.ntk.memory_limit
    key = f"ntk.memory_limit={asked:g}" if asked else f"model.width={cfg.model.get('width')}"
    raised = "raise ntk.memory_limit, or " if asked else ""
    spared = f"tracking=none saves {(process - PROCESS_BYTES) / GIB:.2g}; " if process > PROCESS_BYTES else ""
    return (
        f"{key}: one seed of width {cfg.model.get('width')} needs about {(need + process) / GIB:.3g} GiB, "
        f"{process / GIB:.2g} of them for libraries; {limit / GIB:.3g} GiB may be used; "
        f"{spared}{raised}{LOWER_MEMORY}"
    )


def check_checkpoints(
    configurations: Sequence[Configuration],
    costs: Sequence[Cost],
    tasks: Sequence[Task],
    workers: int,
    measure_rate: Callable[[], float],
    process: int = PROCESS_BYTES,
) -> None:
    """Refuse a sweep whose checkpoints cannot be written in the time between a signal and the kill.

    Args:
      configurations: of the plan.
      costs: of each.
      tasks: of the plan.
      workers: processes side by side.
      measure_rate: returns the bytes per second that the results' disk takes; called only if there is something large.
      process: bytes of a process before its first array.

    Raises:
      InputError: naming what to set.
    """
    sizes = []
    for task in tasks:
        members = {
            index: min(
                len(seeds),
                costs[index].pack or len(seeds),
                max(1, costs[index].memory.count_members(task.memory - process)),
            )
            for index, seeds, _ in task.slices
        }
        sizes.append(max((count * costs[index].checkpoint, index) for index, count in members.items()))
    together = sorted(sizes, reverse=True)[:workers]  # a signal reaches all processes at once
    if not together:
        return
    size, at = sum(size for size, _ in together), configurations[together[0][1]]
    if at.cfg.checkpoint.minutes is None or size < 256 << 20:
        return
    seconds = size / measure_rate()
    if seconds > at.cfg.checkpoint.grace:
        raise InputError(
            f"checkpoint.grace={at.cfg.checkpoint.grace:g}: the checkpoints of {len(together)} "
            f"process{'es' if len(together) > 1 else ''} are {size / GIB:.3g} GiB and take about {seconds:.0f} s to "
            f"write (the largest: {at.run.name}); raise checkpoint.grace, "
            "or type checkpoint.minutes=null to go without checkpoints"
        )


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
