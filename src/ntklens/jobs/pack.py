"""Seeds of one configuration that train together, from the start or from their checkpoints."""

import contextlib
import functools
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from omegaconf import DictConfig, OmegaConf

from ntklens.config.schemas import KERNEL, PARAMETERS
from ntklens.data import Dataset
from ntklens.jobs.build import build_measurer, projects_outputs
from ntklens.jobs.datasets import identify_dataset
from ntklens.jobs.finish import finish_seed
from ntklens.jobs.tracker import Tracker
from ntklens.jobs.watcher import Watcher
from ntklens.ntk.layers import name_layers
from ntklens.ntk.projection import MOST_OUTPUTS
from ntklens.ntk.projection import SEED as PROJECTION_SEED
from ntklens.recording.measure import DeviceData
from ntklens.recording.recorder import NEEDED, PENDING, EnsembleRecorder
from ntklens.recording.spectra import SpectrumWorkers
from ntklens.recording.trajectory import build_trajectory
from ntklens.signals import Stop
from ntklens.store.checkpoint import Checkpoint, save_checkpoint
from ntklens.store.layout import find_seed_directory
from ntklens.store.provenance import describe_environment
from ntklens.store.same_data import DataIdentity
from ntklens.store.snapshots import START, list_snapshots, name_crossing, write_snapshot
from ntklens.store.trajectory import LEVELS, publish_trajectory
from ntklens.store.units import write_unfinished
from ntklens.training.ensemble import Params, State, Trainer, initialise, run_states, shard_members
from ntklens.training.resolution import FOUND
from ntklens.training.schedule import choose_sparse

HEARTBEAT_SECONDS = 15.0
WORTH_SECONDS = 10.0  # of work that is saved where the end is asked for, however short the run


@dataclass(frozen=True)
class RunContext:
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


def write_heartbeat(job: RunContext, seeds: Sequence[int], step: int) -> None:
    """Write that seeds are being computed, and how many updates are done."""
    write_unfinished(
        job.run,
        seeds,
        "running",
        key=job.key,
        step=step,
        steps=int(job.steps[-1]),
        heartbeat=time.time(),
        data=job.data_identity._asdict(),
    )


class Step(NamedTuple):
    """The step of a run, and how it was chosen; nothing where it was given."""

    learning_rate: float
    pilot: Mapping[str, Any]


def run_pack(
    job: RunContext,
    seeds: Sequence[int],
    checkpoints: Sequence[Checkpoint | None],
    size: int,
    step: Step,
) -> None:
    """Train and publish up to `size` seeds; a smaller pack is filled up so that nothing is compiled again.

    Args:
      job: their configuration.
      seeds: which.
      checkpoints: of each, where it goes on; None: from the start.
      size: members of the pack.
      step: that of the optimizer.
    """
    pack = Pack(job, seeds, checkpoints, size, step)
    job.watcher.say(f"{job.run.name}: {_list_seeds(seeds)} from update {pack.state.step} of {job.steps[-1]}")
    pack.train()
    pack.publish()
    job.watcher.say(f"{job.run.name}: {_list_seeds(seeds)} published")


