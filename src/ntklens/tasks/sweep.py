"""task=train with -m: launch what is pending of a sweep, and print what was found."""

import itertools
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from typing import Any

from rich.console import Console

from ntklens.config.construct import construct
from ntklens.config.lines import format_task
from ntklens.errors import InputError
from ntklens.jobs.finish import finish_late
from ntklens.launch.base import Launch
from ntklens.launch.carry_out import carry_out, count_pending
from ntklens.launch.planning import make_plans
from ntklens.launch.slurm.status import ask_slurm
from ntklens.launch.slurm.submit import explain_refusal
from ntklens.recording.trajectory import refuse_unrecorded
from ntklens.report.console import make_console
from ntklens.report.sweep_table import (
    build_sweep_table,
    describe_failures,
    describe_jobs,
    describe_sweep_minima,
    describe_unfinished,
)
from ntklens.signals import Stop, stop_on_signals
from ntklens.store.layout import find_seed_directory
from ntklens.store.locks import lock_launch, lock_seeds
from ntklens.store.snapshots import refuse_finished
from ntklens.store.units import FINISHED, find_units, set_replaced
from ntklens.sweep.plan import PLAN_NAME, Configuration, Plan, look_up_units, write_plan
from ntklens.sweep.status import COMPLETE, FAILED, UNFINISHED, read_sweep
from ntklens.tasks.plan import print_plan_summary
from ntklens.wandb.catch_up import track_published
from ntklens.words import count


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
    plans = make_plans(configurations, words, launch)
    for configuration in itertools.chain(*(plan.configurations for plan in plans)):
        finished = [unit.seed for unit in configuration.units if unit.state in FINISHED]
        if not configuration.cfg.replace:
            places = [find_seed_directory(configuration.run, seed) for seed in finished]
            refuse_finished(configuration.cfg.keep, configuration.run, places)
            refuse_unrecorded(configuration.cfg.metrics, configuration.run, places)
    console = make_console()
    _store(plans)
    if there := sum(_invalidate(plan) for plan in plans):
        console.print(f"replace=true: {there} results are invalidated; type the line without it to continue later")
    for plan in plans:
        if count_pending(plan) and (line := construct(plan.configurations[0].cfg.tracking).announce(plan.folder)):
            console.print(line)
        print_plan_summary(plan, console)
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
        with lock_launch(plan.folder):  # so that status knows that somebody is at it
            carry_out(plan, launch, stop, console)
        return _print_end(plan, console)
    taken = launch.run(plan, stop, console)
    if not plan.configurations[0].cfg.launch.wait:
        _print_where_to_look(plan, console)
    return COMPLETE if taken else UNFINISHED


def _store(plans: Sequence[Plan]) -> None:
    """Write every plan.json, or none; where nothing is to be computed, results that cannot be written are fine."""
    new = []
    for plan in plans:
        path = plan.folder / PLAN_NAME
        new += [] if path.exists() else [path]
        try:
            write_plan(plan)
        except InputError:
            if count_pending(plan):
                for made in new:
                    with suppress(OSError):
                        made.unlink(missing_ok=True)
                        made.parent.rmdir()
                raise


def _invalidate(plan: Plan) -> int:
    """Invalidate the results that `replace=true` asks to be computed anew, and return how many."""
    there = 0
    for configuration in plan.configurations:
        if configuration.replaces:
            finished = [unit.seed for unit in configuration.units if unit.state in FINISHED]
            if not finished:
                configuration.invalidated = True
                continue
            try:
                with lock_seeds(configuration.run, finished) as mine:
                    set_replaced(configuration.run, mine)
            except OSError as error:
                raise InputError(f"replace=true: {configuration.run} cannot be written ({error.strerror})") from error
            there += len(mine)
            configuration.invalidated = True
            configuration.units = find_units(configuration.run, configuration.seeds)
    return there


def _print_end(plan: Plan, console: Console) -> int:
    """Print what a sweep found, and return its exit status."""
    for configuration in plan.configurations:
        if finish_late(configuration.run, configuration.units):
            configuration.units = find_units(configuration.run, configuration.seeds)
    console.print(build_sweep_table(plan.configurations))
    for line in describe_sweep_minima(plan.configurations):
        console.print(line)
    status = ask_slurm(read_sweep(plan.folder, plan.configurations))
    for line in [*describe_jobs(status), *describe_failures(status)]:
        console.print(line)
    counts = status.count_states()
    if status.exit_status == UNFINISHED:
        for line in describe_unfinished(status):
            console.print(line)
    if counts["diverged"]:
        console.print(f"{count(counts['diverged'], 'seed')} diverged, kept out of the table")
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
