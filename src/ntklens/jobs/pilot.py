"""The step of a run: given, or chosen by a rule on one network of a seed of its own, and stored before training."""

import math
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from omegaconf import DictConfig, OmegaConf

from ntklens.config.checks import DESCENDING, PILOT_SEED
from ntklens.config.identity import AUTO, CANONICAL_TARGETS, STEP_RULES, find_step_rule, get_step_divisor, name_run
from ntklens.errors import InputError
from ntklens.jobs.pack import RunContext, Step, write_heartbeat
from ntklens.recording.measure import DeviceData, Measurer, evaluate_split, select_member
from ntklens.store.step import describe_choice, read_step, store_step
from ntklens.training.curvature import measure_sharpness, measure_slope
from ntklens.training.ensemble import PRECISION, Params, State, Trainer, initialise, run_states
from ntklens.training.resolution import (
    LAST,
    RECORD_RATIO,
    Choice,
    Round,
    Start,
    Watch,
    search_step,
    start_adam,
    start_curvature,
    start_descent,
)
from ntklens.training.schedule import make_geometric_steps

SIGN_LIKE = ("optax.adam", "optax.adamw")  # optimizers for which the law in the width was measured
DENSE = "ntklens.models.mlp.MLP"  # the model for which it was


def find_step(job: RunContext, seeds: Sequence[int], size: int) -> Step:
    """Return the step of a configuration; where a rule chooses it and nobody has yet, choose and store it.

    Args:
        job: the configuration.
        seeds: those about to train, which are shown as running meanwhile.
        size: members of their pack: the pilot fills one of that size, so that it runs the pack's own program.

    Raises:
        InputError: if there is no step to begin with.
        OSError: if it cannot be stored.
        KeyboardInterrupt: if the end was asked for; the next launch starts the pilot again.
    """
    rule = find_step_rule(job.cfg.optimizer)
    if rule is None:
        return Step(job.cfg.optimizer.learning_rate, {})
    checksum = job.data_identity.checksum
    stored = read_step(job.run, checksum)
    if not stored:
        undivided = find_undivided(job.cfg, job.run)
        stored = read_step(undivided, checksum) or store_step(undivided, _choose(job, seeds, size, rule, checksum))
        if undivided != job.run:
            divisor = get_step_divisor(job.cfg)
            divided = {**stored, "learning_rate": stored["learning_rate"] / divisor, "step_divisor": divisor}
            stored = store_step(job.run, divided)
    rate = stored["learning_rate"]
    job.watcher.say(f"{job.run.name}: step {rate:.4g} ({describe_choice(stored)})")
    return Step(rate, stored)


def find_undivided(cfg: DictConfig, run: Path) -> Path:
    """Return the directory of the run whose step is not divided: the step of both is chosen once, and lies there."""
    if get_step_divisor(cfg) == 1:
        return run
    whole = OmegaConf.merge(cfg, {"protocol": {"step_divisor": 1.0}})
    assert isinstance(whole, DictConfig)
    return run.parent / name_run(whole)


def _choose(job: RunContext, seeds: Sequence[int], size: int, rule: str, checksum: str) -> dict[str, Any]:
    """Choose the step, and return what is stored of it."""
    started = time.monotonic()
    write_heartbeat(job, seeds, 0)
    pilot = Pilot(job, seeds, size)
    start, found = pilot.find_start()
    if rule == STEP_RULES[AUTO]:
        if not math.isfinite(start.learning_rate) or start.learning_rate <= 0:
            raise InputError(
                f"optimizer.learning_rate={AUTO}: λ_0 = {found.get('sharpness')} gives no step; type a number"
            )
        choice = Choice(start.learning_rate, "measured", ())
    else:
        choice = search_step(start, pilot.run_round)
    return {
        "rule": rule,
        "learning_rate": choice.learning_rate,
        "status": choice.status,
        "start": {"method": start.method, "learning_rate": start.learning_rate, **found},
        "rounds": [one._asdict() for one in choice.rounds],
        "seed": PILOT_SEED,
        "data_checksum": checksum,
        "seconds": time.monotonic() - started,
    }


