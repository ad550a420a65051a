"""Tables and lines on a sweep: its plan, state and findings; from status.json alone, so that they are there at once."""

import contextlib
import math
import pwd
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from ntklens.config.identity import find_step_rule
from ntklens.config.lines import format_task
from ntklens.config.schemas import GIB
from ntklens.recording.observables import OBSERVABLES, UNRESOLVED_STEPS, list_observables
from ntklens.report.fitted import Column, FittedTable
from ntklens.store.layout import NAME_LENGTH
from ntklens.store.units import FINISHED, Unit
from ntklens.sweep.plan import Configuration, Plan, encode_ranges
from ntklens.sweep.status import COMPLETE, UNFINISHED, SweepStatus, find_chosen_step
from ntklens.words import count

SWEEP_COLUMNS = list_observables("tabled")
MOST_ROWS = 60
MOST_ERROR = 100.0  # from which on a compact mean has a power of ten: two digits of an error are enough
LABEL, KEY = re.compile(r"-(?=[A-Za-z_]\w*=)"), re.compile("[0-9a-f]{8}")  # in the name of a run
MOST_LINES = 5  # to type, of single runs


def build_sweep_table(configurations: Sequence[Configuration]) -> FittedTable:
    """Return one row per configuration: mean ± s.e.m. over its seeds that are done, by their status.json.

    Where the width asks for it, 1.063 ± 0.021 becomes 1.063(21).

    Args:
      configurations: with their units.
    """
    shown = configurations[:MOST_ROWS]
    fewer = (
        "" if len(shown) == len(configurations) else f"the first {MOST_ROWS} of {len(configurations)} configurations"
    )
    done = [
        [unit.details.get("observables", {}) for unit in configuration.units if unit.state == "done"]
        for configuration in shown
    ]
    columns = _list_keys([c.axes for c in shown], [c.run.name for c in shown])
    steps = [find_chosen_step(c.run) for c in shown]
    if any(steps):  # those that rules chose, beside those that were given
        given = [(c.cfg.get("optimizer") or {}).get("learning_rate") for c in shown]
        columns += _list_steps([step or rate for step, rate in zip(steps, given, strict=True)])
    columns.append(
        Column("seeds", [f"{len(found)}/{len(c.units)}" for c, found in zip(shown, done, strict=True)], key=True)
    )
    for name in SWEEP_COLUMNS:
        values = [[one[name] for one in found if one.get(name) is not None] for found in done]
        columns.append(
            Column(OBSERVABLES[name].symbol, [(format_mean(v), format_mean(v, compact=True)) for v in values])
        )
    titles = ("mean ± s.e.m. over seeds", "mean(s.e.m. in the last digits) over seeds")
    return FittedTable("", columns, level_titles=[f"{title}; {fewer}" if fewer else title for title in titles])


def describe_sweep_minima(configurations: Sequence[Configuration]) -> list[str]:
    """Return what to know of the minima of a sweep before reading its table; nothing of seeds that do not record it.

    Args:
      configurations: with their units.
    """
    done = [(unit.details, c.cfg) for c in configurations for unit in c.units if unit.state == "done"]
    known = [(details, cfg) for details, cfg in done if isinstance(details.get("at_last_record"), bool)]
    steps = [(details.get("observables") or {}).get("minimum_step") for details, _ in known]
    early = [isinstance(step, int | float) and step < UNRESOLVED_STEPS for step in steps]
    ruled = [find_step_rule(cfg.get("optimizer") or {}) is not None for _, cfg in known]
    return describe_minima([details["at_last_record"] for details, _ in known], early, ruled)


def describe_minima(last: Sequence[bool], early: Sequence[bool], ruled: Sequence[bool]) -> list[str]:
    """Return a line on seeds that stopped before their minimum, and one on those whose minimum comes too early.

    Args:
      last: of each seed that is done, whether its minimum is the last record, or next to it.
      early: whether it comes before update 30; one that is also at the end is a matter of longer training alone.
      ruled: whether a rule chose its step.
    """
    soon = [rule for one, end, rule in zip(early, last, ruled, strict=True) if one and not end]
    stopped, unresolved = sum(last), len(soon)
    total = count(len(last), "seed")
    lines = []
    if stopped:
        lines.append(f"in {stopped} of {total} the minimum is the last record or next to it: raise training.epochs")
    if unresolved:
        advice = ["lower optimizer.learning_rate, or type protocol=resolved"] if not all(soon) else []
        advice += ["raise protocol.step_divisor"] if any(soon) else []
        lines.append(
            f"in {unresolved} of {total} the minimum comes before update {UNRESOLVED_STEPS} (unresolved): "
            f"{'; where a rule chooses the step '.join(advice)}"
        )
    return lines


