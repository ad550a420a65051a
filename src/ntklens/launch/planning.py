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
from ntklens.launch.base import Launch
from ntklens.launch.datasets import check_launch_data
from ntklens.store.checkpoint import measure_write_rate
from ntklens.sweep.cost import Cost
from ntklens.sweep.cutting import calibrate, check_checkpoints, make_tasks
from ntklens.sweep.plan import Calibration, Configuration, Plan, look_up_units, merge_configurations

NOT_ASKED = Calibration(1.0, 1.0, 0)


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
        plan = Plan(folder.name, folder, command, members, [], NOT_ASKED, 1)
        pending = any(configuration.find_pending() for configuration in members)
        if pending:
            check_launch_data(folder, members)
        if pending and refuse:
            construct(members[0].cfg.tracking).check()
        if pending and launch:
            launch.excuse(plan)
            cut_into_tasks(plan, launch, refuse)
            if refuse:
                launch.check(plan)
        plans.append(plan)
    return plans


def cut_into_tasks(plan: Plan, launch: Launch, refuse: bool = True) -> None:
    """Estimate what is pending and cut it into tasks."""
    costs = _estimate_costs(plan.configurations)
    capacity = launch.find_capacity(plan.configurations, costs)
    plan.calibration = calibrate(plan.configurations, costs, capacity.cores)
    plan.tasks = make_tasks(plan.configurations, costs, plan.calibration, capacity, refuse, plan.excused)
    plan.workers = max(1, min(capacity.workers, len(plan.tasks)))
    plan.detached, plan.available = launch.detached, 0 if launch.detached else int(capacity.largest)
    plan.process = capacity.process
    if refuse:
        try:
            rate = functools.partial(measure_write_rate, plan.folder)
            check_checkpoints(plan.configurations, costs, plan.tasks, plan.workers, rate, plan.process)
        except OSError as error:
            raise InputError(f"paths.results: {plan.folder} cannot be written ({error.strerror})") from error


def _estimate_costs(configurations: Sequence[Configuration]) -> list[Cost]:
    import jax

    # On the processor: a planner must not take a worker's GPU.
    jax.config.update("jax_platforms", "cpu")
    from ntklens.jobs.build import build_trainer
    from ntklens.jobs.models import check_model
    from ntklens.sweep.estimate import estimate_cost, load_dataset_sizes

    for configuration in configurations:
        if configuration.find_pending():
            check_model(configuration.cfg, load_dataset_sizes(configuration.cfg), build_trainer)
    return [estimate_cost(configuration.cfg) for configuration in configurations]
