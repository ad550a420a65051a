"""Train the missing seeds of one configuration, measure them and publish their trajectories."""

import contextlib
import errno
import functools
import json
import math
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from omegaconf import DictConfig, OmegaConf

from ntklens._compat import use_compilation_cache
from ntklens.config import GIB, construct
from ntklens.data import Dataset
from ntklens.errors import InputError
from ntklens.measure import EVALUATION_BATCH, PENDING, DeviceData, Measurer, Recorder, SpectrumWorkers, put_on_device
from ntklens.provenance import describe_environment
from ntklens.signals import Stop
from ntklens.snapshots import KERNEL, PARAMETERS, START, list_snapshots, name_crossing, write_snapshot
from ntklens.sweep.claims import claim_seeds
from ntklens.sweep.key import compute_key
from ntklens.sweep.plan import LOWER_MEMORY, describe_shortage
from ntklens.sweep.same_data import DataIdentity
from ntklens.sweep.states import (
    FINISHED,
    find_seed_directory,
    find_units,
    remove_leftovers,
    select_pending,
    set_aside,
    set_replaced,
    write_atomically,
    write_command,
    write_unfinished,
)
from ntklens.tasks.datasets import check_run_data, identify_dataset, load_dataset
from ntklens.tasks.devices import check_device
from ntklens.tasks.finish import finish_seed
from ntklens.tasks.models import build_model
from ntklens.tasks.track import count_process_bytes
from ntklens.tracking import Tracker
from ntklens.tracking.progress import Watcher
from ntklens.training.checkpoint import (
    Checkpoint,
    find_checkpoint_step,
    load_checkpoint,
    read_checkpoint_details,
    remove_checkpoints,
    save_checkpoint,
)
from ntklens.training.ensemble import Params, State, Trainer, initialise, run_states, trains_faster_alone
from ntklens.training.losses import LOSSES
from ntklens.training.memory import MemoryNeed, estimate_memory, find_free_memory
from ntklens.training.schedule import choose_sparse, make_geometric_steps
from ntklens.trajectory import FILE_NAME, LEVELS, build_trajectory, publish_trajectory

HEARTBEAT_SECONDS = 15.0
WORTH_SECONDS = 10.0  # of work that is saved where the end is asked for, however short the run
# What a disk says when it is full or gone: no fault of the run, which the next launch continues.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ESTALE)


_latest: list[Trainer | None] = [None]  # whose compiled programs are in memory


class Outcome(NamedTuple):
    """What became of the seeds that are not finished: `failed` or `interrupted` by `error`; `busy` are another's."""

    failed: list[int]
    interrupted: list[int]
    busy: list[int]
    error: str = ""


@dataclass(frozen=True)
class Job:
    """What all packs of one configuration share."""

    cfg: DictConfig
    run: Path
    key: str
    dataset: Dataset
    data: DeviceData
    trainer: Trainer
    steps: np.ndarray
    tracker: Tracker
    spectra: SpectrumWorkers
    stop: Stop
    watcher: Watcher

    @functools.cached_property
    def data_identity(self) -> DataIdentity:
        """What tells the data from others, which checkpoints and status.json repeat."""
        return identify_dataset(self.cfg, self.dataset)

    @property
    def steps_per_epoch(self) -> int:
        """Updates per pass over the training set."""
        return self.trainer.count_steps_per_epoch(len(self.dataset.train))


