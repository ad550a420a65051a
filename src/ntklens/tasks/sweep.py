"""Sweeps: plan them, launch them, say how far they are."""

import functools
import itertools
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console
from rich.live import Live

from ntklens.config import construct
from ntklens.errors import InputError
from ntklens.lines import format_command, format_task, get_words, list_continuing
from ntklens.report.console import make_console
from ntklens.report.sweep_table import (
    build_plan_table,
    build_status_table,
    build_sweep_table,
    describe_failures,
    describe_jobs,
    describe_plan,
    describe_status,
    describe_unfinished,
)
from ntklens.signals import Stop, stop_on_signals
from ntklens.snapshots import refuse_finished
from ntklens.sweep.claims import claim_launch, claim_seeds, claim_submission, find_claimed
from ntklens.sweep.cost import Cost
from ntklens.sweep.key import compute_key, name_run
from ntklens.sweep.launch import explain_refusal
from ntklens.sweep.plan import (
    PLAN_NAME,
    Calibration,
    Configuration,
    Plan,
    calibrate,
    check_checkpoints,
    look_up_units,
    make_tasks,
    merge_configurations,
    write_plan,
)
from ntklens.sweep.progress import COMPLETE, FAILED, UNFINISHED, SweepStatus, ask_slurm, read_sweep
from ntklens.sweep.slurm import cancel_jobs
from ntklens.sweep.states import FINISHED, find_seed_directory, find_units, set_replaced
from ntklens.sweep.submissions import ask_for_jobs, find_submitted, read_submissions
from ntklens.tasks.datasets import check_launch_data
from ntklens.tasks.finish import finish_late
from ntklens.tasks.launch import Launch, LocalLaunch
from ntklens.tasks.track import track_published
from ntklens.tracking.runs import describe_tracking, find_partial, find_unsynced
from ntklens.training.checkpoint import measure_write_rate

WAIT_SECONDS = 0.5  # between two looks at what another launch computes
LIVE_SECONDS = 2.0
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
            _cut_into_tasks(plan, launch, refuse)
            if refuse:
                launch.check(plan)
        plans.append(plan)
    return plans


def _cut_into_tasks(plan: Plan, launch: Launch, refuse: bool = True) -> None:
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
    from ntklens.tasks.compute import build_trainer
    from ntklens.tasks.estimate import estimate_cost, load_dataset_sizes
    from ntklens.tasks.models import check_model

    for configuration in configurations:
        if configuration.find_pending():
            check_model(configuration.cfg, load_dataset_sizes(configuration.cfg), build_trainer)
    return [estimate_cost(configuration.cfg) for configuration in configurations]


def show_plan(cfg: DictConfig) -> int:
    """task=plan without -m: print the plan of one configuration, and write nothing."""
    configuration = make_configuration(cfg, list(HydraConfig.get().overrides.task), {})
    return print_plans(make_plans([configuration], get_words(), LocalLaunch(), refuse=False), cfg.task.format)


def print_plans(plans: Sequence[Plan], style: str) -> int:
    """Print plans as tables or as JSON, and return the exit status."""
    if style == "json":
        described = [plan.to_json() for plan in plans]
        print(json.dumps(described[0] if len(described) == 1 else described, indent=1))
        return 0
    console = make_console()
    for plan in plans:
        console.print(build_plan_table(plan))
        _print_plan_summary(plan, console)
    return 0


def _print_plan_summary(plan: Plan, console: Console) -> None:
    for line in describe_plan(plan):
        console.print(line)


