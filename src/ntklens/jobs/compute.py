"""Train the missing seeds of one configuration, measure them and publish their trajectories."""

import contextlib
import math
import sys
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from omegaconf import DictConfig, OmegaConf

from ntklens._compat import use_compilation_cache
from ntklens.config.construct import construct
from ntklens.config.identity import compute_key
from ntklens.config.schemas import GIB
from ntklens.errors import InputError
from ntklens.jobs.build import KEPT, Built, build
from ntklens.jobs.datasets import check_run_data, identify_dataset
from ntklens.jobs.devices import check_device
from ntklens.jobs.failures import describe_failure, describe_shortage, is_of_the_disk
from ntklens.jobs.limit import find_limit
from ntklens.jobs.pack import RunContext, describe_mismatch, run_pack
from ntklens.jobs.pilot import find_step
from ntklens.jobs.process import count_process_bytes
from ntklens.jobs.watcher import Watcher
from ntklens.recording.measure import put_on_device
from ntklens.recording.spectra import SpectrumWorkers
from ntklens.signals import Stop
from ntklens.store.checkpoint import (
    DIRECTORY_NAME,
    Checkpoint,
    find_checkpoint_step,
    load_checkpoint,
    read_checkpoint_details,
    remove_checkpoints,
)
from ntklens.store.files import write_atomically
from ntklens.store.layout import find_seed_directory
from ntklens.store.locks import lock_seeds
from ntklens.store.trajectory import FILE_NAME
from ntklens.store.units import (
    FINISHED,
    find_units,
    remove_leftovers,
    select_pending,
    set_aside,
    set_replaced,
    write_command,
    write_unfinished,
)
from ntklens.training.ensemble import Trainer, trains_faster_alone
from ntklens.training.memory import MemoryNeed, find_free_memory

_compiled: list[Trainer] = []  # whose programs are in memory


class Outcome(NamedTuple):
    """What became of the seeds that are not finished: `failed` or `interrupted` by `error`; `busy` are another's."""

    failed: list[int]
    interrupted: list[int]
    busy: list[int]
    error: str = ""


def compute_seeds(
    cfg: DictConfig,
    run: Path,
    seeds: Sequence[int],
    stop: Stop,
    watcher: Watcher,
    memory: float | None = None,
    replaced: Sequence[int] = (),
    command: str = "",
    begin: Callable[[], None] = lambda: None,
) -> Outcome:
    """Train, measure and publish seeds in packs that fit into memory; nothing is written before the input is checked.

    Args:
      cfg: a checked configuration.
      run: the run's directory.
      seeds: which seeds to compute; those that are finished or being computed elsewhere are left out.
      stop: says when to end: a checkpoint is then written, if one is worth it.
      watcher: receives the progress.
      memory: bytes that arrays may use; None: by `ntk.memory_limit`, or four fifths of what is free.
      replaced: those of the seeds whose results are invalidated first.
      command: the line that continues this run, to be kept in its directory; of a sweep the plan has it.
      begin: called once nothing is refused any more, before what is computed is locked.

    Returns:
      What became of the seeds.

    Raises:
      InputError: before anything is written.
      KeyboardInterrupt: if `stop` asked for the end.
    """
    check_device()
    built = build(cfg)
    _note_compiled(built.trainer)
    fitting = _count_fitting(cfg, built.need, memory)
    check_run_data(cfg, run, identify_dataset(cfg, built.dataset), replaced)
    _prepare_directory(cfg, run, seeds, command)
    begin()
    use_compilation_cache(run.absolute().parents[1])  # of all runs, wherever a job's own folder is
    with lock_seeds(run, seeds) as locked:
        set_replaced(run, sorted(set(replaced) & set(locked)))
        for seed in locked:
            remove_leftovers(find_seed_directory(run, seed))
        _set_damaged_aside(run, locked)
        # Looked at again: another process may have finished some before they were locked, or failed at them.
        mine = select_pending(find_units(run, locked), retry=cfg.retry)
        busy = [seed for seed in seeds if seed not in locked]
        if not mine:
            return Outcome([], [], busy)
        failed, interrupted, error = _compute_locked(cfg, run, built, mine, fitting, stop, watcher)
    return Outcome(failed, interrupted, busy, error)


def _note_compiled(trainer: Trainer) -> None:
    """Drop compiled programs before those of one more trainer come: a long sweep would pile them up.

    All of them, but seldom: beside those of a trainer there are dozens that every configuration calls.
    """
    if any(trainer is known for known in _compiled):
        return
    if len(_compiled) >= KEPT:
        jax.clear_caches()
        _compiled.clear()
    _compiled.append(trainer)