def compute_seeds(
    cfg: DictConfig,
    run: Path,
    seeds: Sequence[int],
    stop: Stop,
    watcher: Watcher,
    memory: float | None = None,
    replaced: Sequence[int] = (),
    command: str = "",
) -> Outcome:
    """Train, measure and publish seeds in packs that fit into memory; nothing is written before the input is checked.

    Args:
      cfg: a checked configuration.
      run: the run's directory.
      seeds: which seeds to compute; those that are finished or being computed elsewhere are left out.
      stop: says when to end: a checkpoint is then written, if one is worth it.
      watcher: is told how far it is.
      memory: bytes that arrays may use; None: by `ntk.memory_limit`, or four fifths of what is free.
      replaced: those of the seeds whose results are taken back first.
      command: the line that continues this run, to be kept in its directory; of a sweep the plan has it.

    Returns:
      What became of the seeds.

    Raises:
      InputError: before anything is written.
      KeyboardInterrupt: if `stop` asked for the end.
    """
    check_device()
    jax.config.update("jax_enable_x64", cfg.precision == "float64")
    dataset = load_dataset(cfg)
    trainer = build_trainer(cfg, dataset)
    if _latest[0] is not trainer:
        jax.clear_caches()  # the programs of the configuration before, which a long sweep would pile up
        _latest[0] = trainer
    fitting = _count_fitting(cfg, estimate_need(trainer, dataset), memory)
    check_run_data(cfg, run, identify_dataset(cfg, dataset), replaced)
    _prepare_directory(cfg, run, seeds, command)
    use_compilation_cache(run.absolute().parents[1])  # of all runs, wherever a job's own folder is
    with claim_seeds(run, seeds) as claimed:
        set_replaced(run, sorted(set(replaced) & set(claimed)))
        for seed in claimed:
            remove_leftovers(find_seed_directory(run, seed))
        _set_damaged_aside(run, claimed)
        # Looked at again: another process may have finished some before they were claimed, or failed at them.
        mine = select_pending(find_units(run, claimed), retry=cfg.retry)
        busy = [seed for seed in seeds if seed not in claimed]
        if not mine:
            return Outcome([], [], busy)
        failed, interrupted, error = _compute_claimed(cfg, run, dataset, trainer, mine, fitting, stop, watcher)
    return Outcome(failed, interrupted, busy, error)


def _compute_claimed(
    cfg: DictConfig,
    run: Path,
    dataset: Dataset,
    trainer: Trainer,
    seeds: Sequence[int],
    fitting: int,
    stop: Stop,
    watcher: Watcher,
) -> tuple[list[int], list[int], str]:
    """Compute seeds that nobody else computes, and return those that failed, those that the disk stopped, and why."""
    tracker = construct(cfg.tracking)
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    key = compute_key(cfg)
    data, spectra = put_on_device(dataset), SpectrumWorkers()
    steps = make_record_steps(cfg, trainer, len(dataset.train))
    job = Job(cfg, run, key, dataset, data, trainer, steps, tracker, spectra, stop, watcher)
    tracker.start(run, config, key)
    failed: list[int] = []
    errors: dict[str, None] = {}
    left = list(seeds)
    try:
        packs = _make_packs(run, trainer, seeds, fitting)
        watcher.begin(sum(int(steps[-1]) - start for start, _, _ in packs), run.name)
        for _, members, size in packs:
            stop.check()
            try:
                for checkpoints in _load_checkpoints(job, members):
                    _run_pack(job, list(checkpoints), list(checkpoints.values()), size)
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


def _note_interrupted(job: Job, seeds: Sequence[int]) -> None:
    for seed in seeds:
        step = find_checkpoint_step(find_seed_directory(job.run, seed))
        write_unfinished(job.run, [seed], "interrupted", key=job.key, step=step, steps=int(job.steps[-1]))


def build_trainer(cfg: DictConfig, dataset: Dataset) -> Trainer:
    """Return what trains a configuration; configurations that differ in the learning rate share one, and its programs.

    Raises:
      InputError: if the batch is larger than the training set.
    """
    batch_size = cfg.training.batch_size
    if batch_size is not None and batch_size > len(dataset.train):
        raise InputError(f"training.batch_size={batch_size}: there are {len(dataset.train)} training samples")
    optimizer = OmegaConf.create({name: value for name, value in cfg.optimizer.items() if name != "learning_rate"})
    sample = describe_sample(dataset)
    return _build_trainer(
        _encode(cfg.model),
        _encode(optimizer),
        cfg.training.loss,
        batch_size,
        sample.shape,
        sample.dtype == jnp.int32,
        dataset.classes,
        cfg.precision,
    )


def describe_sample(dataset: Dataset) -> jax.ShapeDtypeStruct:
    """Return the shape and dtype of one input as the model takes it."""
    dtype = jnp.int32 if dataset.probe.holds_tokens else jnp.zeros(()).dtype
    return jax.ShapeDtypeStruct(dataset.probe.inputs.shape[1:], dtype)


@functools.lru_cache(maxsize=1)
def _build_trainer(
    model: str,
    optimizer: str,
    loss: str,
    batch_size: int | None,
    shape: tuple,
    tokens: bool,
    classes: int,
    _precision: str,
) -> Trainer:
    sample = jnp.zeros((1, *shape), jnp.int32 if tokens else jnp.float32)
    init, apply = build_model(OmegaConf.create(json.loads(model)), classes, sample)
    make_optimizer = functools.partial(construct, OmegaConf.create(json.loads(optimizer)))
    return Trainer(init, apply, LOSSES[loss], lambda rate: make_optimizer(learning_rate=rate), batch_size)


