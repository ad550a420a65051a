"""State → record: losses, traces and what else is measured at every record."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ntklens.data import Dataset, Split
from ntklens.data.probes import choose_probes
from ntklens.ntk import reference, structured
from ntklens.ntk.layers import name_layers
from ntklens.ntk.projection import Projected
from ntklens.ntk.weighted import weigh_leaves
from ntklens.recording.quantities import RECORD, Quantity, select_quantities
from ntklens.training.ensemble import PRECISION, Params, Precondition, Trainer, map_members
from ntklens.training.losses import Loss

ENGINES = {"structured": structured, "neural_tangents": reference}
EVALUATION_BATCH = 2048  # samples whose activations are held at once while a loss is evaluated
CONSTANT_TOLERANCE = 1e-6  # logits that vary less than this over the probe, relative to their size, are constant
Keep = Callable[[int, str, int, Mapping[str, jax.Array], Params], None]


class LimitKernels(NamedTuple):
    """K of Θ_∞ = K ⊗ I_C.

    Attributes:
      probe: on the probe, shape [N, N].
      train: on the training samples, shape [n, n]; None: not needed.
      test: of the test samples with those, shape [t, n]; None: not needed.
    """

    probe: jax.Array
    train: jax.Array | None = None
    test: jax.Array | None = None


class DeviceData(NamedTuple):
    """The splits as (inputs, labels) pairs on the device, the probe's inputs and labels, and further probes' inputs.

    `limit` holds K of the kernel Θ_∞ = K ⊗ I_C of the network at infinite width; None: not needed.
    """

    train: tuple[jax.Array, jax.Array]
    selection: tuple[jax.Array, jax.Array]
    test: tuple[jax.Array, jax.Array]
    probe: jax.Array
    probe_labels: jax.Array
    other_probes: tuple[jax.Array, ...] = ()
    limit: LimitKernels | None = None


def put_on_device(dataset: Dataset, probes: int = 1) -> DeviceData:
    """Return the dataset's arrays on the device, real inputs in the precision that is switched on.

    Args:
      dataset: its splits.
      probes: how many probes there are, see `choose_probes`.
    """

    def pair(split: Split) -> tuple[jax.Array, jax.Array]:
        return split.convert(split.inputs), jnp.asarray(split.labels)

    splits = (dataset.train, dataset.selection, dataset.test, dataset.probe)
    train, selection, test, probe = map(pair, splits)
    others = tuple(dataset.probe.convert(inputs) for inputs in choose_probes(dataset, probes))
    return DeviceData(train, selection, test, *probe, others)


@dataclass(frozen=True)
class Measurer:
    """Everything about measuring but the parameters and the data.

    Attributes:
      apply: (parameters, inputs [N, …]) → logits [N, C].
      loss: per-sample loss of logits [N, C] and labels [N].
      engine: a key of `ENGINES`.
      metrics: the optional quantities that are switched on.
      given: the quantities whose values the caller has; they are not measured.
      twin: as `apply`, of the linearised twin in the same parameters; None: there is none.
      rates: the rate of each leaf of the parameters, of one `learning_rate`; None: one for all.
      precondition: state of the optimizer → what Adam multiplies its momentum by; None: it does no such.
      trace_draws: by how many draws of random signs traces are estimated; None: they are exact.
      projected: as `apply`, its outputs projected onto fewer, whose kernel is measured; None: that of `apply` itself.
    """

    apply: Callable[[Params, jax.Array], jax.Array]
    loss: Loss
    engine: str = "structured"
    metrics: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    twin: Callable[[Params, jax.Array], jax.Array] | None = None
    rates: tuple[float, ...] | None = None
    precondition: Precondition | None = None
    trace_draws: int | None = None
    projected: Callable[[Params, jax.Array], jax.Array] | None = None

    @classmethod
    def of(
        cls,
        trainer: Trainer,
        engine: str,
        metrics: tuple[str, ...],
        trace_draws: int | None = None,
        project: bool = False,
    ) -> "Measurer":
        """Return what measures the networks of a trainer, or their projected outputs."""
        return cls(
            trainer.apply,
            trainer.loss,
            engine,
            metrics,
            twin=trainer.twin,
            rates=trainer.rates,
            precondition=trainer.precondition,
            trace_draws=trace_draws,
            projected=Projected(trainer.apply) if project else None,
        )

    @property
    def kernel_apply(self) -> Callable[[Params, jax.Array], jax.Array]:
        """The function whose kernel is measured."""
        return self.projected or self.apply

    @property
    def quantities(self) -> dict[str, Quantity]:
        """What is measured, by name."""
        return select_quantities(self.metrics)


def evaluate_split(
    measurer: Measurer,
    params: Params,
    split: tuple[jax.Array, jax.Array],
    apply: Callable[[Params, jax.Array], jax.Array] | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Return the mean loss and the accuracy over a split, of `apply`, or the network, by `EVALUATION_BATCH` samples."""
    inputs, labels = split
    apply = apply or measurer.apply
    size = len(labels)
    batch = min(size, EVALUATION_BATCH)
    padding = -size % batch
    inputs = jnp.pad(inputs, [(0, padding)] + [(0, 0)] * (inputs.ndim - 1)).reshape(-1, batch, *inputs.shape[1:])
    labels = jnp.pad(labels, (0, padding), constant_values=-1).reshape(-1, batch)

    def add_batch(total: tuple, samples: tuple) -> tuple:
        inputs, labels = samples
        logits, real = apply(params, inputs), labels >= 0
        losses = jnp.where(real, measurer.loss(logits, jnp.maximum(labels, 0)), 0)
        correct = real & (jnp.argmax(logits, axis=-1) == labels)
        return (total[0] + jnp.sum(losses), total[1] + jnp.sum(correct, dtype=jnp.int32)), None

    dtype = jnp.result_type(*jax.tree.leaves(params))
    (total, correct), _ = jax.lax.scan(add_batch, (jnp.zeros((), dtype), jnp.int32(0)), (inputs, labels))
    return total / size, correct.astype(dtype) / size


