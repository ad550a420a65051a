"""State → record. Losses and traces at every record, spectra at fewer, and full kernels at the snapshots.

Snapshots are the minimum of the selection loss, whose parameters are kept until the end, and the first crossings of
the train losses `trajectory.LEVELS`, which are measured as they happen.
"""

import functools
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from threadpoolctl import threadpool_limits

from ntklens.data import Dataset, Split
from ntklens.machine import count_cores
from ntklens.ntk import metrics, reference, structured
from ntklens.ntk.layers import name_layers
from ntklens.ntk.spectrum import eigenvalues
from ntklens.snapshots import MINIMUM, START, name_crossing
from ntklens.training.ensemble import PRECISION, Params, map_members
from ntklens.training.losses import Loss
from ntklens.trajectory import LEVELS, VARIABLES

ENGINES = {"structured": structured, "neural_tangents": reference}
EVALUATION_BATCH = 2048  # samples whose activations are held at once while a loss is evaluated
CONSTANT_TOLERANCE = 1e-6  # logits that vary less than this over the probe, relative to their size, are constant
PENDING = "pending"  # where a record keeps the promise of its spectrum


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


@functools.partial(jax.jit, static_argnames=("measurer",))
def compute_member_kernels(
    params: Params, member: jax.Array, probe: jax.Array, *, measurer: Measurer
) -> dict[str, jax.Array]:
    """Return {layer: its share of Θ, shape (N, C, N, C)} of one of the stacked members."""
    return ENGINES[measurer.engine].layer_kernels(measurer.apply, select_member(params, member), probe)


@functools.partial(jax.jit, static_argnames=("measurer",))
def compute_member_kernel(params: Params, member: jax.Array, probe: jax.Array, *, measurer: Measurer) -> jax.Array:
    """Return Θ, shape (N, C, N, C), of one of the stacked members."""
    return functools.reduce(jnp.add, compute_member_kernels(params, member, probe, measurer=measurer).values())


def measure_spectrum(kernel: jax.Array) -> dict[str, Any]:
    """Return what a record holds of a kernel's spectrum.

    Args:
      kernel: Θ, shape (N, C, N, C).

    Returns:
      `eigenvalues` (N·C,), `effective_rank`, `effective_rank_traced`.
    """
    spectrum = eigenvalues(kernel)
    traced = eigenvalues(metrics.trace_outputs(kernel))
    return {
        "eigenvalues": spectrum,
        "effective_rank": metrics.effective_rank_from_eigenvalues(spectrum),
        "effective_rank_traced": metrics.effective_rank_from_eigenvalues(traced),
    }


def measure_layers(kernels: dict[str, jax.Array]) -> dict[str, Any]:
    """Return what a crossing holds beyond a record.

    Args:
      kernels: {layer: its share of Θ, shape (N, C, N, C)}.

    Returns:
      what `measure_spectrum` returns, and `effective_rank_layer` (layers,).
    """
    layers = [metrics.effective_rank_from_eigenvalues(eigenvalues(share)) for share in kernels.values()]
    return {**measure_spectrum(functools.reduce(jnp.add, kernels.values())), "effective_rank_layer": np.array(layers)}


def measure_snapshot(kernels: dict[str, jax.Array]) -> dict[str, Any]:
    """Return what the start and the minimum hold beyond a record.

    Args:
      kernels: {layer: its share of Θ, shape (N, C, N, C)}.

    Returns:
      what `measure_layers` returns, and `effective_rank_centred`.
    """
    centred = eigenvalues(metrics.centre_kernel(functools.reduce(jnp.add, kernels.values())))
    return {**measure_layers(kernels), "effective_rank_centred": metrics.effective_rank_from_eigenvalues(centred)}


class SpectrumWorkers:
    """Measures spectra on all cores while training goes on: many at once with one LAPACK thread each.

    Few kernels wait at a time, so that memory stays bounded when training is faster.
    """

    def __init__(self) -> None:
        cores = count_cores()
        self.capacity = 2 * cores
        self.pool = ThreadPoolExecutor(cores, "spectrum")
        self.waiting: deque[Future] = deque()
        self.limits = threadpool_limits(1, user_api="blas")

    def submit(self, measure: Callable, kernels: Any) -> Future:
        """Return the promise of measure(kernels)."""
        while len(self.waiting) >= self.capacity:
            self.waiting.popleft().result()
        self.waiting.append(self.pool.submit(measure, kernels))
        return self.waiting[-1]

    def forget(self) -> None:
        """Drop what has not begun, and the promises that nobody waits for any more, with their errors."""
        for promise in self.waiting:
            promise.cancel()
        self.waiting.clear()

    def close(self) -> None:
        """Drop what has not begun, and give the other threads back."""
        self.pool.shutdown(wait=True, cancel_futures=True)
        self.limits.restore_original_limits()