def _encode(node: DictConfig) -> str:
    return json.dumps(OmegaConf.to_container(node, resolve=True))


def make_record_steps(cfg: DictConfig, trainer: Trainer, train_size: int) -> np.ndarray:
    """Return the updates at which a run is looked at, shape (K,)."""
    return make_geometric_steps(
        cfg.training.epochs * trainer.count_steps_per_epoch(train_size), cfg.schedule.record_ratio
    )


def estimate_need(trainer: Trainer, dataset: Dataset) -> MemoryNeed:
    """Return the memory that training and measuring need."""
    return estimate_memory(
        trainer,
        describe_sample(dataset),
        len(dataset.train),
        len(dataset.selection) + len(dataset.test),
        len(dataset.probe),
        EVALUATION_BATCH,
    )


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


def _load_checkpoints(job: Job, seeds: Sequence[int]) -> Iterator[dict[int, Checkpoint | None]]:
    """Yield seeds with their checkpoints, those that are equally far together: one that is damaged falls behind."""
    groups: dict[int, dict[int, Checkpoint | None]] = defaultdict(dict)
    for seed in seeds:
        _remove_foreign_checkpoints(job, seed)
        checkpoint = load_checkpoint(find_seed_directory(job.run, seed), job.key)
        groups[checkpoint.step if checkpoint else 0][seed] = checkpoint
    for step in sorted(groups, reverse=True):
        yield groups.pop(step)


def _remove_foreign_checkpoints(job: Job, seed: int) -> None:
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
    """Make room where a trajectory is there that cannot be read; of claimed seeds only, which nobody else publishes."""
    for unit in find_units(run, seeds):
        directory = find_seed_directory(run, unit.seed)
        if unit.state not in FINISHED and (aside := set_aside(directory)):
            print(f"{directory / FILE_NAME} could not be read: kept as {aside.name}, computed again", file=sys.stderr)


def _run_pack(job: Job, seeds: Sequence[int], checkpoints: Sequence[Checkpoint | None], size: int) -> None:
    """Train and publish up to `size` seeds; a smaller pack is filled up so that nothing is compiled again."""
    pack = Pack(job, seeds, checkpoints, size)
    job.watcher.say(f"{job.run.name}: {_list_seeds(seeds)} from update {pack.state.step} of {job.steps[-1]}")
    pack.train()
    pack.publish()
    job.watcher.say(f"{job.run.name}: {_list_seeds(seeds)} published")


