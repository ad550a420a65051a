"""task=train: from a configuration to one published trajectory per seed."""

import contextlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import xarray as xr
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from rich.console import Console

from ntklens.config import construct
from ntklens.lines import (
    drop_words,
    find_key,
    format_command,
    format_override,
    format_task,
    get_words,
    list_continuing,
    order_words,
)
from ntklens.report.console import make_console
from ntklens.report.figures import draw_run
from ntklens.report.table import build_summary_table
from ntklens.signals import stop_on_signals
from ntklens.snapshots import refuse_finished
from ntklens.sweep.claims import find_claimed
from ntklens.sweep.key import compute_key, name_run
from ntklens.sweep.plan import Configuration
from ntklens.sweep.progress import COMPLETE, FAILED, UNFINISHED
from ntklens.sweep.states import (
    FINISHED,
    find_seed_directory,
    find_units,
    read_status,
    select_pending,
    set_aside,
)
from ntklens.tasks.datasets import check_launch_data, load_dataset
from ntklens.tasks.finish import finish_seed
from ntklens.tasks.track import track_published, tracked
from ntklens.tracking.progress import ProgressBar
from ntklens.trajectory import FILE_NAME, UnreadableTrajectory, read_trajectory

FIGURE_NAME = "trajectory.png"
WAIT_SECONDS = 0.5  # between two looks at what another process computes


def train(cfg: DictConfig) -> int:
    """Train what is not there yet, publish it, and say what was found.

    Args:
      cfg: a checked configuration.

    Returns:
      The exit status: 0 if every requested seed is done or diverged, 1 if some failed, 3 if the disk stopped some.

    Raises:
      InputError: before anything is written.
    """
    run = Path(cfg.paths.results) / cfg.name / name_run(cfg)
    seeds = list(range(cfg.seed, cfg.seed + cfg.ensemble))
    console = make_console()
    units = find_units(run, seeds)
    there = [unit.seed for unit in units if unit.state in FINISHED]
    replaced = there if cfg.replace else []
    check_launch_data(run.parent, [Configuration(cfg, run, compute_key(cfg), {}, seeds, [], units)])
    if not cfg.replace:
        refuse_finished(cfg.keep, run, [find_seed_directory(run, seed) for seed in there])
    command = format_command(_list_words())
    if replaced:
        console.print(f"replace=true: {len(there)} results are taken back; type the line without it to continue later")
        there = []
    pending = sorted({*select_pending(units, cfg.retry), *replaced})
    if pending:
        construct(cfg.tracking).check()
    if pending and there:
        console.print(f"{len(there)} of {len(seeds)} seeds are there already")
    elif len(there) == len(seeds):
        console.print(f"all {len(seeds)} seeds are there already: nothing to compute")
    with tracked():
        status = _train(cfg, run, seeds, pending, replaced, console, command)
    if status != UNFINISHED:  # a full disk
        for line in track_published(cfg, [(run, find_units(run, seeds))]):
            console.print(line)
    return status


def _train(
    cfg: DictConfig,
    run: Path,
    seeds: Sequence[int],
    pending: Sequence[int],
    replaced: Sequence[int],
    console: Console,
    command: str,
) -> int:
    """Compute what is pending, and report on all seeds; return the exit status."""
    started = time.perf_counter()
    if pending:
        if status := _compute(cfg, run, pending, replaced, command):
            line = f"retry    {command} retry=true" if status == FAILED else f"next     {command}"
            console.print(line)
            return status
        console.print(f"{len(pending)} seeds in {time.perf_counter() - started:.1f} s")
    if failed := [unit for unit in find_units(run, seeds) if unit.state == "failed"]:
        error = failed[0].details.get("error", "")
        numbers = _list([unit.seed for unit in failed])
        print(f"{numbers} failed before: {error}; to try again type: {command} retry=true", file=sys.stderr)
        return FAILED
    trajectories, damaged = _read_all(run, seeds)
    if damaged:
        print(f"{', '.join(damaged)}: damaged, set aside; to compute them anew type: {command}", file=sys.stderr)
        return FAILED
    _report(cfg, run, seeds, trajectories, console, redraw=bool(pending))
    return COMPLETE


def _compute(cfg: DictConfig, run: Path, seeds: Sequence[int], replaced: Sequence[int], command: str) -> int:
    """Compute seeds, and wait for those that another process is computing; return the exit status."""
    said = False
    with stop_on_signals() as stop:
        while seeds:
            with ProgressBar("importing JAX, reading the data") as watcher:
                # JAX is imported only if there is something to compute.
                from ntklens.tasks.compute import build_trainer, compute_seeds
                from ntklens.tasks.devices import check_device
                from ntklens.tasks.models import check_model

                check_device()
                check_model(cfg, load_dataset(cfg), build_trainer)
                outcome = compute_seeds(cfg, run, seeds, stop, watcher, replaced=replaced, command=command)
            if outcome.failed or outcome.interrupted:
                return FAILED if outcome.failed else UNFINISHED
            seeds, replaced = select_pending(find_units(run, outcome.busy), retry=False), []
            if seeds and not said:
                print(f"{_list(seeds)}: another process is computing them; waiting for it", file=sys.stderr)
                said = True
            while seeds and find_claimed(run, seeds) >= set(seeds):
                stop.check()
                time.sleep(WAIT_SECONDS)
    return COMPLETE