def build_status_table(status: SweepStatus) -> FittedTable:
    """Return one row per configuration with its units by state, sorted by the swept values.

    Of very many configurations those that are not complete are shown first.

    Args:
      status: of a sweep.
    """
    states = [state for state, number in status.count_states().items() if number]
    runs = status.runs
    if not any(run.axes for run in runs):
        labels = read_labels([run.run for run in runs])
        runs = [run._replace(axes=axes) for run, axes in zip(runs, labels, strict=True)]
    order = sorted(runs, key=lambda run: all(unit.state in FINISHED for unit in run.units))
    shown = sorted(order[:MOST_ROWS], key=lambda run: [_rank(value) for value in run.axes.values()])
    columns = _list_keys([run.axes for run in shown], [run.run for run in shown], folders=True)
    columns += _list_steps([run.step for run in shown])
    for state in states:
        counts = [sum(unit.state == state for unit in run.units) for run in shown]
        columns.append(Column(state, [str(number) if number else "" for number in counts]))
    columns.append(Column("progress", [format_progress(run.units) for run in shown]))
    more = f"and {count(len(status.runs) - len(shown), 'more configuration')}" if len(shown) < len(status.runs) else ""
    return FittedTable(f"{status.folder.name}: {count(len(status.runs), 'configuration')}", columns, more)


def _rank(value: Any) -> tuple[bool, float, str]:
    """Return what sorts swept values: numbers by size, then all else by name."""
    number = isinstance(value, int | float) and not math.isnan(value)
    return not number, float(value) if number else 0.0, "" if number else str(value)


def _list_keys(axes: Sequence[Mapping[str, Any]], runs: Sequence[str], folders: bool = False) -> list[Column]:
    """Return the columns that name a configuration: the swept values, or the run where nothing is swept.

    Args:
      axes: of each configuration.
      runs: the name of each one's folder.
      folders: whether the end of that name stands beside swept values, by which a folder is found.
    """
    names = list(dict.fromkeys(name for one in axes for name in one))
    if not names:
        return [Column("run", runs, key=True, left=True)]
    columns = [Column(name, [format_value(one.get(name)) for one in axes], key=True) for name in names]
    return columns + ([Column("folder", [f"*-{run.rpartition('-')[2]}" for run in runs])] if folders else [])


def read_labels(runs: Sequence[str]) -> list[dict[str, int | float | str]]:
    """Return the labels in which runs of loops of one's own differ, read from their names; nothing of other runs.

    Args:
      runs: names of folders, `own-width=8-depth=2-1a2b3c4d`.
    """
    found = [_read_name(run) for run in runs]
    if not all(found):
        return [{}] * len(runs)
    names = dict.fromkeys(name for labels in found for name in labels)
    differing = [name for name in names if len({labels.get(name) for labels in found}) > 1]
    return [{name: _read_value(labels[name]) for name in differing if name in labels} for labels in found]


def _read_value(text: str) -> int | float | str:
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def _read_name(run: str) -> dict[str, str]:
    """Return the labels in a run's name; nothing where it is none of a Recorder, was cut, or two have one name."""
    label, key = run.rpartition("-")[::2]
    if not label.startswith("own-") or len(label) >= NAME_LENGTH or not KEY.fullmatch(key):
        return {}
    words = [word.partition("=") for word in LABEL.split(label.removeprefix("own-"))]
    labels = [(name, value) for name, equals, value in words if equals]
    return dict(labels) if len(dict(labels)) == len(labels) else {}


def _list_steps(steps: Sequence[float | str | None]) -> list[Column]:
    """Return the column of steps; none where none is known."""
    words = [f"{step:.4g}" if isinstance(step, int | float) else "" for step in steps]
    return [Column("step η", words)] if any(words) else []


def format_progress(units: Sequence[Unit]) -> str:
    """Return how much of the updates of a configuration's seeds is done."""
    share = 0.0
    for unit in units:
        if unit.state in FINISHED:
            share += 1
        elif unit.details.get("steps"):
            share += (unit.details.get("step") or 0) / unit.details["steps"]
    return f"{share / len(units):.0%}" if units else "–"