@functools.partial(jax.jit, donate_argnums=0)
def _keep_better(best: Params, params: Params, better: jax.Array) -> Params:
    def choose(old: jax.Array, new: jax.Array) -> jax.Array:
        return jnp.where(better.reshape(-1, *[1] * (old.ndim - 1)), new, old)

    return jax.tree.map(choose, best, params)


class Recorder:
    """Collects the records and snapshots of the members of one ensemble.

    Args:
      measurer: what to measure with.
      data: the splits and the probe.
      initial: the stacked parameters at record 0.
      steps: the updates at which `record` will be called, shape (K,).
      spectra: at which of them spectra are measured, shape (K,), booleans.
      steps_per_epoch: updates per pass over the training set.
      stop_after: epochs after its minimum at which a member stops; None: never.
      workers: who measures the spectra.
      keep: called at each snapshot with (member, name, update, {layer: its share of Θ}, the member's parameters); None:
        nothing is kept.
    """

    def __init__(
        self,
        measurer: Measurer,
        data: DeviceData,
        initial: Params,
        steps: np.ndarray,
        spectra: np.ndarray,
        steps_per_epoch: int,
        stop_after: int | None,
        workers: SpectrumWorkers,
        keep: Keep | None = None,
    ) -> None:
        self.measurer, self.data = measurer, data
        self.steps, self.spectra, self.steps_per_epoch = steps, spectra, steps_per_epoch
        self.stop_after, self.workers, self.keep = stop_after, workers, keep
        self.initial, self.best = (jax.tree.map(jnp.copy, initial) for _ in range(2))
        self.layers = list(name_layers(measurer.apply, initial))
        self.members = members = len(jax.tree.leaves(initial)[0])
        self.records: list[list[dict[str, Any]]] = [[] for _ in range(members)]
        self.crossings: list[dict[int, int]] = [{} for _ in range(members)]  # level → record
        self.minimum_loss = np.full(members, np.inf)
        self.minimum_record = np.zeros(members, int)
        self.active = np.ones(members, bool)
        self.diverged_step: list[int | None] = [None] * members

    def record(self, index: int, params: Params) -> dict[str, np.ndarray]:
        """Measure the members at `steps[index]`, and decide which of them go on.

        Args:
          index: number of the record.
          params: stacked parameters.

        Returns:
          What was measured of every member, finished ones included, arrays (E,) or (E, layers).
        """
        step = int(self.steps[index])
        measured = measure_records(params, self.initial, self.data, measurer=self.measurer)
        values = {name: np.asarray(array) for name, array in measured.items()}
        losses = np.stack([values[name] for name in ("train_loss", "selection_loss", "test_loss")])
        for member in np.flatnonzero(self.active & ~np.isfinite(losses).all(axis=0)):
            self.active[member], self.diverged_step[member] = False, step
        better = self.active & (values["selection_loss"] < self.minimum_loss)
        self.best = _keep_better(self.best, params, jnp.asarray(better))
        self.minimum_loss[better], self.minimum_record[better] = values["selection_loss"][better], index
        for number in np.flatnonzero(self.active):
            own = {name: array[number] for name, array in values.items()}
            self._record_member(int(number), index, params, own)
        if self.stop_after is not None:
            waited = (step - self.steps[self.minimum_record]) / self.steps_per_epoch
            self.active &= waited < self.stop_after
        return values

    def _record_member(self, member: int, index: int, params: Params, values: dict[str, Any]) -> None:
        step = int(self.steps[index])
        record = {"step": step, "epoch": step / self.steps_per_epoch, **values}
        crossed = self._find_crossings(member, record)
        if index == 0 or crossed:
            measure = measure_layers if crossed else measure_snapshot
            kernels = self._compute_kernels(params, member)
            record[PENDING] = self.workers.submit(measure, kernels)
            for name in [name_crossing(LEVELS[level]) for level in crossed] if index else [START]:
                self._keep(member, name, step, kernels, params)
        elif self.spectra[index]:
            kernel = compute_member_kernel(params, jnp.int32(member), self.data.probe, measurer=self.measurer)
            record[PENDING] = self.workers.submit(measure_spectrum, kernel)
        self.records[member].append(record)
        for level in crossed:
            self.crossings[member][level] = index

    def _find_crossings(self, member: int, record: dict[str, Any]) -> list[int]:
        """Return the levels that the train loss is now at or below for the first time, having started above."""
        if not self.records[member]:
            return []
        started = self.records[member][0]["train_loss"]
        return [
            number
            for number, level in enumerate(LEVELS)
            if number not in self.crossings[member] and started > level >= record["train_loss"]
        ]

    def _keep(self, member: int, name: str, step: int, kernels: dict[str, jax.Array], params: Params) -> None:
        if self.keep is not None:
            self.keep(member, name, step, kernels, select_member(params, member))

    def keep_start(self, member: int) -> None:
        """Keep a member's start, for a run that was begun without that."""
        self._keep(member, START, int(self.steps[0]), self._compute_kernels(self.initial, member), self.initial)

    def _compute_kernels(self, params: Params, member: int) -> dict[str, jax.Array]:
        kernels = compute_member_kernels(params, jnp.int32(member), self.data.probe, measurer=self.measurer)
        return {layer: kernels[layer] for layer in self.layers}  # a compiled function returns its keys sorted as text

    def pad(self, members: int) -> None:
        """Take only the first members for real: the others fill the arrays up, and nothing more is measured of them."""
        self.members = members
        self.active[members:] = False

    def finish(self) -> list[tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]]:
        """Measure the minima, wait for every spectrum, and return what each member left.

        Returns:
          Per member its records, minimum and crossings for `build_trajectory`.
        """
        minima = []
        for member in range(self.members):
            kernels = self._compute_kernels(self.best, member)
            minima.append(self.workers.submit(measure_snapshot, kernels))
            self._keep(member, MINIMUM, int(self.steps[self.minimum_record[member]]), kernels, self.best)
        return [self._finish_member(member, minimum) for member, minimum in enumerate(minima)]

    def _finish_member(
        self, member: int, pending: Future
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]:
        records = self._wait_for_spectra(member) or [self._describe_stillborn()]
        minimum = records[self.minimum_record[member]] | pending.result()
        crossed = [self.crossings[member].get(level) for level in range(len(LEVELS))]
        crossings = [{} if index is None else records[index] for index in crossed]
        return (
            self._stack(records),
            {name: array[0] for name, array in self._stack([minimum]).items()},
            self._stack(crossings),
        )

    def _wait_for_spectra(self, member: int) -> list[dict[str, Any]]:
        for record in self.records[member]:
            record |= record.pop(PENDING).result() if PENDING in record else {}
        return self.records[member]

    def export_member(self, member: int) -> dict[str, np.ndarray]:
        """Return, as arrays, what `restore` needs beside the best parameters; waits for the member's spectra."""
        records = self._wait_for_spectra(member) or [self._describe_stillborn()]
        diverged = self.diverged_step[member]
        return {
            **self._stack(records),
            "constant": np.array([bool(record.get("constant")) for record in records]),
            "crossings": np.array([self.crossings[member].get(level, -1) for level in range(len(LEVELS))]),
            "minimum_record": np.array(self.minimum_record[member]),
            "minimum_loss": np.array(self.minimum_loss[member]),
            "active": np.array(self.active[member]),
            "diverged_step": np.array(-1 if diverged is None else diverged),
        }

    def restore(self, best: Params, exported: Sequence[Mapping[str, np.ndarray]]) -> None:
        """Go on from what `export_member` gave for every member, and their stacked best parameters."""
        self.best = jax.tree.map(jnp.asarray, best)
        for member, arrays in enumerate(exported):
            names = [*VARIABLES, "constant"]
            self.records[member] = [
                {name: arrays[name][index] for name in names} for index in range(len(arrays["step"]))
            ]
            self.crossings[member] = {
                level: int(index) for level, index in enumerate(arrays["crossings"]) if index >= 0
            }
            self.minimum_record[member] = arrays["minimum_record"]
            self.minimum_loss[member] = arrays["minimum_loss"]
            self.active[member] = arrays["active"]
            self.diverged_step[member] = int(arrays["diverged_step"]) if arrays["diverged_step"] >= 0 else None

    def _describe_stillborn(self) -> dict[str, Any]:
        """Return the record of a member that was not finite before the first update: nothing of it was measured."""
        return {"step": int(self.steps[0]), "epoch": 0.0}

    def is_constant(self, member: int) -> bool:
        """Return whether the member's last recorded function is constant over the probe: it is dead."""
        return bool(self.records[member] and self.records[member][-1]["constant"])

    def _stack(self, rows: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
        outputs = jax.eval_shape(self.measurer.apply, select_member(self.initial, 0), self.data.probe)
        sizes = {"layer": len(self.layers), "mode": outputs.size}
        dtype = np.dtype(outputs.dtype)
        stacked = {}
        for name, (dims, _) in VARIABLES.items():
            missing = np.full([sizes[dim] for dim in dims], np.nan, dtype)
            stacked[name] = np.array([np.asarray(row.get(name, missing)) for row in rows]).reshape(-1, *missing.shape)
            stacked[name] = stacked[name].astype(np.float64 if name in ("step", "epoch") else dtype)  # steps pass 2^24
        return stacked
