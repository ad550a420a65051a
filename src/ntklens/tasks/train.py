"""task=train: from a configuration to one published trajectory per seed."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from rich.console import Console

from ntklens.config.construct import construct
from ntklens.config.identity import compute_key, name_run
from ntklens.config.lines import format_command, get_words, list_continuing
from ntklens.config.task import task
from ntklens.jobs.datasets import load_dataset
from ntklens.jobs.finish import read_published
from ntklens.jobs.tracker import tracked
from ntklens.jobs.watcher import ProgressBar
from ntklens.launch.datasets import check_launch_data
from ntklens.recording.trajectory import refuse_unrecorded
from ntklens.report.console import make_console
from ntklens.report.run_summary import list_seeds, print_run
from ntklens.signals import stop_on_signals
from ntklens.store.layout import find_seed_directory
from ntklens.store.locks import find_locked
from ntklens.store.snapshots import refuse_finished
from ntklens.store.units import FINISHED, find_units, select_pending
from ntklens.sweep.plan import Configuration
from ntklens.sweep.status import COMPLETE, FAILED, UNFINISHED
from ntklens.wandb.catch_up import track_published
from ntklens.words import count

WAIT_SECONDS = 0.5  # between two looks at what another process computes


def _sweep(*arguments: Any) -> int:
    from ntklens.tasks.sweep import sweep  # with all that launches, which a single run does without

    return sweep(*arguments)


@task(sweep=_sweep, launches=True)
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
        places = [find_seed_directory(run, seed) for seed in there]
        refuse_finished(cfg.keep, run, places)
        refuse_unrecorded(cfg.metrics, run, places)
    command = format_command(_list_words())
    pending = sorted({*select_pending(units, cfg.retry), *replaced})
    lines = []  # printed once nothing is refused any more
    if replaced:
        lines.append(f"replace=true: {len(there)} results are invalidated; type the line without it to continue later")
        there = []
    if pending:
        tracker = construct(cfg.tracking)
        tracker.check()
        lines += filter(None, [tracker.announce(run.parent)])
    if pending and there:
        lines.append(f"{len(there)} of {count(len(seeds), 'seed')} {'is' if len(there) == 1 else 'are'} there already")
    elif len(there) == len(seeds):
        all_seeds = "the seed is" if len(seeds) == 1 else f"all {len(seeds)} seeds are"
        console.print(f"{all_seeds} there already: nothing to compute")
    with tracked():
        status = _train(cfg, run, seeds, pending, replaced, console, command, lines)
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
    lines: list[str],
) -> int:
    """Compute what is pending, its lines first, and report on all seeds; return the exit status."""
    started = time.perf_counter()
    if pending:
        if status := _compute(cfg, run, pending, replaced, command, lines):
            line = f"retry    {command} retry=true" if status == FAILED else f"next     {command}"
            console.print(line)
            return status
        console.print(f"{count(len(pending), 'seed')} in {time.perf_counter() - started:.1f} s")
    if failed := [unit for unit in find_units(run, seeds) if unit.state == "failed"]:
        error = failed[0].details.get("error", "")
        numbers = list_seeds([unit.seed for unit in failed])
        print(f"{numbers} failed before: {error}; to try again type: {command} retry=true", file=sys.stderr)
        return FAILED
    trajectories, damaged = read_published(run, seeds)
    if damaged:
        print(f"{', '.join(damaged)}: damaged, set aside; to compute them anew type: {command}", file=sys.stderr)
        return FAILED
    print_run(cfg, run, seeds, trajectories, console, redraw=bool(pending))
    return COMPLETE


def _compute(
    cfg: DictConfig, run: Path, seeds: Sequence[int], replaced: Sequence[int], command: str, lines: list[str]
) -> int:
    """Compute seeds, and wait for those that another process is computing; return the exit status."""
    announced = False

    def begin() -> None:
        while lines:
            print(lines.pop(0), flush=True)

    with stop_on_signals() as stop:
        while seeds:
            with ProgressBar("importing JAX, reading the data") as watcher:
                # JAX is imported only if there is something to compute.
                from ntklens._compat import use_compilation_cache
                from ntklens.jobs.build import build_trainer
                from ntklens.jobs.compute import compute_seeds
                from ntklens.jobs.devices import check_device
                from ntklens.jobs.models import check_model

                check_device()
                use_compilation_cache(run.absolute().parents[1], begin=False)
                check_model(cfg, load_dataset(cfg), build_trainer)
                outcome = compute_seeds(cfg, run, seeds, stop, watcher, replaced=replaced, command=command, begin=begin)
            if outcome.failed or outcome.interrupted:
                return FAILED if outcome.failed else UNFINISHED
            seeds, replaced = select_pending(find_units(run, outcome.busy), retry=False), []
            if seeds and not announced:
                print(f"{list_seeds(seeds)}: another process is computing them; waiting for it", file=sys.stderr)
                announced = True
            while seeds and find_locked(run, seeds) >= set(seeds):
                stop.check()
                time.sleep(WAIT_SECONDS)
    return COMPLETE


def _list_words() -> list[str]:
    """Return the words of the line that continues this run; of a sweep by Hydra's own sweeper, this run alone."""
    hydra_cfg = HydraConfig.get()
    if hydra_cfg.mode != RunMode.MULTIRUN:
        return list_continuing(get_words())
    own = [source.path for source in hydra_cfg.runtime.config_sources if source.provider == "command-line"]
    return [*(word for path in own for word in ("--config-dir", path)), *list_continuing(hydra_cfg.overrides.task)]