def build_plan_table(plan: Plan) -> FittedTable:
    """Return one row per configuration: seeds, those done and to run, and what they are estimated to take.

    Args:
      plan: with its tasks.
    """
    shown = plan.configurations[:MOST_ROWS]
    names = ("seeds", "done", "failed", "to run", "tasks", "core time", "peak memory")
    rows = []
    for index, configuration in enumerate(shown):
        done = sum(unit.state in FINISHED for unit in configuration.units)
        failed = sum(unit.state == "failed" for unit in configuration.units)
        pieces = [(t, piece) for t in plan.tasks for piece in t.slices if piece.configuration == index]
        seconds = sum(piece.seconds for _, piece in pieces)
        memory = max((task.memory for task, _ in pieces), default=0)
        rows.append(
            (
                str(len(configuration.units)),
                str(done or ""),
                str(failed or ""),
                str(sum(len(piece.seeds) for _, piece in pieces) or ""),
                str(len(pieces) or ""),
                format_seconds(seconds) if pieces else "",
                f"{format_gib(memory)} GiB" if pieces else "",
            )
        )
    keys = _list_keys([c.axes for c in shown], [c.run.name for c in shown], folders=True)
    ruled = [find_step_rule(c.cfg.get("optimizer") or {}) is not None for c in shown]
    steps = [find_chosen_step(c.run) for c in shown]
    if any(ruled):
        words = [
            f"{step or c.cfg.optimizer.learning_rate:.4g}" if step or not rule else "pilot"
            for c, step, rule in zip(shown, steps, ruled, strict=True)
        ]
        keys.append(Column("step η", words))
    columns = [*keys, *(Column(name, [row[place] for row in rows]) for place, name in enumerate(names))]
    more = f"and {count(len(plan.configurations) - len(shown), 'more configuration')}"
    return FittedTable(f"plan of {plan.name}", columns, more if len(shown) < len(plan.configurations) else "")


def format_gib(size: float) -> str:
    """Return bytes in GiB, to two digits or so, never as a power of ten."""
    return f"{size / GIB:.2g}" if size < 99.5 * GIB else f"{size / GIB:,.0f}"


def describe_plan(plan: Plan) -> list[str]:
    """Return the plan in a line or two."""
    counts = plan.count_states()
    seeds = sum(counts.values())
    done = counts["done"] + counts["diverged"]
    pending = {(c.run.name, seed) for c in plan.configurations for seed in c.find_pending()}
    todo, left = len(pending - plan.submitted), len(pending & plan.submitted)
    parts = [count(seeds, "seed"), f"{done:,} done", f"{todo:,} to run"]
    if counts["failed"] and not plan.configurations[0].cfg.retry:
        parts.append(f"{counts['failed']:,} failed before, left alone without retry=true")
    lines = [f"plan     {count(len(plan.configurations), 'configuration')}, {', '.join(parts)}"]
    lines += [f"         {line}" for line in describe_surprises(plan)]
    if left:
        verb = "waits or is" if left == 1 else "wait or are"
        lines.append(f"         {count(left, 'seed')} {verb} computed already, left to their jobs")
    if plan.tasks:
        packs = plan.calibration.packs
        basis = f"from {packs} measured here" if packs else "from counted operations alone"
        early = any(configuration.cfg.training.stop_after for configuration in plan.configurations)
        about = "at most about" if early and not packs else "about"
        time = f"{about} {format_seconds(plan.seconds)}"
        trust = f"(× or ÷ {plan.calibration.error:.2g}, {basis}) beside {format_seconds(plan.start_seconds)} to start"
        trust += f" and compile {count(plan.networks, 'network')}" if plan.networks else ""
        if plan.detached:
            each = max(task.memory for task in plan.tasks)
            aside = f" if {plan.workers} run side by side" if plan.workers > 1 else ""
            lines.append(
                f"         {count(len(plan.tasks), 'SLURM task')}, {time}{aside} {trust}, "
                f"{format_gib(each)} GiB at most"
            )
        else:
            processes = f"{plan.workers} process{'' if plan.workers == 1 else 'es'}"
            memory = format_gib(plan.memory)
            lines.append(
                f"         {count(len(plan.tasks), 'task')} in {processes}, {time} {trust}, peak memory {memory} GiB"
            )
    if plan.memory > plan.available > 0:
        lines.append(
            f"         more than the {format_gib(plan.available)} GiB that may be used here: not for this machine"
        )
    return lines


def describe_surprises(plan: Plan) -> list[str]:
    """Return how a plan differs from what its command line lists: values left out or listed twice, and more seeds."""
    lines = list(dict.fromkeys(line for configuration in plan.configurations for line in configuration.left_out))
    if repeated := [label for configuration in plan.configurations for label in configuration.repeated]:
        names = "; ".join(dict.fromkeys(filter(None, repeated)))
        lines.append(f"more than once in the sweep, computed once: {names}")
    for configuration in plan.configurations:
        starts = configuration.starts
        if len(starts) > 1 and len(configuration.seeds) > len(starts):
            each = configuration.cfg.ensemble
            ranges = ", ".join(
                str(first) if first == last else f"{first}…{last}" for first, last in encode_ranges(configuration.seeds)
            )
            lines.append(
                f"seeds {ranges}: ensemble={each} starts {each} at each of the {len(starts)} values of seed; "
                f"for these {len(starts)} alone type ensemble=1"
            )
            break
    return lines


