"""Train the missing seeds of one configuration, measure them and publish their trajectories."""

import math
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from omegaconf import DictConfig, OmegaConf

from ntklens.config import construct
from ntklens.data import Dataset
from ntklens.errors import InputError
from ntklens.measure import EVALUATION_BATCH, Measurer, Recorder, SpectrumWorkers, put_on_device
from ntklens.provenance import describe_environment
from ntklens.signals import stop_on_signals
from ntklens.sweep.key import compute_key
from ntklens.sweep.states import find_seed_directory, set_aside, write_atomically, write_status, write_unfinished
from ntklens.tracking import Tracker
from ntklens.tracking.progress import show_progress
from ntklens.training.ensemble import Params, Trainer, initialise, run_states, trains_faster_alone
from ntklens.training.losses import LOSSES
from ntklens.training.memory import GIB, estimate_memory, find_free_memory
from ntklens.training.schedule import choose_sparse, make_geometric_steps
from ntklens.trajectory import FILE_NAME, build_trajectory, publish_trajectory

LOWER_MEMORY = "lower model.width, dataset.probe_size, training.batch_size or ensemble"


def compute_seeds(cfg: DictConfig, run: Path, seeds: Sequence[int]) -> bool:
    """Train, measure and publish seeds in chunks that fit into memory; nothing is written before the input is checked.

    Args:
      cfg: a checked configuration.
      run: the run's directory.
      seeds: which seeds to compute.

    Returns:
      Whether all of them ended as done or diverged; if not, their status.json says why.

    Raises:
      InputError: before anything is written.
    """
    jax.config.update("jax_enable_x64", cfg.precision == "float64")
    dataset = construct(cfg.dataset)
    trainer = _build_trainer(cfg, dataset)
    chunk = _choose_chunk(cfg, trainer, dataset, len(seeds))
    _prepare_directory(cfg, run, seeds)
    tracker = construct(cfg.tracking)
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    key = compute_key(cfg)
    tracker.start(seeds, config, key)
    steps = make_geometric_steps(
        cfg.training.epochs * trainer.count_steps_per_epoch(len(dataset.train)), cfg.schedule.record_ratio
    )
    workers = SpectrumWorkers()
    try:
        with (
            stop_on_signals() as check_signals,
            show_progress(math.ceil(len(seeds) / chunk) * int(steps[-1]), run.name) as show,
        ):

            def advance(count: int, note: str) -> None:
                check_signals()
                show(count, note)

            for first in range(0, len(seeds), chunk):
                members = seeds[first : first + chunk]
                write_unfinished(run, members, "running", key=key)
                _run_chunk(cfg, run, dataset, trainer, members, chunk, steps, tracker, workers, advance)
    except KeyboardInterrupt:
        write_unfinished(run, seeds, "interrupted", key=key)
        raise
    except Exception as error:
        message = _describe_failure(error)
        write_unfinished(run, seeds, "failed", key=key, error=message, traceback=traceback.format_exc())
        print(f"failed: {message}; the traceback is in {run}/seed=*/status.json", file=sys.stderr)
        return False
    finally:
        workers.close()
    return True


def _build_trainer(cfg: DictConfig, dataset: Dataset) -> Trainer:
    model = construct(cfg.model, classes=dataset.classes)
    sample = jnp.asarray(dataset.probe.inputs[:1])

    def init(key: jax.Array) -> Params:  # drawn in float32, so that both precisions start from the same function
        return jax.tree.map(lambda leaf: leaf.astype(float), model.init(key, sample))

    batch_size = cfg.training.batch_size
    if batch_size is not None and batch_size > len(dataset.train):
        raise InputError(f"training.batch_size={batch_size}: there are {len(dataset.train)} training samples")
    return Trainer(
        init=init,
        apply=model.apply,
        loss=LOSSES[cfg.training.loss],
        optimizer=construct(cfg.optimizer),
        batch_size=batch_size,
    )