def _compute_locked(
    cfg: DictConfig,
    run: Path,
    built: Built,
    seeds: Sequence[int],
    fitting: int,
    stop: Stop,
    watcher: Watcher,
) -> tuple[list[int], list[int], str]:
    """Compute seeds that nobody else computes, and return those that failed, those that the disk stopped, and why."""
    tracker = construct(cfg.tracking)
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    key = compute_key(cfg)
    dataset, trainer, steps, _ = built
    data = put_on_device(dataset, cfg.ntk.get("probes", 1))._replace(limit=find_limit(cfg, dataset))
    spectra = SpectrumWorkers()
    job = RunContext(cfg, run, key, dataset, data, trainer, steps, tracker, spectra, stop, watcher)
    tracker.start(run, config, key)
    failed: list[int] = []
    errors: dict[str, None] = {}
    left = list(seeds)
    try:
        packs = _make_packs(run, trainer, seeds, fitting)
        records = sum(int((steps > start).sum()) + (start == 0) for start, _, _ in packs)
        watcher.begin(sum(int(steps[-1]) - start for start, _, _ in packs), records, run.name)
        for _, members, size in packs:
            stop.check()
            try:
                step = find_step(job, members, size)
                for checkpoints in _load_checkpoints(job, members):
                    run_pack(job, list(checkpoints), list(checkpoints.values()), size, step)
            except KeyboardInterrupt:
                _note_interrupted(job, members)
                raise
            except Exception as error:
                spectra.forget()
                message = describe_failure(error)
                full = is_of_the_disk(error)  # then the other packs cannot be kept either
                state, stopped = ("interrupted", left) if full else ("failed", members)
                write_unfinished(run, stopped, state, key=key, error=message, traceback=traceback.format_exc())
                if not full:
                    tracker.fail(members, message)
                if message not in errors:
                    errors[message] = None
                    with contextlib.suppress(OSError):  # a worker's log may lie on a full disk
                        print(f"{state}: {message}; the traceback is in {run}/seed=*/status.json", file=sys.stderr)
                if full:
                    break
                failed += members
            left = [seed for seed in left if seed not in members]
        else:
            left = []
    finally:
        spectra.close()
    tracker.close(find_units(run, range(cfg.seed, cfg.seed + cfg.ensemble)))
    missing = set(select_pending(find_units(run, [*failed, *left]), retry=True))
    return sorted(missing & set(failed)), sorted(missing & set(left)), "; ".join(errors)


def _note_interrupted(job: RunContext, seeds: Sequence[int]) -> None:
    for seed in seeds:
        step = find_checkpoint_step(find_seed_directory(job.run, seed))
        write_unfinished(job.run, [seed], "interrupted", key=job.key, step=step, steps=int(job.steps[-1]))


def _count_fitting(cfg: DictConfig, need: MemoryNeed, memory: float | None) -> int:
    """Return how many members fit into the memory that may be used."""
    asked = cfg.ntk.memory_limit
    process = count_process_bytes(cfg)
    program = process if jax.default_backend() == "cpu" else 0
    limit = memory or (asked * GIB - program if asked else 0.8 * find_free_memory())
    fitting = need.count_members(limit)
    if not fitting:
        raise InputError(describe_shortage(cfg, sum(need), limit + process, process))
    return fitting


def choose_pack_size(trainer: Trainer, members: int, fitting: int) -> int:
    """Return how many members train together: as many as fit, in packs of equal size, or one where that is faster."""
    if trains_faster_alone(jax.eval_shape(trainer.init, jax.random.key(0))):
        return 1
    return math.ceil(members / math.ceil(members / fitting))


def _make_packs(run: Path, trainer: Trainer, seeds: Sequence[int], fitting: int) -> list[tuple[int, list[int], int]]:
    """Return (updates done, seeds, size) of what trains together: seeds whose checkpoints are equally far."""
    groups: dict[int, list[int]] = defaultdict(list)
    for seed in seeds:
        groups[find_checkpoint_step(find_seed_directory(run, seed))].append(seed)
    packs = []
    for step, members in sorted(groups.items(), reverse=True):
        size = choose_pack_size(trainer, len(members), fitting)
        packs += [(step, members[first : first + size], size) for first in range(0, len(members), size)]
    return packs


def _load_checkpoints(job: RunContext, seeds: Sequence[int]) -> Iterator[dict[int, Checkpoint | None]]:
    """Yield seeds with their checkpoints, those that are equally far together: one that is damaged falls behind."""
    groups: dict[int, dict[int, Checkpoint | None]] = defaultdict(dict)
    for seed in seeds:
        _remove_foreign_checkpoints(job, seed)
        directory = find_seed_directory(job.run, seed)
        checkpoint = load_checkpoint(directory, job.key)
        if checkpoint and (reason := describe_mismatch(job.trainer, checkpoint)):
            place = directory / DIRECTORY_NAME / str(checkpoint.step)
            print(f"{place}: checkpoint of another version skipped ({reason}); trained from the start", file=sys.stderr)
            remove_checkpoints(directory)
            checkpoint = None
        groups[checkpoint.step if checkpoint else 0][seed] = checkpoint
    for step in sorted(groups, reverse=True):
        yield groups.pop(step)


def _remove_foreign_checkpoints(job: RunContext, seed: int) -> None:
    """Remove checkpoints of other data: `replace=true` asked for it, or a launch of other data was refused before."""
    directory = find_seed_directory(job.run, seed)
    details = read_checkpoint_details(directory) or {}
    stored = details.get("data")
    if isinstance(stored, dict) and stored.get("checksum") != job.data_identity.checksum:
        remove_checkpoints(directory)


def _prepare_directory(cfg: DictConfig, run: Path, seeds: Sequence[int], command: str) -> None:
    try:
        for seed in seeds:
            find_seed_directory(run, seed).mkdir(parents=True, exist_ok=True)
        shared = {name: value for name, value in cfg.items() if name not in ("seed", "ensemble")}
        write_atomically(run / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(shared), resolve=True))
        if command:
            write_command(run, command)
    except OSError as error:
        place = f", {error.filename}" if error.filename else ""
        raise InputError(f"paths.results={cfg.paths.results}: cannot be written ({error.strerror}{place})") from error


def _set_damaged_aside(run: Path, seeds: Sequence[int]) -> None:
    """Make room where a trajectory is there that cannot be read; of locked seeds only, which nobody else publishes."""
    for unit in find_units(run, seeds):
        directory = find_seed_directory(run, unit.seed)
        if unit.state not in FINISHED and (aside := set_aside(directory)):
            print(f"{directory / FILE_NAME} could not be read: kept as {aside.name}, computed again", file=sys.stderr)
