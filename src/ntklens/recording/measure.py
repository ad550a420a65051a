"""State → record: losses, traces and what else is measured at every record."""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ntklens.data import Dataset, Split
from ntklens.ntk import reference, structured
from ntklens.ntk.layers import name_layers
from ntklens.training.ensemble import PRECISION, Params, map_members
from ntklens.training.losses import Loss

ENGINES = {"structured": structured, "neural_tangents": reference}
EVALUATION_BATCH = 2048  # samples whose activations are held at once while a loss is evaluated
CONSTANT_TOLERANCE = 1e-6  # logits that vary less than this over the probe, relative to their size, are constant
Keep = Callable[[int, str, int, dict[str, jax.Array], Params], None]


class DeviceData(NamedTuple):
    """The splits as (inputs, labels) pairs on the device, and the probe's inputs."""

    train: tuple[jax.Array, jax.Array]
    selection: tuple[jax.Array, jax.Array]
    test: tuple[jax.Array, jax.Array]
    probe: jax.Array


def put_on_device(dataset: Dataset) -> DeviceData:
    """Return the dataset's arrays on the device, real inputs in the precision that is switched on."""

    def pair(split: Split) -> tuple[jax.Array, jax.Array]:
        return split.convert(split.inputs), jnp.asarray(split.labels)

    return DeviceData(
        pair(dataset.train), pair(dataset.selection), pair(dataset.test), dataset.probe.convert(dataset.probe.inputs)
    )


@dataclass(frozen=True)
class Measurer:
    """Everything about measuring but the parameters and the data.

    Attributes:
      apply: (parameters, inputs (N, …)) → logits (N, C).
      loss: per-sample loss of logits (N, C) and labels (N,).
      engine: a key of `ENGINES`.
    """

    apply: Callable[[Params, jax.Array], jax.Array]
    loss: Loss
    engine: str = "structured"


def evaluate_split(
    measurer: Measurer, params: Params, split: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Return the mean loss and the accuracy over a split, in batches of `EVALUATION_BATCH`."""
    inputs, labels = split
    size = len(labels)
    batch = min(size, EVALUATION_BATCH)
    padding = -size % batch
    inputs = jnp.pad(inputs, [(0, padding)] + [(0, 0)] * (inputs.ndim - 1)).reshape(-1, batch, *inputs.shape[1:])
    labels = jnp.pad(labels, (0, padding), constant_values=-1).reshape(-1, batch)

    def add_batch(total: tuple, samples: tuple) -> tuple:
        inputs, labels = samples
        logits, real = measurer.apply(params, inputs), labels >= 0
        losses = jnp.where(real, measurer.loss(logits, jnp.maximum(labels, 0)), 0)
        correct = real & (jnp.argmax(logits, axis=-1) == labels)
        return (total[0] + jnp.sum(losses), total[1] + jnp.sum(correct, dtype=jnp.int32)), None

    dtype = jnp.result_type(*jax.tree.leaves(params))
    (total, correct), _ = jax.lax.scan(add_batch, (jnp.zeros((), dtype), jnp.int32(0)), (inputs, labels))
    return total / size, correct.astype(dtype) / size


def measure_record(measurer: Measurer, data: DeviceData, params: Params, initial: Params) -> dict[str, jax.Array]:
    """Measure what a record of one member holds without a spectrum.

    Args:
      measurer: what to measure with.
      data: the splits and the probe.
      params: the member's parameters.
      initial: the same at the start.

    Returns:
      name of `VARIABLES` → scalar or (layers,); also `constant`: whether f is constant over the probe.
    """
    train_loss, train_accuracy = evaluate_split(measurer, params, data.train)
    selection_loss, _ = evaluate_split(measurer, params, data.selection)
    test_loss, test_accuracy = evaluate_split(measurer, params, data.test)
    logits = measurer.apply(params, data.probe)
    traces = jnp.stack(list(ENGINES[measurer.engine].layer_traces(measurer.apply, params, data.probe).values()))
    return {
        "train_loss": train_loss,
        "selection_loss": selection_loss,
        "test_loss": test_loss,
        "train_accuracy": train_accuracy,
        "test_accuracy": test_accuracy,
        "logit_norm": jnp.sqrt(jnp.mean(jnp.sum(logits**2, axis=-1))),
        "trace": jnp.sum(traces),
        "trace_layer": traces,
        "weight_change": measure_weight_change(measurer.apply, params, initial),
        "constant": (len(logits) > 1)
        & (jnp.max(jnp.std(logits, axis=0)) <= CONSTANT_TOLERANCE * jnp.max(jnp.abs(logits))),
    }


@functools.partial(jax.jit, static_argnames=("measurer",))
def measure_records(params: Params, initial: Params, data: DeviceData, *, measurer: Measurer) -> dict[str, jax.Array]:
    """Return `measure_record` of all stacked members, batched: arrays (E,) or (E, layers)."""
    with jax.default_matmul_precision(PRECISION):
        return map_members(functools.partial(measure_record, measurer, data))(params, initial)


def select_member(params: Params, member: jax.Array | int) -> Params:
    """Return one member's parameters out of stacked ones."""
    return jax.tree.map(lambda leaf: leaf[member], params)


def measure_weight_change(apply: Callable, params: Params, initial: Params) -> jax.Array:
    """Return |θ_l − θ_l(0)| / |θ_l(0)| per layer, shape (layers,)."""
    now, then = jax.tree.leaves(params), jax.tree.leaves(initial)

    def norm(leaves: Iterable[jax.Array]) -> jax.Array:
        return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in leaves))

    members = name_layers(apply, params).values()
    return jnp.stack([norm(now[i] - then[i] for i in layer) / norm(then[i] for i in layer) for layer in members])