def _read_all(run: Path, seeds: Sequence[int]) -> tuple[list[xr.Dataset], list[str]]:
    """Read the seeds' trajectories, make their status.json tell of them, and set aside what turns out to be damaged."""
    trajectories, damaged = [], []
    for seed in seeds:
        directory = find_seed_directory(run, seed)
        try:
            trajectories.append(read_trajectory(directory / FILE_NAME))
        except UnreadableTrajectory:
            damaged.append(str(set_aside(directory)))
            continue
        # Of a copy that lost the race to publish, or was killed after it.
        if read_status(directory).get("state") != trajectories[-1].attrs["state"]:
            with contextlib.suppress(OSError):  # results that cannot be written are results
                finish_seed(directory, trajectories[-1])
    return trajectories, damaged


def _report(
    cfg: DictConfig,
    run: Path,
    seeds: Sequence[int],
    trajectories: Sequence[xr.Dataset],
    console: Console,
    redraw: bool,
) -> None:
    diverged = [seed for seed, t in zip(seeds, trajectories, strict=True) if t.attrs["state"] == "diverged"]
    constant = [seed for seed, t in zip(seeds, trajectories, strict=True) if t.attrs["constant_output"]]
    figure = run / FIGURE_NAME
    if redraw or not figure.exists():  # of the seeds just asked for
        try:
            with ProgressBar("drawing the figure"):
                draw_run(trajectories, f"{run.name}: {len(seeds)} seeds", figure)
        except OSError as error:
            print(f"{figure} cannot be written ({error.strerror})", file=sys.stderr)
    for own in _separate_data(trajectories):
        if len(own) < len(trajectories):
            numbers = _list([int(t.attrs["seed"]) for t in own])
            console.print(f"{numbers}: of other data than the rest (SHA-256 {own[0].attrs['data_checksum'][:12]})")
        console.print(build_summary_table(own))
    if diverged:
        console.print(f"{len(diverged)} of {len(seeds)} seeds diverged, kept out of the table: {_list(diverged)}")
    if constant:
        console.print(f"{len(constant)} of {len(seeds)} networks are dead (constant over the probe): {_list(constant)}")
    lines = [f"results  {run}/seed=*/{FILE_NAME}"]
    lines += [f"figure   {figure}"] if figure.exists() else []
    lines += [f'load     ntklens.load("{run.parent}")', *_suggest_next(cfg, run)]
    for line in lines:
        console.print(line)


def _separate_data(trajectories: Sequence[xr.Dataset]) -> list[list[xr.Dataset]]:
    """Return trajectories apart by the data that they were computed on."""
    groups: dict[str, list[xr.Dataset]] = {}
    for trajectory in trajectories:
        groups.setdefault(str(trajectory.attrs.get("data_checksum")), []).append(trajectory)
    return list(groups.values())


def _list(numbers: Sequence[int]) -> str:
    return "seed " + ", ".join(map(str, numbers))


def _list_words() -> list[str]:
    """Return the words of the line that continues this run; of a sweep by Hydra's own sweeper, this run alone."""
    hydra_cfg = HydraConfig.get()
    if hydra_cfg.mode != RunMode.MULTIRUN:
        return list_continuing(get_words())
    own = [source.path for source in hydra_cfg.runtime.config_sources if source.provider == "command-line"]
    return [*(word for path in own for word in ("--config-dir", path)), *list_continuing(hydra_cfg.overrides.task)]


def _suggest_next(cfg: DictConfig, run: Path) -> list[str]:
    """Return what to type next: the same on other data, or over an axis, all else as it was typed."""
    hydra_cfg = HydraConfig.get()
    if hydra_cfg.mode == RunMode.MULTIRUN:
        return [f"report   {format_task('report', run.parent)}"]
    words = list_continuing(get_words())
    named = any(find_key(word) in ("name", "experiment") for word in words)
    if hydra_cfg.runtime.choices["dataset"] == "digits":
        changed, end, remark = ["dataset=mnist"], "mnist", "the same on MNIST"
    elif "width" in cfg.model:
        words = drop_words(words, "model.width")
        changed, end, remark = ["-m", "scaling=width"], "width", "the same over widths"
    else:
        words = drop_words(words, "dataset.train_size")
        changed, end, remark = ["-m", "scaling=data"], "data", "the same over numbers of training samples"
    words = drop_words(words, "dataset" if end == "mnist" else "scaling")
    if named:  # a folder of its own
        words = [*drop_words(words, "name"), format_override("name", f"{cfg.name}_{end}")]
    return [f"next     {format_command(order_words([*changed, *words]))}", f"         ({remark})"]
