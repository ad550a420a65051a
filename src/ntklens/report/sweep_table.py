"""Tables and lines on a sweep: its plan, state and findings; from status.json alone, so that they are there at once."""

import math
import pwd
import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from ntklens.analysis.observables import OBSERVABLES, list_observables
from ntklens.config import GIB
from ntklens.lines import format_task
from ntklens.sweep.plan import Configuration, Plan
from ntklens.sweep.progress import COMPLETE, UNFINISHED, SweepStatus
from ntklens.sweep.states import FINISHED, Unit

SWEEP_COLUMNS = list_observables("tabled")
MOST_ROWS = 60
MOST_LINES = 5  # to type, of single runs


def build_sweep_table(configurations: Sequence[Configuration], compact: bool = False) -> Table:
    """Return one row per configuration: mean ± s.e.m. over its seeds that are done, by their status.json.

    Args:
      configurations: with their units.
      compact: write 1.063(21) for 1.063 ± 0.021.
    """
    shown = configurations[:MOST_ROWS]
    title = (
        ("mean(s.e.m. in the last digits)" if compact else "mean ± s.e.m.")
        + " over seeds"
        + (
            f"; the first {MOST_ROWS} of {len(configurations)} configurations"
            if len(shown) < len(configurations)
            else ""
        )
    )
    table = Table(title=title, title_justify="left")
    axes = list(shown[0].axes)
    for axis in axes or ["run"]:
        table.add_column(axis, justify="right" if axes else "left", no_wrap=True)
    table.add_column("seeds", justify="right", no_wrap=True)
    for name in SWEEP_COLUMNS:
        table.add_column(OBSERVABLES[name].symbol, justify="right", no_wrap=True)
    for configuration in shown:
        done = [unit.details.get("observables", {}) for unit in configuration.units if unit.state == "done"]
        cells = [format_value(configuration.axes.get(axis)) for axis in axes] or [configuration.run.name]
        values = [[o[name] for o in done if o.get(name) is not None] for name in SWEEP_COLUMNS]
        table.add_row(
            *cells, f"{len(done)}/{len(configuration.units)}", *(format_mean(column, compact) for column in values)
        )
    return table


def build_status_table(status: SweepStatus) -> Table:
    """Return one row per configuration with its units by state, those that are not complete first.

    Args:
      status: of a sweep.
    """
    states = [state for state, count in status.count_states().items() if count]
    order = sorted(status.runs, key=lambda run: all(unit.state in FINISHED for unit in run.units))
    shown = order[:MOST_ROWS]
    kept = {id(run) for run in shown}
    table = Table(title=f"{status.folder.name}: {len(status.runs)} configurations", title_justify="left")
    axes = list(status.runs[0].axes) if status.runs else []
    for axis in axes or ["run"]:
        table.add_column(axis, justify="right" if axes else "left", no_wrap=True)
    for state in states:
        table.add_column(state, justify="right")
    table.add_column("progress", justify="right")
    for run in (run for run in status.runs if id(run) in kept):
        cells = [format_value(run.axes.get(axis)) for axis in axes] or [run.run]
        counts = [sum(unit.state == state for unit in run.units) for state in states]
        table.add_row(*cells, *(str(count) if count else "" for count in counts), format_progress(run.units))
    if len(shown) < len(status.runs):
        table.caption = f"and {len(status.runs) - len(shown)} more configurations"
    return table


def format_progress(units: Sequence[Unit]) -> str:
    """Return how much of the updates of a configuration's seeds is done."""
    share = 0.0
    for unit in units:
        if unit.state in FINISHED:
            share += 1
        elif unit.state in ("running", "interrupted") and unit.details.get("steps"):
            share += unit.details.get("step", 0) / unit.details["steps"]
    return f"{share / len(units):.0%}" if units else "–"


