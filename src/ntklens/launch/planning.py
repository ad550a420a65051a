"""From configurations to plans that a launch can carry out."""

import functools
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ntklens.config.construct import construct
from ntklens.config.identity import compute_key, name_run
from ntklens.config.lines import format_command, list_continuing
from ntklens.errors import InputError
from ntklens.jobs.datasets import load_dataset_sizes
from ntklens.launch.base import Launch
from ntklens.launch.datasets import check_launch_data
from ntklens.store.checkpoint import measure_write_rate
from ntklens.store.units import FINISHED
from ntklens.sweep.cost import Cost
from ntklens.sweep.cutting import calibrate, check_checkpoints, make_tasks
from ntklens.sweep.plan import Configuration, Plan, look_up_units, merge_configurations


def make_configuration(cfg: DictConfig, overrides: Sequence[str], axes: dict[str, Any]) -> Configuration:
    """Return a resolved configuration with its place and identity."""
    key = compute_key(cfg)
    run = Path(cfg.paths.results) / cfg.name / name_run(cfg, key)
    seeds = list(range(cfg.seed, cfg.seed + cfg.ensemble))
    return Configuration(cfg, run, key, axes, seeds, [list(overrides)])


def make_plans(
    configurations: Sequence[Configuration], words: Sequence[str], launch: Launch | None, refuse: bool = True
) -> list[Plan]:
    """Return one plan per name: what is done is dropped, the rest is cut into tasks.

    Args:
      configurations: all of a sweep.
      words: the command line behind `python -m ntklens.run`.
      launch: will carry them out; None: a launcher that runs whole configurations, and needs no tasks.
      refuse: whether what this machine cannot hold is an error.

    Raises:
      InputError: if something cannot be computed; nothing has been written then.
    """
    command = format_command(list_continuing(words))
    groups: dict[Path, list[Configuration]] = defaultdict(list)
    for configuration in merge_configurations(configurations):
        groups[configuration.run.parent].append(configuration)
    plans = []
    for folder, members in groups.items():
        look_up_units(members)
        pending = any(configuration.find_pending() for configuration in members)
        check_launch_data(folder, members)
        if pending and refuse:
            construct(members[0].cfg.tracking).check()
        plan = make_plan(folder, command, members, launch if pending else None, refuse)
        if pending and launch and refuse:
            launch.check(plan)
        plans.append(plan)
    return plans


def make_plan(
    folder: Path, command: str, configurations: Sequence[Configuration], launch: Launch | None, refuse: bool = True
) -> Plan:
    """Estimate what is pending of a sweep and cut it into tasks; without a launch, there are none.

    Args:
      folder: of the sweep.
      command: the line that continues it.
      configurations: with their units.
      launch: will carry the tasks out.
      refuse: whether what cannot be computed is an error.

    Returns:
      The plan.

    Raises:
      InputError: if something cannot be computed, or its checkpoints not written in time.
    """
    if launch is None:
        return Plan(folder, command, tuple(configurations))
    submitted = launch.find_submitted(folder, configurations)
    costs = _estimate_costs(configurations, keep=refuse)
    capacity = launch.find_capacity(configurations, costs)
    calibration = calibrate(configurations, costs, capacity.cores)
    tasks = make_tasks(configurations, costs, calibration, capacity, refuse, submitted)
    workers = max(1, min(capacity.workers, len(tasks)))
    if refuse:
        try:
            rate = functools.partial(measure_write_rate, folder)
            check_checkpoints(configurations, costs, tasks, workers, rate, capacity.process)
        except OSError as error:
            raise InputError(f"paths.results: {folder} cannot be written ({error.strerror})") from error
    available = 0 if launch.detached else int(capacity.largest)
    return Plan(
        folder, command, tuple(configurations), tuple(tasks), calibration, workers, available, capacity.process,
        launch.detached, submitted, count_networks(configurations, costs),
    )  # fmt: skip


def count_networks(configurations: Sequence[Configuration], costs: Sequence[Cost]) -> int:
    """Return how many networks are to be compiled: those of pending configurations, but for what finished ones ran."""
    ran = [
        (any(unit.state in FINISHED for unit in c.units), bool(c.find_pending()), cost.programs)
        for c, cost in zip(configurations, costs, strict=True)
    ]
    return len({name for _, pending, name in ran if pending} - {name for finished, _, name in ran if finished})


def _estimate_costs(configurations: Sequence[Configuration], keep: bool) -> list[Cost]:
    # One of each family is tried: the narrowest, which costs least.
    pending = [configuration.cfg for configuration in configurations if configuration.find_pending()]
    pending.sort(key=lambda cfg: width if isinstance(width := cfg.model.get("width"), int) else 0)
    for cfg in pending:  # what is refused is refused before anything slow: JAX's import, then compiling
        load_dataset_sizes(cfg)
    import jax

    # On the processor: a planner must not take a worker's GPU.
    jax.config.update("jax_platforms", "cpu")
    from ntklens._compat import use_compilation_cache
    from ntklens.jobs.build import build_trainer
    from ntklens.jobs.models import check_model, check_outputs
    from ntklens.sweep.estimate import estimate_cost

    if keep:  # a plan that is only looked at writes nothing, not even to a cache
        use_compilation_cache(configurations[0].run.absolute().parents[1], begin=False)
    for check in (check_outputs, check_model):
        for cfg in pending:
            check(cfg, load_dataset_sizes(cfg), build_trainer)
    return [estimate_cost(configuration.cfg) for configuration in configurations]
