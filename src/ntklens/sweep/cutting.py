"""Cuts what is pending into tasks of similar cost, by estimates that finished packs correct."""

import math
import statistics
from collections.abc import Callable, Collection, Sequence

from ntklens.config.schemas import GIB
from ntklens.errors import InputError
from ntklens.jobs.failures import describe_shortage
from ntklens.jobs.process import PROCESS_BYTES
from ntklens.store.step import read_step
from ntklens.store.units import FINISHED
from ntklens.sweep.cost import Cost, split_evenly
from ntklens.sweep.plan import Calibration, Capacity, Configuration, Slice, Task

TASKS_PER_WORKER = 6  # enough to even out what the estimates miss
SHORTEST_TASK = 20.0  # seconds of estimated work below which a task is not cut
UNMEASURED_ERROR = 3.0  # the factor that estimates may be off before anything was measured


def calibrate(configurations: Sequence[Configuration], costs: Sequence[Cost], cores: int) -> Calibration:
    """Compare what the sweep's finished packs took with what was estimated for them.

    Args:
      configurations: with their units.
      costs: of each.
      cores: cores that a pack had.

    Returns:
      The factor that corrects estimates.
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
    submitted: Collection[tuple[str, int]] = (),
) -> list[Task]:
    """Cut what is pending into tasks of similar cost, the longest first.

    Configurations that cost more than a fair share are cut by seeds; cheap ones are put together in their order, so
    that neighbours of one shape share compiled programs.

    Args:
      configurations: with their units.
      costs: of each.
      calibration: corrects the estimates.
      capacity: what they run on.
      submitted: (run, seed) to leave out.
      refuse: whether what does not fit is an error; a plan may be looked at where it cannot be run.

    Returns:
      The tasks.

    Raises:
      InputError: if one seed needs more memory than there is.
    """
    share = capacity.share - capacity.process
    pending = [[seed for seed in c.find_pending() if (c.run.name, seed) not in submitted] for c in configurations]

    unchosen = [bool(cost.pilot) and not read_step(c.run) for c, cost in zip(configurations, costs, strict=True)]

    def estimate(index: int, members: int) -> float:
        pilot = costs[index].estimate_pilot_seconds(members, capacity.cores) if unchosen[index] else 0.0
        return calibration.factor * (costs[index].estimate_seconds(members, capacity.cores) + pilot)

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