def build_plan_table(plan: Plan) -> Table:
    """Return one row per configuration: seeds, those done and to run, and what they are estimated to take.

    Args:
      plan: with its tasks.
    """
    shown = plan.configurations[:MOST_ROWS]
    table = Table(title=f"plan of {plan.name}", title_justify="left")
    axes = list(shown[0].axes)
    for axis in axes or ["run"]:
        table.add_column(axis, justify="right" if axes else "left", no_wrap=True)
    for name in ("seeds", "done", "failed", "to run", "tasks", "core time", "peak memory"):
        table.add_column(name, justify="right")
    for index, configuration in enumerate(shown):
        cells = [format_value(configuration.axes.get(axis)) for axis in axes] or [configuration.run.name]
        done = sum(unit.state in FINISHED for unit in configuration.units)
        failed = sum(unit.state == "failed" for unit in configuration.units)
        pieces = [(t, piece) for t in plan.tasks for piece in t.slices if piece.configuration == index]
        seconds = sum(piece.seconds for _, piece in pieces)
        memory = max((task.memory for task, _ in pieces), default=0)
        table.add_row(
            *cells,
            str(len(configuration.units)),
            str(done or ""),
            str(failed or ""),
            str(sum(len(piece.seeds) for _, piece in pieces) or ""),
            str(len(pieces) or ""),
            format_seconds(seconds) if pieces else "",
            f"{memory / GIB:.2g} GiB" if pieces else "",
        )
    if len(shown) < len(plan.configurations):
        table.caption = f"and {len(plan.configurations) - len(shown)} more configurations"
    return table


def describe_plan(plan: Plan) -> list[str]:
    """Return the plan in a line or two."""
    counts = plan.count_states()
    seeds = sum(counts.values())
    done = counts["done"] + counts["diverged"]
    pending = {(c.run.name, seed) for c in plan.configurations for seed in c.find_pending()}
    todo, left = len(pending - plan.excused), len(pending & plan.excused)
    parts = [f"{seeds:,} seeds", f"{done:,} done", f"{todo:,} to run"]
    if counts["failed"] and not plan.configurations[0].cfg.retry:
        parts.append(f"{counts['failed']:,} failed before, left alone without retry=true")
    lines = [f"plan     {len(plan.configurations):,} configurations, {', '.join(parts)}"]
    if left:
        lines.append(f"         {left:,} seeds wait or are computed already, and are left to their jobs")
    if plan.tasks:
        packs = plan.calibration.packs
        basis = f"from {packs} measured here" if packs else "from counted operations alone"
        early = any(configuration.cfg.training.stop_after for configuration in plan.configurations)
        about = "at most about" if early and not packs else "about"
        time = f"{about} {format_seconds(plan.seconds)}"
        trust = f"(× or ÷ {plan.calibration.error:.2g}, {basis})"
        if plan.detached:
            each = max(task.memory for task in plan.tasks) / GIB
            aside = f" if {plan.workers} run side by side" if plan.workers > 1 else ""
            lines.append(f"         {len(plan.tasks):,} SLURM tasks, {time}{aside} {trust}, {each:.2g} GiB at most")
        else:
            processes = f"{plan.workers} process{'es' if plan.workers > 1 else ''}"
            memory = plan.memory / GIB
            lines.append(
                f"         {len(plan.tasks):,} tasks in {processes}, {time} {trust}, peak memory {memory:.2g} GiB"
            )
    if plan.memory > plan.available > 0:
        lines.append(
            f"         more than the {plan.available / GIB:.2g} GiB that may be used here: not for this machine"
        )
    return lines


def describe_status(status: SweepStatus) -> list[str]:
    """Return the lines below the table: counts, failures, and what to type next."""
    counts = {state: count for state, count in status.count_states().items() if count}
    going = "; a launch is at work" if status.launched else ""
    told = ", ".join(f"{count:,} {state}" for state, count in counts.items())
    lines = [f"{told} of {status.count_units():,} units{going}"]
    if status.others:
        lines.append(f"{status.others} other runs lie in {status.folder}: not part of the latest sweep of this name")
    lines += describe_jobs(status)
    lines += describe_failures(status)
    if status.exit_status == UNFINISHED and not status.is_going():
        lines += describe_unfinished(status)
    elif status.exit_status == COMPLETE:
        lines.append(f"report   {format_task('report', status.folder)}")
        lines.append(f'load     ntklens.load("{status.folder}")')
    return lines


