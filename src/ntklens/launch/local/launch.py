"""Launches a plan in processes of this machine."""

import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
from rich.console import Console

from ntklens.config.schemas import GIB
from ntklens.jobs.devices import check_device_apart
from ntklens.jobs.process import count_process_bytes
from ntklens.launch.base import NO_LIMIT
from ntklens.launch.local.bar import SweepBar
from ntklens.launch.local.pool import Pool
from ntklens.machine import count_cores, count_slots, find_gpus
from ntklens.signals import Stop
from ntklens.sweep.cost import Cost
from ntklens.sweep.plan import Capacity, Configuration, Plan


class LocalLaunch:
    """Several processes on this machine."""

    detached = False

    def find_capacity(self, configurations: Sequence[Configuration], costs: Sequence[Cost]) -> Capacity:
        """Return one process per core, or per GPU, or as many as are asked for, fewer where memory is short."""
        memory = find_memory_limit(configurations)
        process = count_process_bytes(configurations[0].cfg)
        largest = max(sum(cost.memory) for cost in costs) + process
        workers = configurations[0].cfg.launch.workers or max(1, min(count_slots(), int(memory // largest)))
        return Capacity(workers, max(1, count_cores() // workers), memory / workers, memory, process=process)

    def find_submitted(self, folder: Path, configurations: Sequence[Configuration]) -> frozenset[tuple[str, int]]:
        """Return nothing: what another launch computes is waited for."""
        return frozenset()

    def check(self, plan: Plan) -> None:
        """Refuse what asks for a device that is not here; what this machine cannot hold the plan itself refuses."""
        check_device_apart()

    def run(self, plan: Plan, stop: Stop, console: Console) -> bool:
        """Run a plan's tasks and wait for their end."""
        grace = float(plan.configurations[0].cfg.checkpoint.grace)
        memory = None if find_gpus() else find_memory_limit(plan.configurations)
        with SweepBar(plan, Console(stderr=True)) as bar:
            Pool(plan, stop, memory, grace, bar.take).run()
        for error in dict.fromkeys(bar.errors):  # also what the disk would not take
            print(error, file=sys.stderr)
        return not bar.busy

    def wait(self, plan: Plan, stop: Stop, console: Console) -> None:
        """Wait for nothing: `run` has."""


def find_memory_limit(configurations: Sequence[Configuration]) -> float:
    """Return the bytes that all workers and their libraries may use: `ntk.memory_limit`, or 4/5 of what is free."""
    from ntklens.training.memory import find_cgroup_memory

    limit = configurations[0].cfg.ntk.memory_limit
    if limit is not None:
        return limit * GIB
    if find_gpus():
        return NO_LIMIT  # each worker asks its own
    return 0.8 * min([psutil.virtual_memory().available, *find_cgroup_memory()])