def _choose_chunk(cfg: DictConfig, trainer: Trainer, dataset: Dataset, members: int) -> int:
    """Return how many members train together: as many as fit, in chunks of equal size, or one where that is faster."""
    need = estimate_memory(
        trainer,
        dataset.probe.inputs.shape[1:],
        len(dataset.train),
        len(dataset.selection) + len(dataset.test),
        len(dataset.probe),
        EVALUATION_BATCH,
    )
    limit = 0.8 * find_free_memory() if cfg.ntk.memory_limit is None else cfg.ntk.memory_limit * GIB
    fitting = need.count_members(limit)
    if not fitting:
        key = (
            f"ntk.memory_limit={cfg.ntk.memory_limit}"
            if cfg.ntk.memory_limit
            else f"model.width={cfg.model.get('width')}"
        )
        raise InputError(
            f"{key}: one seed needs about {sum(need) / GIB:.3g} GiB, {limit / GIB:.3g} GiB may be used; "
            "lower model.width, dataset.probe_size, dataset.train_size or training.batch_size"
        )
    if trains_faster_alone(jax.eval_shape(trainer.init, jax.random.key(0))):
        return 1
    return math.ceil(members / math.ceil(members / fitting))


def _prepare_directory(cfg: DictConfig, run: Path, seeds: Sequence[int]) -> None:
    try:
        for seed in seeds:
            directory = find_seed_directory(run, seed)
            directory.mkdir(parents=True, exist_ok=True)
            if aside := set_aside(directory):
                print(
                    f"{directory / FILE_NAME} could not be read: kept as {aside.name}, computed again", file=sys.stderr
                )
        shared = {name: value for name, value in cfg.items() if name not in ("seed", "ensemble")}
        write_atomically(run / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(shared), resolve=True))
    except OSError as error:
        raise InputError(f"paths.results={cfg.paths.results}: cannot be written ({error.strerror})") from error


def _run_chunk(
    cfg: DictConfig,
    run: Path,
    dataset: Dataset,
    trainer: Trainer,
    seeds: Sequence[int],
    chunk: int,
    steps: np.ndarray,
    tracker: Tracker,
    workers: SpectrumWorkers,
    advance: Callable[[int, str], None],
) -> None:
    """Train and publish up to `chunk` seeds; a last, smaller chunk is filled up so that nothing is compiled again."""
    started = time.perf_counter()
    padded = [*seeds, *[seeds[-1]] * (chunk - len(seeds))]
    state = initialise(trainer, padded)
    per_epoch = trainer.count_steps_per_epoch(len(dataset.train))
    recorder = Recorder(
        Measurer(trainer.apply, trainer.loss, cfg.ntk.engine),
        put_on_device(dataset),
        state.params,
        steps,
        choose_sparse(steps, cfg.schedule.spectrum_ratio),
        per_epoch,
        cfg.training.stop_after,
        workers,
    )
    states = run_states(trainer, state, dataset.train, steps, lambda count: advance(count, ""))
    for index, state in enumerate(states):
        values = recorder.record(index, state.params)
        members = slice(len(seeds))
        tracker.record(state.step, state.step / per_epoch, values, recorder.active[members])
        advance(
            0, f"train loss {np.nanmean(values['train_loss']):.3g}, test loss {np.nanmean(values['test_loss']):.3g}"
        )
        if not recorder.active[members].any():
            break
    seconds = time.perf_counter() - started
    parameters = sum(leaf[0].size for leaf in jax.tree.leaves(state.params))
    shared = {
        **describe_environment(),
        "config": OmegaConf.to_container(cfg, resolve=True),
        "run_key": compute_key(cfg),
        "N": len(dataset.probe),
        "C": dataset.classes,
        "parameters": parameters,
        "data": dataset.provenance,
        "data_checksum": dataset.provenance["checksum"],
        "packed_seeds": list(seeds),
        "seconds": seconds,
    }
    for member, (seed, (records, minimum, crossings)) in enumerate(zip(seeds, recorder.finish(), strict=False)):
        diverged_step = recorder.diverged_step[member]
        attributes = {
            "state": "done" if diverged_step is None else "diverged",
            "seed": seed,
            "constant_output": recorder.is_constant(member),
            **({} if diverged_step is None else {"diverged_step": diverged_step}),
            **shared,
        }
        trajectory = build_trajectory(records, minimum, crossings, recorder.layers, attributes)
        directory = find_seed_directory(run, seed)
        publish_trajectory(trajectory, directory)
        write_status(directory, attributes["state"], seed=seed, key=attributes["run_key"], seconds=seconds)
        tracker.finish(seed, trajectory)


def _describe_failure(error: Exception) -> str:
    """Return one line; for want of memory, one that says what to lower."""
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0] if lines else ''}"
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error) or "Out of memory" in str(error):
        return f"out of memory: {LOWER_MEMORY} ({text})"
    return text