def describe_jobs(status: SweepStatus) -> list[str]:
    """Return what SLURM says of a sweep's jobs: those that wait and why, those that run and where, those it lost."""
    lines = []
    waiting = Counter(job.reason for job in status.jobs if job.pends)
    for reason, count in waiting.most_common():
        lines.append(f"slurm    {count} tasks wait ({reason})")
    if running := [job for job in status.jobs if not job.pends]:
        nodes = sorted({job.node for job in running if job.node})
        named = ", ".join(nodes[:6]) + (" …" if len(nodes) > 6 else "")
        longest = max((job.elapsed for job in running), key=lambda elapsed: (len(elapsed), elapsed))
        lines.append(f"slurm    {len(running)} tasks run on {named}, the longest for {longest}")
    if status.lost:
        run, unit = status.lost[0]
        lines += [
            f"lost     {len(status.lost)} seeds are computed by processes that SLURM does not know, such as job "
            f"{unit.details['job']} on {unit.details.get('host')} ({run}, seed {unit.seed})",
            "         if they live they will end by themselves; if not, they count as interrupted within 5 minutes: "
            "launch again then",
        ]
    for user, count in Counter(user for _, _, user in status.unseen).most_common():
        lines.append(f"slurm    {count} seeds: not known to squeue (jobs of user {find_user_name(user)})")
    if status.stillborn:
        job, how, logs = status.stillborn[0]
        many = f"{len(status.stillborn)} jobs" if len(status.stillborn) > 1 else "a job"
        lines.append(f"slurm    {many} ended before anything was computed: {job} {how}; what it said is in {logs}")
    ends = Counter(status.ended)
    lines += [f"slurm    {count} jobs of interrupted seeds ended {end}" for end, count in ends.most_common()]
    return lines


def find_user_name(number: int) -> str:
    """Return the name of a user of this machine, or the number."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def describe_unfinished(status: SweepStatus) -> list[str]:
    """Return why units were interrupted, where something is known of it, and the line that continues."""
    errors = [unit.details["error"] for _, unit in status.list_units("interrupted") if unit.details.get("error")]
    lines = [f"stopped  {errors.count(error)} units: {error}" for error in dict.fromkeys(errors)]
    commands = status.list_commands("interrupted", "queued")
    return lines + (_list_lines("next", commands) or ["next     type the line that started it: it was not recorded"])


def _list_lines(label: str, commands: Sequence[str]) -> list[str]:
    """Return lines to type, each whole behind its label: nothing follows that a shell would read."""
    lines = [f"{label:<8} {command}" for command in commands[:MOST_LINES]]
    more = len(commands) - MOST_LINES
    return lines + ([f"         and {more} more runs, each with its line in command.txt"] if more > 0 else [])


def describe_failures(status: SweepStatus) -> list[str]:
    """Return failed units grouped by their error, with where to look and what to type."""
    groups: dict[str, list[tuple[str, int, str]]] = defaultdict(list)
    for run, unit in status.list_units("failed"):
        log = unit.details.get("log") or f"{status.folder / run}/seed={unit.seed}/status.json"
        groups[unit.details.get("error", "unknown")].append((run, unit.seed, log))
    lines = []
    for error, units in sorted(groups.items(), key=lambda item: -len(item[1])):
        runs = sorted({run for run, _, _ in units})
        others = f" and {len(runs) - 1} other runs" if len(runs) > 1 else ""
        lines += [
            f"failed   {len(units)} units: {error}",
            f"         {runs[0]}{others}; traceback in {units[0][2]}",
        ]
    if lines:
        commands = [f"{command} retry=true" for command in status.list_commands("failed")]
        lines += _list_lines("retry", commands) or ["retry    type the line that started it, and retry=true"]
    return lines


def format_seconds(seconds: float) -> str:
    """Return a duration to two digits or so."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 99.5 else f"{minutes / 60:.3g} h"


def format_value(value: Any) -> str:
    """Return a swept value as it is typed."""
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def format_mean(values: Sequence[float], compact: bool = False) -> str:
    """Return `mean ± s.e.m.` with two digits of the error; no error for one value, – for none.

    Args:
      values: of the seeds.
      compact: write 1.063(21) for 1.063 ± 0.021.
    """
    if not values:
        return "–"
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.5g}"
    error = statistics.stdev(values) / math.sqrt(len(values))
    if error == 0:
        return f"{mean:.5g} ± 0"
    decimals = max(0, 1 - math.floor(math.log10(error)))
    if compact:
        return f"{mean:.{decimals}f}({round(error * 10**decimals)})"
    return f"{mean:,.{decimals}f} ± {error:.{decimals}f}"