class Pack:
    """Members of one configuration that train together, from the start or from their checkpoints."""

    def __init__(self, job: Job, seeds: Sequence[int], checkpoints: Sequence[Checkpoint | None], size: int) -> None:
        self.job, self.seeds = job, list(seeds)
        self.started = self.saved = time.monotonic()
        self.first_step, self.seconds_before, self.beaten = 0, 0.0, -math.inf
        padded = [*range(len(seeds)), *[len(seeds) - 1] * (size - len(seeds))]
        trainer, cfg = job.trainer, job.cfg
        self.state = initialise(trainer, [seeds[member] for member in padded], cfg.optimizer.learning_rate)
        self.recorder = Recorder(
            Measurer(trainer.apply, trainer.loss, cfg.ntk.engine),
            job.data,
            self.state.params,
            job.steps,
            choose_sparse(job.steps, cfg.schedule.spectrum_ratio),
            job.steps_per_epoch,
            cfg.training.stop_after,
            job.spectra,
            self._keep if cfg.get("keep") else None,
        )
        if checkpoints[0]:
            self._restore([checkpoints[member] for member in padded])
        self.recorder.pad(len(seeds))
        if checkpoints[0] and cfg.get("keep"):
            self._keep_what_is_missing()

    def _restore(self, checkpoints: Sequence[Checkpoint]) -> None:
        def stack(name: str, like: Any) -> Any:
            members = [checkpoint.arrays[name] for checkpoint in checkpoints]
            leaves = [jnp.stack([jnp.asarray(leaf) for leaf in column]) for column in zip(*members, strict=True)]
            return jax.tree.unflatten(jax.tree.structure(like), leaves)

        params = stack("params", self.state.params)
        opt_state = stack("opt_state", self.state.opt_state)
        self.recorder.restore(stack("best", params), [checkpoint.arrays["records"] for checkpoint in checkpoints])
        self.first_step = checkpoints[0].step
        self.seconds_before = max(float(checkpoint.details["seconds"]) for checkpoint in checkpoints)
        self.state = self.state._replace(params=params, opt_state=opt_state, step=self.first_step)

    def _keep(self, member: int, name: str, step: int, kernels: dict[str, jax.Array], params: Params) -> None:
        """Write a member's snapshot; a disk that does not take it stops the run, which was asked for it."""
        kernel, leaves = None, None
        if KERNEL in self.job.cfg.keep:
            kernel = np.asarray(functools.reduce(jnp.add, kernels.values()))
        if PARAMETERS in self.job.cfg.keep:
            leaves = {
                jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
                for path, leaf in jax.tree_util.tree_leaves_with_path(params)
            }
        write_snapshot(find_seed_directory(self.job.run, self.seeds[member]), name, step, kernel, leaves)

    def _keep_what_is_missing(self) -> None:
        """Of a run that was begun without `keep`, the start is kept now; crossings that are past cannot be."""
        for member, seed in enumerate(self.seeds):
            there = list_snapshots(find_seed_directory(self.job.run, seed), self.job.cfg.keep)
            if START not in there:
                self.recorder.keep_start(member)
            passed = [name_crossing(LEVELS[level]) for level in self.recorder.crossings[member]]
            if missing := [name for name in passed if name not in there]:
                print(
                    f"{self.job.run.name}: seed {seed} passed {', '.join(missing)} before keep was asked for; "
                    "replace=true computes it anew",
                    file=sys.stderr,
                )

    def train(self) -> None:
        """Train to the end of the schedule, or until every member has stopped."""
        self._beat()
        recorder, job = self.recorder, self.job
        members = slice(len(self.seeds))
        begin = max(len(records) for records in recorder.records)  # records taken before the checkpoint
        for index in range(begin):
            self._show(index)
        if begin and not recorder.active[members].any():
            return
        states = run_states(job.trainer, self.state, job.dataset.train, job.steps[begin:], self._advance)
        for index, self.state in enumerate(states, begin):
            values = recorder.record(index, self.state.params)
            self._show(index)
            losses = [np.nanmean(values[name][members]) for name in ("train_loss", "test_loss")]
            job.watcher.advance(0, "train loss {:.3g}, test loss {:.3g}".format(*losses))
            if not recorder.active[members].any():
                break

    def _show(self, index: int) -> None:
        """Tell the tracker what the record brought, of the seeds that have it."""
        for seed, records in zip(self.seeds, self.recorder.records, strict=False):
            if index < len(records):
                self.job.tracker.record(seed, records[index], self.recorder.layers, records[index].get(PENDING))

    def _advance(self, state: State, count: int) -> None:
        """Look, between two pieces of training, at what else there is to do."""
        self.state = state
        self.job.watcher.advance(count, "")
        now = time.monotonic()
        minutes = self.job.cfg.checkpoint.minutes
        if minutes is not None and self._is_to_be_saved(now - self.saved, self._is_long(now, 60 * minutes), minutes):
            self._save()
            self.saved = time.monotonic()
        self.job.stop.check()
        if now - self.beaten > HEARTBEAT_SECONDS:
            self._beat()

    def _is_to_be_saved(self, unsaved: float, is_long: bool, minutes: float) -> bool:
        """Return whether a checkpoint is due, so many seconds after the last one."""
        if not self.job.stop.requested:
            return is_long and unsaved > 60 * minutes
        # A job whose time is short would otherwise begin anew in each of its lives.
        return is_long or (unsaved > WORTH_SECONDS and self.state.step > self.first_step)

    def _is_long(self, now: float, seconds: float) -> bool:
        """Return whether the pack is expected to take longer than that, by what it took so far."""
        done, whole = self.state.step - self.first_step, int(self.job.steps[-1])
        return done > 0 and (now - self.started) * whole / done > seconds

    def _beat(self) -> None:
        step, steps = self.state.step, int(self.job.steps[-1])
        write_unfinished(
            self.job.run,
            self.seeds,
            "running",
            key=self.job.key,
            step=step,
            steps=steps,
            heartbeat=time.time(),
            data=self.job.data_identity._asdict(),
        )
        self.beaten = time.monotonic()

    def _save(self) -> None:
        """Write every member's checkpoint; a disk that does not take it stops nothing."""
        params, opt_state = jax.tree.map(np.asarray, (self.state.params, self.state.opt_state))
        best = jax.tree.map(np.asarray, self.recorder.best)
        seconds = self.seconds_before + time.monotonic() - self.started
        for member, seed in enumerate(self.seeds):
            arrays = {
                "params": [leaf[member] for leaf in jax.tree.leaves(params)],
                "opt_state": [leaf[member] for leaf in jax.tree.leaves(opt_state)],
                "best": [leaf[member] for leaf in jax.tree.leaves(best)],
                "records": self.recorder.export_member(member),
            }
            try:
                save_checkpoint(
                    find_seed_directory(self.job.run, seed),
                    self.state.step,
                    arrays,
                    self.job.key,
                    seconds=seconds,
                    data=self.job.data_identity._asdict(),
                )
            except OSError as error:
                with contextlib.suppress(OSError):
                    print(f"{self.job.run.name}: seed {seed}: {error}; training goes on", file=sys.stderr)
                continue
        self.job.watcher.say(f"{self.job.run.name}: {_list_seeds(self.seeds)} checkpoint at update {self.state.step}")

    def publish(self) -> None:
        """Measure the minima and publish every member's trajectory."""
        job, recorder = self.job, self.recorder
        finished = recorder.finish()
        seconds = self.seconds_before + time.monotonic() - self.started
        published = job.dataset.provenance.get("published")
        shared = {
            **describe_environment(),
            "config": OmegaConf.to_container(job.cfg, resolve=True),
            "run_key": job.key,
            "N": len(job.dataset.probe),
            "C": job.dataset.classes,
            **describe_inputs(job.dataset.probe.inputs),
            "parameters": sum(leaf[0].size for leaf in jax.tree.leaves(self.state.params)),
            "data": job.dataset.provenance,
            "data_checksum": job.dataset.provenance["checksum"],
            **({"data_published": bool(published)} if published is not None else {}),
            "packed_seeds": self.seeds,
            "continued_from_step": self.first_step,
            "seconds": seconds,
        }
        for member, (seed, (records, minimum, crossings)) in enumerate(zip(self.seeds, finished, strict=False)):
            diverged_step = recorder.diverged_step[member]
            attributes = {
                "state": "done" if diverged_step is None else "diverged",
                "seed": seed,
                "constant_output": recorder.is_constant(member),
                **({} if diverged_step is None else {"diverged_step": diverged_step}),
                **shared,
            }
            trajectory = build_trajectory(records, minimum, crossings, recorder.layers, attributes)
            directory = find_seed_directory(job.run, seed)
            publish_trajectory(trajectory, directory)
            finish_seed(directory, trajectory)
            job.tracker.finish(seed, directory)