class Pilot:
    """Trains one network, in every place of a pack, to see where the minimum of its selection loss comes.

    Args:
        job: the configuration.
        seeds: those that are shown as running meanwhile.
        size: members of a pack.
    """

    def __init__(self, job: RunContext, seeds: Sequence[int], size: int) -> None:
        self.job, self.seeds, self.size = job, seeds, size
        self.heartbeat = time.monotonic()
        self.rounds = 0
        trainer = job.trainer
        self.measurer = Measurer(trainer.apply, trainer.loss)

    def find_start(self) -> tuple[Start, dict[str, Any]]:
        """Return the first step to try, and what was measured for it."""
        cfg, trainer, data = self.job.cfg, self.job.trainer, self.job.data.train
        params = select_member(initialise(trainer, [PILOT_SEED], 0.0).params, 0)
        optimizer, model = (CANONICAL_TARGETS.get(node._target_, node._target_) for node in (cfg.optimizer, cfg.model))
        loss = cfg.training.loss
        if optimizer in DESCENDING:
            sharpness = measure_sharpness(params, *data, apply=trainer.apply, loss=trainer.loss)
            sharpness *= trainer.rates[0] if trainer.rates else 1.0  # of all leaves: model.output_scale scales the step
            momentum = cfg.optimizer.get("momentum") or 0.0
            return start_curvature(loss, momentum, sharpness), {"sharpness": sharpness}
        if optimizer in SIGN_LIKE and model == DENSE:
            standard = cfg.model.get("parameterization", "standard") == "standard"
            width = cfg.model.width if standard else cfg.model.base_width
            return start_adam(width, len(self.job.dataset.train)), {}
        value, gradient = measure_slope(params, *data, apply=trainer.apply, loss=trainer.loss)
        slope = float(_predict_descent(params, gradient, trainer=trainer))
        return start_descent(loss, float(value), slope), {"loss": float(value), "slope": slope}

    def run_round(self, rate: float) -> Round:
        """Train with a step until the rule has seen enough, and return what came of it."""
        job, watch = self.job, Watch()
        self.rounds += 1
        job.watcher.say(f"{job.run.name}: pilot, round {self.rounds}: step {rate:.4g}")
        first = initialise(job.trainer, [PILOT_SEED] * self.size, rate)
        steps = make_geometric_steps(LAST, RECORD_RATIO)
        for state in run_states(job.trainer, first, job.dataset.train, steps, self._look_up):
            train, selection = measure_losses(state.params, job.data, measurer=self.measurer)
            if end := watch.look(state.step, float(train), float(selection)):
                return watch.finish(rate, end, state.step)
        raise AssertionError("a round ends at its last update")

    def _look_up(self, _state: State, _count: int) -> None:
        """Look, between two pieces of training, at what else there is to do."""
        self.job.stop.check()
        if time.monotonic() - self.heartbeat > 15:
            write_heartbeat(self.job, self.seeds, 0)
            self.heartbeat = time.monotonic()


@partial(jax.jit, static_argnames="measurer")
def measure_losses(params: Params, data: DeviceData, *, measurer: Measurer) -> tuple[jax.Array, jax.Array]:
    """Return the train loss and the selection loss of the first of stacked members."""
    with jax.default_matmul_precision(PRECISION):
        member = select_member(params, 0)
        return evaluate_split(measurer, member, data.train)[0], evaluate_split(measurer, member, data.selection)[0]


@partial(jax.jit, static_argnames="trainer")
def _predict_descent(params: Params, gradient: Params, *, trainer: Trainer) -> jax.Array:
    """Return −⟨∇L, u⟩, u the first update at step 1: ‖∇L‖_1 where each parameter moves by the step, as under Adam.

    Where that is no descent, as of an optimizer that does nothing at first, ‖∇L‖_1 itself.
    """
    optimizer = trainer.optimizer(jnp.ones(()))
    update, _ = optimizer.update(gradient, optimizer.init(params), params)
    leaves = zip(jax.tree.leaves(gradient), jax.tree.leaves(update), strict=True)
    descent = -sum(jnp.vdot(slope, move) for slope, move in leaves)
    absolute = optax.tree.sum(jax.tree.map(lambda leaf: jnp.sum(jnp.abs(leaf)), gradient))
    return jnp.where(jnp.isfinite(descent) & (descent > 0), descent, absolute)