class Pack:
    """Members of one configuration that train together, from the start or from their checkpoints."""

    def __init__(
        self,
        job: RunContext,
        seeds: Sequence[int],
        checkpoints: Sequence[Checkpoint | None],
        size: int,
        step: Step,
    ) -> None:
        self.job, self.seeds, self.learning_rate, self.pilot = job, list(seeds), *step
        self.started = self.saved = time.monotonic()
        self.first_step, self.seconds_before, self.last_heartbeat = 0, 0.0, -math.inf
        padded = [*range(len(seeds)), *[len(seeds) - 1] * (size - len(seeds))]
        trainer, cfg = job.trainer, job.cfg
        self.state = initialise(trainer, [seeds[member] for member in padded], self.learning_rate)
        self.recorder = EnsembleRecorder(
            build_measurer(cfg, trainer, job.dataset),
            job.data,
            self.state.params,
            job.steps,
            choose_sparse(job.steps, cfg.schedule.spectrum_ratio),
            job.steps_per_epoch,
            cfg.training.stop_after,
            job.spectra,
            self._keep if cfg.get("keep") else None,
            np.asarray(self.state.learning_rate) * trainer.step_scale,
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
            return shard_members(jax.tree.unflatten(jax.tree.structure(like), leaves))

        params = stack("params", self.state.params)
        opt_state = stack("opt_state", self.state.opt_state)
        records = [checkpoint.arrays["records"] for checkpoint in checkpoints]
        self.first_step = checkpoints[0].step
        if missing := self.recorder.restore(stack("best", params), records):
            print(
                f"{self.job.run.name}: {_list_seeds(self.seeds)}: {', '.join(missing)} NaN up to update "
                f"{self.first_step}: the checkpoint was written without",
                file=sys.stderr,
            )
        self.seconds_before = max(float(checkpoint.details["seconds"]) for checkpoint in checkpoints)
        self.state = self.state._replace(params=params, opt_state=opt_state, step=self.first_step)

    def _keep(self, member: int, name: str, step: int, kernels: Mapping[str, jax.Array], params: Params) -> None:
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
        self._write_heartbeat()
        recorder, job = self.recorder, self.job
        members = slice(len(self.seeds))
        begin = max(len(records) for records in recorder.records)  # records taken before the checkpoint
        for index in range(begin):
            self._show(index)
        if begin and not recorder.active[members].any():
            return
        states = run_states(job.trainer, self.state, job.dataset.train, job.steps[begin:], self._advance)
        for index, self.state in enumerate(states, begin):
            values = recorder.record(index, self.state.params, opt_state=self.state.opt_state)
            self._show(index)
            losses = [_average(values[name][members]) for name in ("train_loss", "test_loss")]
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
        if now - self.last_heartbeat > HEARTBEAT_SECONDS:
            self._write_heartbeat()

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

    def _write_heartbeat(self) -> None:
        write_heartbeat(self.job, self.seeds, self.state.step)
        self.last_heartbeat = time.monotonic()

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
            **describe_projection(job.dataset),
            **describe_inputs(job.dataset.probe.inputs),
            "parameters": count_parameters(job.trainer.apply, self.state.params),
            "data": job.dataset.provenance,
            "data_checksum": job.dataset.provenance["checksum"],
            **({"data_published": bool(published)} if published is not None else {}),
            "learning_rate": self.learning_rate,
            **({"pilot": self.pilot} if self.pilot else {}),
            **({"pilot_found": self.pilot["status"] == FOUND} if self.pilot.get("rounds") else {}),
            "packed_seeds": self.seeds,
            "continued_from_step": self.first_step,
            "seconds": seconds,
        }
        for member, (seed, (records, minimum, crossings)) in enumerate(zip(self.seeds, finished, strict=False)):
            attributes = {"seed": seed, **recorder.describe_member(member), **shared}
            trajectory = build_trajectory(records, minimum, crossings, recorder.layers, attributes)
            directory = find_seed_directory(job.run, seed)
            publish_trajectory(trajectory, directory)
            finish_seed(directory, trajectory)
            job.tracker.finish(seed, directory)


def describe_projection(dataset: Dataset) -> dict[str, Any]:
    """Return, as attributes, how the outputs whose kernel is measured were projected."""
    if not projects_outputs(dataset):
        return {}
    how = {"onto": MOST_OUTPUTS, "seed": PROJECTION_SEED, "columns": "orthonormal, times √(C / onto)"}
    return {"projected_outputs": MOST_OUTPUTS, "projection": how}


def count_parameters(apply: Any, params: Params) -> int:
    """Return how many numbers a member trains, of stacked ones; the start of a network and its twin do not count."""
    leaves = jax.tree.leaves(params)
    return sum(leaves[number][0].size for members in name_layers(apply, params).values() for number in members)


def describe_mismatch(trainer: Trainer, checkpoint: Checkpoint) -> str:
    """Return why training cannot continue from a checkpoint that another version wrote; empty if it can."""
    expected = jax.eval_shape(
        lambda key: (params := trainer.init(key), trainer.optimizer(0.0).init(params)), jax.random.key(0)
    )
    shapes = dict(zip(("params", "opt_state"), expected, strict=True)) | {"best": expected[0]}
    for name, tree in shapes.items():
        stored = [np.shape(leaf) for leaf in checkpoint.arrays.get(name) or []]
        if stored != [leaf.shape for leaf in jax.tree.leaves(tree)]:
            return f"its {name} are of another structure"
    missing = set(NEEDED) - checkpoint.arrays.get("records", {}).keys()
    return f"it holds no {', '.join(sorted(missing))}" if missing else ""


def describe_inputs(inputs: Any) -> dict[str, float]:
    """Return what theory needs of the probe: the inputs' dimension, and the mean of |x|²; nothing of other inputs.

    Args:
      inputs: shape [N, …].
    """
    if not isinstance(inputs, np.ndarray | jax.Array) or not np.issubdtype(inputs.dtype, np.floating):
        return {}
    flat = np.asarray(inputs, np.float64).reshape(len(inputs), -1)
    return {"input_dim": flat.shape[1], "probe_square": float(np.mean(np.sum(flat**2, axis=1)))}


def _average(values: np.ndarray) -> float:
    """Return the mean of what is a number; NaN where all have diverged."""
    return float(values[~np.isnan(values)].mean()) if not np.isnan(values).all() else math.nan


def _list_seeds(seeds: Sequence[int]) -> str:
    if len(seeds) > 2 and seeds[-1] - seeds[0] == len(seeds) - 1:
        return f"seeds {seeds[0]} … {seeds[-1]}"
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
