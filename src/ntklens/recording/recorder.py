"""Collects the records of an ensemble: its minimum, its crossings, its divergence.

Snapshots are the minimum of the selection loss, whose parameters are kept until the end, and the first crossings of
the train losses `trajectory.LEVELS`, which are measured as they happen.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ntklens.ntk.layers import name_layers
from ntklens.ntk.order import order_layers
from ntklens.ntk.projection import draw_projection
from ntklens.ntk.regression import regress
from ntklens.ntk.structured import check_row
from ntklens.recording.measure import DeviceData, Keep, Measurer, measure_records, take_member
from ntklens.recording.quantities import (
    HESSIAN,
    LIMIT_REGRESSION,
    OPTIMIZER,
    PARAMETERS,
    PREVIOUS,
    PROBES,
    QUANTITIES,
    REGRESSION,
    WEIGHTED,
    list_needs,
)
from ntklens.recording.quantities import START as START_KERNEL
from ntklens.recording.spectra import (
    KernelView,
    SpectrumWorkers,
    add_shares,
    compute_averaged_kernel,
    compute_member_kernel,
    compute_member_kernels,
    compute_weighted_kernel,
    measure_kernel,
)
from ntklens.store.layers import LAYER_ORDER
from ntklens.store.snapshots import MINIMUM, START, name_crossing
from ntklens.store.trajectory import LEVELS
from ntklens.training.curvature import measure_sharpness
from ntklens.training.ensemble import Params

PENDING = "pending"  # where a record keeps the future of its spectrum
# Without these an exported member cannot go on; any other quantity may be missing.
NEEDED = (
    *("step", "epoch", "train_loss", "selection_loss"),
    *("crossings", "minimum_record", "minimum_loss", "active", "diverged_step"),
)


@functools.partial(jax.jit, donate_argnums=0)
def _keep_better(best: Params, params: Params, better: jax.Array) -> Params:
    def choose(old: jax.Array, new: jax.Array) -> jax.Array:
        return jnp.where(better.reshape(-1, *[1] * (old.ndim - 1)), new, old)

    return jax.tree.map(choose, best, params)


class EnsembleRecorder:
    """Collects the records and snapshots of the members of one ensemble.

    Args:
      measurer: what to measure with.
      data: the splits and the probe.
      initial: the stacked parameters at record 0.
      steps: the updates at which `record` will be called, shape [K].
      spectra: at which of them spectra are measured, shape [K], booleans.
      steps_per_epoch: updates per pass over the training set.
      stop_after: epochs after its minimum at which a member stops; None: never.
      workers: who measures the spectra.
      learning_rates: of the members, shape [E], by which the optimizer steps parameters; None: not known.
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
        learning_rates: np.ndarray | None = None,
    ) -> None:
        self.measurer, self.data = measurer, data
        self.steps, self.spectra, self.steps_per_epoch = steps, spectra, steps_per_epoch
        self.stop_after, self.workers, self.keep = stop_after, workers, keep
        self.learning_rates = np.full(len(jax.tree.leaves(initial)[0]), np.nan)
        if learning_rates is not None:
            self.learning_rates = np.asarray(learning_rates)
        self.initial, self.best = (jax.tree.map(jnp.copy, initial) for _ in range(2))
        self.layers = list(name_layers(measurer.apply, initial))
        self.quantities, self.needs = measurer.quantities, list_needs(measurer.metrics)
        self.names = list(self.quantities)  # of what is exported; a checkpoint may have more
        self.start_kernels: dict[int, jax.Array] = {}  # member → Θ_0, where a quantity needs it
        self.previous: dict[int, tuple[float, jax.Array]] = {}  # member → (epoch, Θ) of its last spectrum, likewise
        self.members = members = len(jax.tree.leaves(initial)[0])
        self.records: list[list[dict[str, Any]]] = [[] for _ in range(members)]
        self.crossings: list[dict[int, int]] = [{} for _ in range(members)]  # level → record
        self.minimum_loss = np.full(members, np.inf)
        self.minimum_record = np.zeros(members, int)
        self.active = np.ones(members, bool)
        self.diverged_step: list[int | None] = [None] * members

    def record(
        self, index: int, params: Params, given: Mapping[str, np.ndarray] | None = None, opt_state: Any = None
    ) -> dict[str, np.ndarray]:
        """Measure the members at `steps[index]`, and decide which of them go on.

        Args:
          index: number of the record.
          params: stacked parameters.
          given: the values that the caller has of `measurer.given`, arrays [E]; those left out are NaN.
          opt_state: stacked states of the optimizer, which some quantities need.

        Returns:
          What was measured of every member, finished ones included, arrays [E] or [E, layers].
        """
        step = int(self.steps[index])
        opt_state = opt_state if OPTIMIZER in self.needs else None
        measured = measure_records(params, self.initial, self.data, opt_state, measurer=self.measurer)
        values = {name: np.asarray(array) for name, array in measured.items()} | dict(given or {})
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
        moment = "crossing" if crossed else "end" if index == 0 else "spectrum" if self.spectra[index] else ""
        if moment:
            view = self._measure_kernel(member, record, params, moment)
            if index == 0 and member == 0:
                self._check_kernel(view, take_member(params, member))
            for name in [name_crossing(LEVELS[level]) for level in crossed] if index else [START]:
                self._keep(member, name, step, view.shares, params)
        self.records[member].append(record)
        for level in crossed:
            self.crossings[member][level] = index

    def _check_kernel(self, view: KernelView, params: Params) -> None:
        """Compare a random row of Θ with a Jacobian–vector product: a fault of the engine ends the run at its start."""
        if self.measurer.engine == "structured":
            n, c = next(iter(view.shares.values())).shape[:2]
            row = np.random.default_rng(n * c).integers((n, c))
            check_row(self.measurer.kernel_apply, params, self.data.probe, view.shares, (int(row[0]), int(row[1])))

    def _measure_kernel(self, member: int, record: dict[str, Any], params: Params, moment: str) -> KernelView:
        """Have a kernel measured for a record, and return what its quantities see."""
        view = self._view_kernel(member, record["step"], params, moment)
        if PREVIOUS in self.needs:
            view.previous, self.previous[member] = self.previous.get(member), (view.epoch, view.kernel)
        record[PENDING] = self.workers.submit(measure_kernel, self.quantities, moment, view)
        return view

    def measure_last(self, params: Params) -> None:
        """Measure the spectra of the last record, if the schedule left them out.

        Args:
          params: the stacked parameters of that record.
        """
        for member in np.flatnonzero(self.active):
            record = self.records[member][-1]
            if PENDING not in record and "eigenvalues" not in record:
                self._measure_kernel(int(member), record, params, "spectrum")

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

    def _view_kernel(self, member: int, step: int, params: Params, moment: str) -> KernelView:
        """Compute a member's kernel, and collect what its quantities need beside it."""
        view = KernelView(step / self.steps_per_epoch, self.data.probe_labels)
        if self.measurer.projected is not None:
            view.projection = draw_projection(self._describe_outputs(self.measurer.apply).shape[1])
        view.limit = None if self.data.limit is None else self.data.limit.probe
        if moment == "spectrum":
            view.theta = compute_member_kernel(params, jnp.int32(member), self.data.probe, measurer=self.measurer)
        else:
            view.shares = self._compute_kernels(params, member)
        if START_KERNEL in self.needs:
            if member not in self.start_kernels:
                self.start_kernels[member] = add_shares(self._compute_kernels(self.initial, member))
            view.start = self.start_kernels[member]
        if WEIGHTED in self.needs and self.measurer.rates is not None:
            view.weighted = compute_weighted_kernel(params, jnp.int32(member), self.data.probe, measurer=self.measurer)
        if PROBES in self.needs and moment != "spectrum":
            view.others = [
                compute_member_kernel(params, jnp.int32(member), probe, measurer=self.measurer)
                for probe in self.data.other_probes
            ]
        if HESSIAN in self.needs:
            own, train = take_member(params, member), self.data.train
            view.sharpness = measure_sharpness(own, *train, apply=self.measurer.apply, loss=self.measurer.loss)
            view.learning_rate = float(self.learning_rates[member])
        if moment == "end" and {REGRESSION, LIMIT_REGRESSION} & self.needs:
            self._regress(view, take_member(params, member), take_member(self.initial, member))
        if PARAMETERS in self.needs:
            view.params = take_member(params, member)
        return view

    def _regress(self, view: KernelView, params: Params, initial: Params) -> None:
        """Predict the test samples by kernel regression from the function at the start."""
        (train, train_labels), (test, test_labels) = self.data.train, self.data.test
        start, labels = [self.measurer.apply(initial, inputs) for inputs in (train, test)], (train_labels, test_labels)
        if REGRESSION in self.needs:
            own, across = (compute_averaged_kernel(params, x, train, measurer=self.measurer) for x in (train, test))
            view.regression = regress(own, across, (start[0], start[1]), labels)
        if LIMIT_REGRESSION in self.needs:
            assert self.data.limit is not None
            view.limit_regression = regress(self.data.limit.train, self.data.limit.test, (start[0], start[1]), labels)

    def _keep(self, member: int, name: str, step: int, kernels: Mapping[str, jax.Array], params: Params) -> None:
        if self.keep is not None:
            self.keep(member, name, step, kernels, take_member(params, member))

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
            step = int(self.steps[self.minimum_record[member]])
            view = self._view_kernel(member, step, self.best, "end")
            minima.append(self.workers.submit(measure_kernel, self.quantities, "end", view))
            self._keep(member, MINIMUM, step, view.shares, self.best)
        return [self._finish_member(member, minimum) for member, minimum in enumerate(minima)]

    def _finish_member(
        self, member: int, pending: Future
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]:
        records = self._wait_for_spectra(member) or [self._describe_unmeasured()]
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
        records = self._wait_for_spectra(member) or [self._describe_unmeasured()]
        diverged = self.diverged_step[member]
        epoch, kernel = self.previous.get(member, (None, None))
        previous = {} if kernel is None else {"previous_epoch": np.array(epoch), "previous_kernel": np.asarray(kernel)}
        return {
            **self._stack(records),
            **previous,
            "constant": np.array([bool(record.get("constant")) for record in records]),
            "crossings": np.array([self.crossings[member].get(level, -1) for level in range(len(LEVELS))]),
            "minimum_record": np.array(self.minimum_record[member]),
            "minimum_loss": np.array(self.minimum_loss[member]),
            "active": np.array(self.active[member]),
            "diverged_step": np.array(-1 if diverged is None else diverged),
        }

    def restore(self, best: Params, exported: Sequence[Mapping[str, np.ndarray]]) -> list[str]:
        """Go on from what `export_member` gave for every member, and their stacked best parameters.

        Args:
          best: stacked parameters.
          exported: per member; has at least `NEEDED`. What else was not recorded before is NaN until now.

        Returns:
          The names of the quantities that were not recorded before.
        """
        self.best = jax.tree.map(jnp.asarray, best)
        self.names = [name for name in QUANTITIES if name in self.quantities or any(name in one for one in exported)]
        for member, arrays in enumerate(exported):
            names = [name for name in (*self.names, "constant") if name in arrays]
            self.records[member] = [
                {name: arrays[name][index] for name in names} for index in range(len(arrays["step"]))
            ]
            if "previous_kernel" in arrays and PREVIOUS in self.needs:
                self.previous[member] = float(arrays["previous_epoch"]), jnp.asarray(arrays["previous_kernel"])
            self.crossings[member] = {
                level: int(index) for level, index in enumerate(arrays["crossings"]) if index >= 0
            }
            self.minimum_record[member] = arrays["minimum_record"]
            self.minimum_loss[member] = arrays["minimum_loss"]
            self.active[member] = arrays["active"]
            self.diverged_step[member] = int(arrays["diverged_step"]) if arrays["diverged_step"] >= 0 else None
        return [name for name in self.quantities if any(name not in arrays for arrays in exported)]

    def _describe_unmeasured(self) -> dict[str, Any]:
        """Return the record of a member that was not finite before the first update: nothing of it was measured."""
        return {"step": int(self.steps[0]), "epoch": 0.0}

    def describe_member(self, member: int) -> dict[str, Any]:
        """Return how a member ended: attributes of its trajectory."""
        step = self.diverged_step[member]
        return {
            "state": "done" if step is None else "diverged",
            "constant_output": self.is_constant(member),
            LAYER_ORDER: self.layer_order,
            **({} if step is None else {"diverged_step": step}),
        }

    @functools.cached_property
    def layer_order(self) -> list[str]:
        """The layers in the order of computation; by their names where the function cannot be traced for one sample."""
        try:
            return order_layers(self.measurer.apply, take_member(self.initial, 0), self.data.probe)
        except ValueError:
            return self.layers

    def is_constant(self, member: int) -> bool:
        """Return whether the member's last recorded function is constant over the probe: it is dead."""
        return bool(self.records[member] and self.records[member][-1].get("constant"))

    def _describe_outputs(self, apply: Callable[[Params, jax.Array], jax.Array]) -> jax.ShapeDtypeStruct:
        return jax.eval_shape(apply, take_member(self.initial, 0), self.data.probe)

    def _stack(self, rows: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
        outputs = self._describe_outputs(self.measurer.kernel_apply)
        sizes = {"layer": len(self.layers), "mode": outputs.size, "probe": 1 + len(self.data.other_probes)}
        dtype = np.dtype(jnp.promote_types(outputs.dtype, jnp.float32))  # of a kernel
        stacked = {}
        for name in self.names:
            missing = np.full([sizes[dim] for dim in QUANTITIES[name].dims], np.nan, dtype)
            stacked[name] = np.array([np.asarray(row.get(name, missing)) for row in rows]).reshape(-1, *missing.shape)
            stacked[name] = stacked[name].astype(np.float64 if name in ("step", "epoch") else dtype)  # steps pass 2^24
        return stacked