def describe_inputs(inputs: Any) -> dict[str, float]:
    """Return what theory needs of the probe: the inputs' dimension, and the mean of |x|²; nothing of other inputs.

    Args:
      inputs: shape (N, …).
    """
    if not isinstance(inputs, np.ndarray | jax.Array) or not np.issubdtype(inputs.dtype, np.floating):
        return {}
    flat = np.asarray(inputs, np.float64).reshape(len(inputs), -1)
    return {"input_dim": flat.shape[1], "probe_square": float(np.mean(np.sum(flat**2, axis=1)))}


def _list_seeds(seeds: Sequence[int]) -> str:
    if len(seeds) > 2 and seeds[-1] - seeds[0] == len(seeds) - 1:
        return f"seeds {seeds[0]} … {seeds[-1]}"
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def is_of_the_disk(error: BaseException) -> bool:
    """Return whether an error is the disk's, and no fault of the run."""
    return isinstance(error, OSError) and error.errno in DISK_ERRORS


def describe_failure(error: Exception) -> str:
    """Return one line; for want of memory, one that says what to lower."""
    lines = str(error).strip().splitlines()
    if isinstance(error, InputError):
        return lines[0]
    text = f"{type(error).__name__}: {lines[0] if lines else ''}"
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error) or "Out of memory" in str(error):
        return f"out of memory: {LOWER_MEMORY} ({text})"
    return text