@dataclass(frozen=True)
class RecordView:
    """What a quantity that is measured at every record sees of a member; traced, each part computed once.

    Attributes:
      measurer: what to measure with.
      data: the splits and the probe.
      params: the member's parameters.
      initial: the same at the start.
      opt_state: the state of its optimizer, where a quantity needs it.
    """

    measurer: Measurer
    data: DeviceData
    params: Params
    initial: Params
    opt_state: Any = None

    @functools.cached_property
    def train(self) -> tuple[jax.Array, jax.Array]:
        """Mean loss and accuracy over the training set."""
        return evaluate_split(self.measurer, self.params, self.data.train)

    @functools.cached_property
    def selection(self) -> tuple[jax.Array, jax.Array]:
        """The same over the half of the test set that chooses the minimum."""
        return evaluate_split(self.measurer, self.params, self.data.selection)

    @functools.cached_property
    def test(self) -> tuple[jax.Array, jax.Array]:
        """The same over the other half."""
        return evaluate_split(self.measurer, self.params, self.data.test)

    @functools.cached_property
    def logits(self) -> jax.Array:
        """F on the probe, shape [N, C]."""
        return self.measurer.apply(self.params, self.data.probe)

    @functools.cached_property
    def traces(self) -> jax.Array:
        """The trace of each layer's share of Θ, shape [layers]."""
        return jnp.stack(list(self._measured_traces[0].values()))

    @property
    def trace_error(self) -> jax.Array:
        """The standard error of the trace; 0 where it is exact."""
        return self._measured_traces[1]

    @functools.cached_property
    def _measured_traces(self) -> tuple[dict[str, jax.Array], jax.Array]:
        return self._trace_layers(self.measurer.kernel_apply, self.params)

    def _trace_layers(self, function: Callable, params: Params) -> tuple[dict[str, jax.Array], jax.Array]:
        """Return the trace of each layer's share, exact or estimated, and the standard error of their sum.

        Signs are drawn from the member's start: the same at every record, so that changes of the trace are known more
        precisely than the trace, and others in every member, so that an ensemble's errors are independent.
        """
        draws, probe = self.measurer.trace_draws, self.data.probe
        if draws is None:
            return ENGINES[self.measurer.engine].layer_traces(function, params, probe), jnp.zeros((), probe.dtype)
        leaves = [leaf.astype(jnp.float32) for leaf in jax.tree.leaves(self.initial)]
        seed = sum(jnp.sum(jax.lax.bitcast_convert_type(leaf, jnp.uint32)) for leaf in leaves)
        return structured.estimate_layer_traces(function, params, probe, jax.random.key(seed), draws)

    @functools.cached_property
    def weighted_trace(self) -> jax.Array:
        """The trace of the kernel whose leaves count with the rates that they are trained with."""
        if self.measurer.rates is None:
            return self.traces.sum()
        function, params = weigh_leaves(self.measurer.kernel_apply, self.params, self.measurer.rates)
        return sum(self._trace_layers(function, params)[0].values(), jnp.zeros((), self.traces.dtype))

    @functools.cached_property
    def preconditioned_trace(self) -> jax.Array:
        """The trace of the kernel whose parameters count with the rates and the preconditioner of Adam."""
        precondition, rates = self.measurer.precondition, self.measurer.rates
        if precondition is None or self.opt_state is None:
            return jnp.full((), jnp.nan, self.traces.dtype)
        weights = precondition(self.opt_state)
        if rates is not None:
            scaled = [rate * leaf for rate, leaf in zip(rates, jax.tree.leaves(weights), strict=True)]
            weights = jax.tree.unflatten(jax.tree.structure(weights), scaled)
        return structured.weighted_trace(self.measurer.kernel_apply, self.params, self.data.probe, weights)

    @functools.cached_property
    def twin_logits(self) -> jax.Array:
        """The linearised twin's outputs on the probe, shape [N, C]."""
        assert self.measurer.twin is not None
        return self.measurer.twin(self.params, self.data.probe)

    def evaluate_twin(self, split: tuple[jax.Array, jax.Array]) -> jax.Array:
        """Return the mean loss of the linearised twin over a split."""
        return evaluate_split(self.measurer, self.params, split, self.measurer.twin)[0]

    @functools.cached_property
    def layers(self) -> dict[str, list[int]]:
        """Layers → the numbers of their leaves in `jax.tree.leaves(params)`."""
        return name_layers(self.measurer.apply, self.params)