def sweep(
    configurations: Sequence[Configuration],
    words: Sequence[str],
    launch: Launch | None,
    launch_whole: Callable[[list[list[str]]], Any],
) -> int:
    """Plan a sweep, launch what is pending, and say what was found.

    Args:
      configurations: all, composed and checked.
      words: the command line behind `python -m ntklens.run`.
      launch: carries out the tasks of a plan; None: the launcher knows whole configurations only.
      launch_whole: runs configurations given by their overrides, each in a job of its own.

    Returns:
      The exit status: 0 complete, or all that remains is submitted; 1 some failed; 3 unfinished.

    Raises:
      InputError: before anything is written.
      KeyboardInterrupt: if a signal asked for the end.
    """
    task = configurations[0].cfg.task
    planning = task._target_.endswith("show_plan")
    if not planning and not task._target_.endswith("train"):
        name = task._target_.rpartition(".")[2].removeprefix("show_")
        raise InputError(f"task={name}: not for a sweep; type it without -m")
    plans = make_plans(configurations, words, launch or (LocalLaunch() if planning else None), refuse=not planning)
    if planning:
        return print_plans(plans, task.format)
    for configuration in itertools.chain(*(plan.configurations for plan in plans)):
        finished = [unit.seed for unit in configuration.units if unit.state in FINISHED]
        if not configuration.cfg.replace:
            places = [find_seed_directory(configuration.run, seed) for seed in finished]
            refuse_finished(configuration.cfg.keep, configuration.run, places)
    console = make_console()
    _store(plans)
    for plan in plans:
        _take_back(plan, console)
        _print_plan_summary(plan, console)
    statuses, handed_over = [], []
    with stop_on_signals() if launch else nullcontext() as stop:
        for plan in plans:
            if not any(configuration.find_pending() for configuration in plan.configurations):
                statuses.append(_print_end(plan, console))
            elif launch is None or stop is None:
                pending = [words for c in plan.configurations if c.find_pending() for words in c.overrides]
                try:
                    launch_whole(pending)
                except Exception as error:  # of a stock launcher; what became of the runs their files say
                    if not type(error).__module__.startswith("submitit"):
                        raise
                    print(f"hydra/launcher: {explain_refusal(error)}", file=sys.stderr)
                look_up_units(plan.configurations)
                statuses.append(_print_end(plan, console))
            else:
                statuses.append(_launch(plan, launch, stop, console))
                handed_over += [plan] if launch.detached and plan.configurations[0].cfg.launch.wait else []
        for plan in handed_over:  # once all are submitted
            assert launch is not None
            assert stop is not None
            launch.wait(plan, stop, console)
            look_up_units(plan.configurations)
            statuses.append(_print_end(plan, console))
    return FAILED if FAILED in statuses else max(statuses)


def _launch(plan: Plan, launch: Launch, stop: Stop, console: Console) -> int:
    """Carry out a plan, or hand it over, and return the exit status."""
    if not launch.detached:
        with claim_launch(plan.folder):  # so that status knows that somebody is at it
            _carry_out(plan, launch, stop, console)
        return _print_end(plan, console)
    taken = launch.run(plan, stop, console)
    if not plan.configurations[0].cfg.launch.wait:
        _print_where_to_look(plan, console)
    return COMPLETE if taken else UNFINISHED


def _carry_out(plan: Plan, launch: Launch, stop: Stop, console: Console) -> None:
    """Launch a plan; then wait for what another launch computes, and take over what it, or a dead worker, left."""
    said = False
    before = _count_pending(plan)
    while True:
        waited = not launch.run(plan, stop, console)
        for configuration in plan.configurations:
            configuration.retried = True
        while True:
            look_up_units(plan.configurations)
            pending = _count_pending(plan)
            if not pending or _find_free(plan):
                break
            if not said:
                print(f"{pending} seeds are computed by another launch: waiting for it", file=sys.stderr)
            said = waited = True
            stop.check()
            time.sleep(WAIT_SECONDS)
        if not pending or (pending >= before and not waited):  # a launch that changes nothing is not repeated
            return
        before = pending
        _cut_into_tasks(plan, launch)


def _find_free(plan: Plan) -> bool:
    """Return whether something pending is claimed by nobody; a state lags behind, and a claim covers a whole slice."""
    for configuration in plan.configurations:
        pending = set(configuration.find_pending())
        if pending and pending - find_claimed(configuration.run, pending):
            return True
    return False


def _store(plans: Sequence[Plan]) -> None:
    """Write every plan.json, or none; where nothing is to be computed, results that cannot be written are fine."""
    new = []
    for plan in plans:
        path = plan.folder / PLAN_NAME
        new += [] if path.exists() else [path]
        try:
            write_plan(plan)
        except InputError:
            if _count_pending(plan):
                for made in new:
                    with suppress(OSError):
                        made.unlink(missing_ok=True)
                        made.parent.rmdir()
                raise


def _count_pending(plan: Plan) -> int:
    return sum(len(configuration.find_pending()) for configuration in plan.configurations)