def describe_status(status: SweepStatus) -> list[str]:
    """Return the lines below the table: counts, failures, and what to type next."""
    counts = {state: number for state, number in status.count_states().items() if number}
    going = "; a launch is at work" if status.launched else ""
    listed = ", ".join(f"{number:,} {state}" for state, number in counts.items())
    lines = [f"{listed} of {count(status.count_units(), 'seed')}{going}"]
    if status.others:
        verb = "lies" if status.others == 1 else "lie"
        lines.append(
            f"{count(status.others, 'other run')} {verb} in {status.folder}: not part of the latest sweep of this name"
        )
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
    for reason, number in waiting.most_common():
        lines.append(f"slurm    {count(number, 'task')} {'waits' if number == 1 else 'wait'} ({reason})")
    if running := [job for job in status.jobs if not job.pends]:
        nodes = sorted({job.node for job in running if job.node})
        named = ", ".join(nodes[:6]) + (" …" if len(nodes) > 6 else "")
        verb = "runs" if len(running) == 1 else "run"
        longest = max((job.elapsed for job in running), key=lambda elapsed: (len(elapsed), elapsed))
        lines.append(f"slurm    {count(len(running), 'task')} {verb} on {named}, the longest for {longest}")
    if status.lost:
        run, unit = status.lost[0]
        lines += [
            f"lost     {count(len(status.lost), 'seed')} computed by processes that SLURM does not know, such as job "
            f"{unit.details['job']} on {unit.details.get('host')} ({run}, seed {unit.seed})",
            "         if they live they will end by themselves; if not, they count as interrupted within 5 minutes: "
            "launch again then",
        ]
    for user, number in Counter(user for _, _, user in status.unseen).most_common():
        lines.append(f"slurm    {count(number, 'seed')}: not known to squeue (jobs of user {find_user_name(user)})")
    if status.vanished:
        job, how, logs = status.vanished[0]
        many = f"{len(status.vanished)} jobs" if len(status.vanished) > 1 else "a job"
        lines.append(f"slurm    {many} ended before anything was computed: {job} {how}; its output is in {logs}")
    ends = Counter(status.ended)
    lines += [f"slurm    {count(number, 'job')} of interrupted seeds ended {end}" for end, number in ends.most_common()]
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
    lines = [f"stopped  {count(errors.count(error), 'seed')}: {error}" for error in dict.fromkeys(errors)]
    commands = status.list_commands("interrupted", "queued")
    return lines + (_list_lines("next", commands) or ["next     type the line that started it: it was not recorded"])


def _list_lines(label: str, commands: Sequence[str]) -> list[str]:
    """Return lines to type, each whole behind its label: nothing follows that a shell would read."""
    lines = [f"{label:<8} {command}" for command in commands[:MOST_LINES]]
    more = len(commands) - MOST_LINES
    return lines + ([f"         and {count(more, 'more run')}, each with its line in command.txt"] if more > 0 else [])


def describe_failures(status: SweepStatus) -> list[str]:
    """Return failed units grouped by their error, with where to look and what to type."""
    groups: dict[str, list[tuple[str, int, str]]] = defaultdict(list)
    for run, unit in status.list_units("failed"):
        log = unit.details.get("log") or f"{status.folder / run}/seed={unit.seed}/status.json"
        groups[unit.details.get("error", "unknown")].append((run, unit.seed, log))
    lines = []
    for error, units in sorted(groups.items(), key=lambda item: -len(item[1])):
        runs = sorted({run for run, _, _ in units})
        others = f" and {count(len(runs) - 1, 'other run')}" if len(runs) > 1 else ""
        lines += [
            f"failed   {count(len(units), 'seed')}: {error}",
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
    return "null" if value is None else f"{value:.12g}" if isinstance(value, float) else str(value)


def format_mean(values: Sequence[float], compact: bool = False) -> str:
    """Return `mean ± s.e.m.` with two digits of the error; no error for one value, – for none.

    Args:
      values: of the seeds.
      compact: write 1.063(21) for 1.063 ± 0.021, and 6.98(88)e5 for 698,357 ± 88,416.
    """
    if not values:
        return "–"
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.5g}"
    error = statistics.stdev(values) / math.sqrt(len(values))
    if error <= 1e-8 * abs(mean):  # seeds that agree to rounding
        return f"{mean:.5g} ± 0"
    power = math.floor(math.log10(abs(mean))) if mean else 0
    if -5 <= power < 7 and not (compact and MOST_ERROR <= error < abs(mean)):
        return _write_mean(mean, error, compact, "")
    scale = 10.0**power
    return _write_mean(mean / scale, error / scale, compact, f"e{power}" if compact else f"e{power:+03d}")


def _write_mean(mean: float, error: float, compact: bool, power: str) -> str:
    decimals = max(0, 1 - math.floor(math.log10(error)))
    if compact:
        return f"{mean:.{decimals}f}({round(error * 10**decimals)}){power}"
    text = f"{mean:,.{decimals}f} ± {error:.{decimals}f}"
    return f"({text}){power}" if power else text