def measure_record(
    measurer: Measurer, data: DeviceData, params: Params, initial: Params, opt_state: Any = None
) -> dict[str, jax.Array]:
    """Measure the quantities of one member that are due at every record.

    Args:
      measurer: what to measure with.
      data: the splits and the probe.
      params: the member's parameters.
      initial: the same at the start.
      opt_state: the state of its optimizer, where a quantity needs it.

    Returns:
      name of a quantity → scalar or [layers]; also `constant`: whether f is constant over the probe.
    """
    view = RecordView(measurer, data, params, initial, opt_state)
    due = {name: one for name, one in measurer.quantities.items() if one.when == RECORD and name not in measurer.given}
    values = {name: one.measure(view) for name, one in due.items() if one.measure}
    spread, size = jnp.max(jnp.std(view.logits, axis=0)), jnp.max(jnp.abs(view.logits))
    return values | {"constant": (len(view.logits) > 1) & (spread <= CONSTANT_TOLERANCE * size)}


@functools.partial(jax.jit, static_argnames=("measurer",))
def measure_records(
    params: Params, initial: Params, data: DeviceData, opt_state: Any = None, *, measurer: Measurer
) -> dict[str, jax.Array]:
    """Return `measure_record` of all stacked members: arrays [E] or [E, layers]."""
    measure = functools.partial(measure_record, measurer, data)
    with jax.default_matmul_precision(PRECISION):
        return map_members(measure)(params, initial, opt_state)


def select_member(params: Params, member: jax.Array | int) -> Params:
    """Return one member's parameters out of stacked ones."""
    return jax.tree.map(lambda leaf: leaf[member], params)


take_member = jax.jit(select_member)  # the same outside of a program: one is compiled, not one for each shape of a leaf