def _take_back(plan: Plan, console: Console) -> None:
    """Take back the results that `replace=true` asks to be computed anew."""
    there = 0
    for configuration in plan.configurations:
        if configuration.replaces:
            finished = [unit.seed for unit in configuration.units if unit.state in FINISHED]
            if not finished:
                configuration.taken_back = True
                continue
            try:
                with claim_seeds(configuration.run, finished) as mine:
                    set_replaced(configuration.run, mine)
            except OSError as error:
                raise InputError(f"replace=true: {configuration.run} cannot be written ({error.strerror})") from error
            there += len(mine)
            configuration.taken_back = True
            configuration.units = find_units(configuration.run, configuration.seeds)
    if there:
        console.print(f"replace=true: {there} results are taken back; type the line without it to continue later")


def _print_end(plan: Plan, console: Console) -> int:
    """Print what a sweep found, and return its exit status."""
    for configuration in plan.configurations:
        if finish_late(configuration.run, configuration.units):
            configuration.units = find_units(configuration.run, configuration.seeds)
    console.print(build_sweep_table(plan.configurations))
    status = ask_slurm(read_sweep(plan.folder, plan.configurations))
    for line in [*describe_jobs(status), *describe_failures(status)]:
        console.print(line)
    counts = status.count_states()
    if status.exit_status == UNFINISHED:
        for line in describe_unfinished(status):
            console.print(line)
    if counts["diverged"]:
        console.print(f"{counts['diverged']} seeds diverged, kept out of the table")
    if status.exit_status == COMPLETE:
        console.print(f"report   {format_task('report', plan.folder)}")
    console.print(f"results  {plan.folder}/*/seed=*/trajectory.nc")
    _print_where_to_look(plan, console)
    console.print(f'load     ntklens.load("{plan.folder}")')
    for line in track_published(plan.configurations[0].cfg, [(c.run, c.units) for c in plan.configurations]):
        console.print(line)
    return status.exit_status


def _print_where_to_look(plan: Plan, console: Console) -> None:
    console.print(f"status   {format_task('status', plan.folder)}")


def show_status(cfg: DictConfig) -> int:
    """task=status: print how far a sweep is, and return 0 if it is complete, 1 if units failed, 3 if it is unfinished.

    Raises:
      InputError: if there is no such sweep.
    """
    folder = Path(cfg.paths.results) / cfg.name
    status = ask_slurm(read_sweep(folder))
    if cfg.task.format == "json":
        unsynced = [run.id for run in find_unsynced(folder)] + find_partial(folder)
        print(json.dumps(status.to_json() | {"unsynced": unsynced}, indent=1))
        return status.exit_status
    console = make_console()
    if cfg.task.live:
        status = _watch(folder, status, console)
    else:
        console.print(build_status_table(status))
    for line in [*describe_status(status), *describe_tracking(folder)]:
        console.print(line)
    return status.exit_status


def _watch(folder: Path, status: SweepStatus, console: Console) -> SweepStatus:
    """Show a sweep's table until nothing runs and nothing is queued, or somebody presses Ctrl-C."""
    try:
        while status.is_going() and not console.is_terminal:  # a file wants the last table alone
            time.sleep(LIVE_SECONDS)
            status = ask_slurm(read_sweep(folder))
        with Live(build_status_table(status), console=console, auto_refresh=False) as live:
            while status.is_going():
                time.sleep(LIVE_SECONDS)
                status = ask_slurm(read_sweep(folder))
                live.update(build_status_table(status), refresh=True)
    except KeyboardInterrupt:
        pass
    return status


def cancel(cfg: DictConfig) -> int:
    """task=cancel: cancel the jobs that a sweep has in SLURM; its finished seeds stay, the others can be continued.

    Raises:
      InputError: if there is no such sweep, or SLURM does not answer.
    """
    folder = Path(cfg.paths.results) / cfg.name
    read_sweep(folder)
    with claim_submission(folder) as nobody_submits:
        if not nobody_submits:
            raise InputError(
                "task=cancel: a launch submits jobs of this sweep at this moment; type it again once it has"
            )
        return _cancel(folder)


def _cancel(folder: Path) -> int:
    submissions = read_submissions(folder)
    jobs = ask_for_jobs(submissions)
    if jobs is None:
        raise InputError("task=cancel: squeue does not answer; type it where SLURM is, such as a login node")
    mine = sorted({job.number for job in find_submitted(submissions, jobs).values()})
    if not mine:
        print(f"{folder.name} has no jobs in SLURM")
        return COMPLETE
    if not cancel_jobs(mine):
        raise InputError(f"task=cancel: scancel {' '.join(mine[:5])}{' …' if len(mine) > 5 else ''} did not succeed")
    print(f"{len(mine)} tasks cancelled; they save what they have, launch the sweep again to continue")
    return COMPLETE
