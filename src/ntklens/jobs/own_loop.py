"""Trajectories of networks that somebody trains in a loop of their own."""

import functools
import inspect
import json
import math
import operator
import re
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from ntklens.config.identity import hash_identity, is_not_identity
from ntklens.errors import InputError
from ntklens.jobs.finish import finish_seed
from ntklens.jobs.pack import describe_inputs
from ntklens.ntk.layers import Function, call_function, name_layers
from ntklens.ntk.structured import check_function
from ntklens.recording.measure import DeviceData, Measurer
from ntklens.recording.recorder import EnsembleRecorder
from ntklens.recording.spectra import SpectrumWorkers
from ntklens.recording.trajectory import build_trajectory
from ntklens.store.files import replacing
from ntklens.store.layout import NAME_LENGTH, find_seed_directory
from ntklens.store.provenance import describe_environment
from ntklens.store.stack import flatten_config
from ntklens.store.trajectory import FILE_NAME, encode_trajectory, publish_trajectory
from ntklens.training.ensemble import PRECISION, Params
from ntklens.words import correct_names

Arguments = ParamSpec("Arguments")
GIVEN = ("train_loss", "selection_loss", "test_loss", "train_accuracy", "test_accuracy")  # by the training loop
EXAMPLE = "recorder(step, params, train_loss=…, test_loss=…)"


def _check_names(call: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Return the call with an error of ours where a value has a name that it does not take, or one is missing."""
    signature = inspect.signature(call)
    names = [name for name, one in signature.parameters.items() if one.kind is one.KEYWORD_ONLY]

    @functools.wraps(call)
    def checked(*args: Arguments.args, **values: Arguments.kwargs) -> None:
        try:
            signature.bind(*args, **values)
        except TypeError as error:
            unknown = [name for name in values if name not in signature.parameters]
            meant = correct_names(unknown[:1], names)
            hint = f"did you mean {meant[0]}=…" if meant else f"there are {', '.join(names)}"
            text = f"there is no {unknown[0]}; {hint}" if unknown else f"{error}; type {EXAMPLE}"
            raise InputError(f"recorder(step, …): {text}") from None
        call(*args, **values)

    return checked


class Recorder:
    """Records how the kernel of a network moves while it is trained by a loop of one's own.

    Call it as often as the losses are known, from before the first update on. As in ntklens' own runs losses, Tr Θ and
    the change of the weights are recorded at steps spaced by `record_ratio`, spectra at steps spaced by
    `spectrum_ratio`, and both at the first crossings of the train loss and at the minimum, the record with the least
    selection loss. In between a call costs next to nothing, and `is_due` says when losses are worth computing.

        recorder = ntklens.Recorder(apply, params, probe=x, config={"model.width": 64, "seed": 3})
        for step in range(1001):
            recorder(step, params, train_loss=train_loss(params), test_loss=test_loss(params))
            params, opt_state = update(params, opt_state)
        recorder.save("multirun/mine")

    `ntklens.load("multirun/mine")` and `task=report name=mine` take what is saved like any other results.

    Args:
        apply: function f(params, x) → outputs [N, C] that treats samples apart, or a `flax.linen.Module`. What changes
            in training stands in `params`, state such as running means included; what is a parameter:
            `ntklens.ntk.layers`.
        params: the parameters before the first update; not changed, and copied.
        probe: inputs [N, ...] at which the kernel is measured, the same for all networks that are compared.
        config: what tells this network from others, by the names of ntklens' overrides where there is one
            (`model.width`, `model.depth`, `dataset.train_size`, `optimizer.learning_rate`), and its `seed`, 0 if
            absent. Of trajectories in one folder, settings that differ become axes.
        steps_per_epoch: updates per pass over the training set.
        record_ratio: largest factor between the updates of neighbouring records, as far as there are calls.
        spectrum_ratio: smallest factor between the updates at which spectra are measured.

    Raises:
        InputError: if f does not return [N, C], mixes samples, or does not depend on `params`; if a label is no plain
            value.
    """

    def __init__(
        self,
        apply: Function,
        params: Params,
        *,
        probe: Any,
        config: Mapping[str, Any] | None = None,
        steps_per_epoch: int = 1,
        record_ratio: float = 1.08,
        spectrum_ratio: float = 3.0,
    ) -> None:
        self._apply = apply
        self._config, self._seed = _read_labels(config or {})
        for name, value, least in (
            ("steps_per_epoch", steps_per_epoch, 1),
            ("record_ratio", record_ratio, 1.0),
            ("spectrum_ratio", spectrum_ratio, 1.0),
        ):
            if not isinstance(value, int | float) or not least <= value < math.inf:
                raise InputError(f"{name}={value!r}: must be a number, at least {least}")
        self._steps_per_epoch = steps_per_epoch
        self._record_ratio, self._spectrum_ratio = record_ratio, spectrum_ratio
        try:
            check_function(apply, params, probe)
        except ValueError as error:
            raise InputError(f"Recorder(apply, params, probe=…): {error}") from error
        self._probe = jnp.asarray(probe)
        self._measurer = Measurer(_Apply(apply), _refuse_loss, given=GIVEN)
        self._workers = SpectrumWorkers(at_once=False)
        self._core = self._begin(_stack(params))
        self._next_record = self._next_spectrum = 0.0
        self._latest: tuple[int, Params, dict[str, Any]] | None = None
        self._chooser = ""  # the name of the loss that chooses the minimum
        self._started = time.monotonic()
        self._saved: dict[Path, tuple[int, int]] = {}

    @_check_names
    def __call__(
        self,
        step: int,
        params: Params,
        *,
        train_loss: Any,
        test_loss: Any,
        selection_loss: Any = None,
        train_accuracy: Any = None,
        test_accuracy: Any = None,
    ) -> None:
        """Record the network after `step` updates, if that is due.

        A loss that is not finite ends the trajectory: the run has diverged, and later calls do nothing.

        Args:
            step: updates done, 0 before the first; larger at each call.
            params: the parameters now, a tree like the first.
            train_loss: mean loss over the training set.
            test_loss: mean loss over test samples.
            selection_loss: mean loss over other samples than those of `test_loss`, which chooses the minimum; None:
                `test_loss` chooses it, and is then a little too low there, as the least of many noisy numbers.
            train_accuracy: fraction of the training set classified correctly; NaN if not known.
            test_accuracy: that of the samples of `test_loss`.

        Raises:
            InputError: if the first `step` is not 0 or a later one does not increase, a value is no number, is missing
                or has another name, `params` are not like the first, or `apply` has changed.
        """
        number = self._check_step(step)
        if self.diverged:
            return
        values = (train_loss, selection_loss, test_loss, train_accuracy, test_accuracy)
        call = number, params, dict(zip(GIVEN, values, strict=True))
        if self.is_due(number):
            self._record(*call)
        self._latest = call

    @property
    def diverged(self) -> bool:
        """Whether a loss was not finite: nothing more is recorded."""
        return not self._core.active[0]

    def is_due(self, step: int) -> bool:
        """Return whether a call after `step` updates would be recorded; the last one before `save` is in any case."""
        return not self.diverged and step >= self._next_record

    def save(self, folder: str | Path, replace: bool = False) -> Path:
        """Write the trajectory, whole or not at all; training may go on, and save again.

        The last call is recorded, and its spectrum measured. The file is `<folder>/<run>/seed=<k>/trajectory.nc`, the
        run named after the labels of `config`.

        Args:
            folder: of the sweep that the trajectory belongs to, such as `multirun/mine`.
            replace: whether it may take the place of another recorder's trajectory with the same labels and seed.

        Returns:
            The file.

        Raises:
            InputError: if there is nothing to save, if the folder has a trajectory with these labels and this seed
                that another recorder saved, or cannot be written.
        """
        if self._latest is None:
            raise InputError(f"save: nothing was recorded; call {EXAMPLE} first")
        key = hash_identity({"recorder": "own loop", "config": self._config})
        run = Path(folder) / _name_run(self._config, key)
        path = find_seed_directory(run, self._seed) / FILE_NAME
        mine = path.exists() and self._saved.get(path.absolute()) == _identify(path)
        if path.exists() and not mine and not replace:
            raise InputError(
                f"{path}: another trajectory with these labels; give each network labels or a seed of its own, "
                f"config={{'seed': {self._seed + 1}}}, or save(folder, replace=True)"
            )
        trajectory = self._build(key)
        try:
            if path.exists():
                with replacing(path) as temporary:
                    temporary.write_bytes(encode_trajectory(trajectory))
            elif not publish_trajectory(trajectory, path.parent):
                raise InputError(f"{path}: another trajectory with these labels was saved just now; save again")
            finish_seed(path.parent, trajectory)
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror})") from error
        self._saved[path.absolute()] = _identify(path)
        return path

    def _begin(self, initial: Params) -> EnsembleRecorder:
        """Return a recorder of an ensemble of one that begins with these stacked parameters."""
        nothing = (self._probe[:0], jnp.zeros(0, int))
        data = DeviceData(nothing, nothing, nothing, self._probe, jnp.zeros(len(self._probe), int))
        steps, spectra = np.zeros(0, int), np.zeros(0, bool)
        return EnsembleRecorder(
            self._measurer, data, initial, steps, spectra, self._steps_per_epoch, None, self._workers
        )

    def _check_step(self, step: Any) -> int:
        try:
            number = operator.index(step)
        except TypeError:
            raise InputError(f"recorder({step!r}, …): the number of updates done must be an integer") from None
        if number < 0:
            raise InputError(f"recorder({number}, …): the number of updates done must not be negative")
        if self._latest is None and number:
            raise InputError(
                f"recorder({number}, …): the first call must be before the first update, recorder(0, params, …): all "
                "changes of the kernel are measured from there"
            )
        if self._latest is not None and number <= self._latest[0]:
            raise InputError(
                f"recorder({number}, …): updates must increase, and the call before was at {self._latest[0]}"
            )
        return number

    def _record(self, step: int, params: Params, values: Mapping[str, Any]) -> None:
        given = {
            name: _read_number(name, value, step)
            for name, value in values.items()
            if value is not None or name in ("train_loss", "test_loss")
        }
        chooser = "selection_loss" if "selection_loss" in given else "test_loss"
        if self._chooser not in ("", chooser):
            raise InputError(f"recorder({step}, …): selection_loss must be given at every call, or never")
        given.setdefault("selection_loss", given["test_loss"])
        stacked = self._stack_like(params, step)
        core = self._core
        if not self._chooser and not _are_equal(self._apply, core.initial, stacked):
            warnings.warn(
                f"recorder({step}, …): the first call has other parameters than Recorder(apply, params) had: they are "
                "taken for the initial ones",
                stacklevel=3,
            )
            core = self._core = self._begin(stacked)
        self._chooser = chooser
        spectrum = step >= self._next_spectrum
        core.steps, core.spectra = np.append(core.steps, step), np.append(core.spectra, spectrum)
        measured = core.record(len(core.steps) - 1, stacked, {name: np.array([value]) for name, value in given.items()})
        self._check_apply(params, float(measured["logit_norm"][0]), step)
        self._next_record = max(step + 1, int(self._record_ratio * step))
        if spectrum:
            self._next_spectrum = max(step + 1, self._spectrum_ratio * step)

    def _stack_like(self, params: Params, step: int) -> Params:
        """Return parameters with a leading axis of one, which must be like the first ones."""
        stacked = _stack(params)
        first = self._core.initial
        trees: list[Any] = [jax.tree.structure(stacked), jax.tree.structure(first)]
        arrays = [[(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)] for tree in (stacked, first)]
        if trees[0] != trees[1] or arrays[0] != arrays[1]:
            raise InputError(
                f"recorder({step}, …): params are no tree of the same arrays as in Recorder(apply, params)"
            )
        return stacked

    def _check_apply(self, params: Params, measured: float, step: int) -> None:
        """Refuse a function that is no longer the one that was compiled: what it closes over has changed."""
        with jax.default_matmul_precision(PRECISION):
            logits = call_function(self._apply, params, self._probe)
        now = float(jnp.sqrt(jnp.mean(jnp.sum(jnp.square(logits.astype(float)), axis=-1))))
        tolerance = math.sqrt(jnp.finfo(logits.dtype).eps)
        if math.isfinite(now) and math.isfinite(measured) and abs(now - measured) > tolerance * max(now, measured):
            raise InputError(
                f"recorder({step}, …): apply(params, x) has changed since the first call, by something that it closes "
                "over; put that into params (state of flax.nnx: the whole nnx.state of the model)"
            )

    def _build(self, key: str) -> xr.Dataset:
        """Record the last call, measure what is left to measure, and return the trajectory."""
        assert self._latest is not None
        step, params, _ = self._latest
        alive = not any(isinstance(leaf, jax.Array) and leaf.is_deleted() for leaf in jax.tree.leaves(params))
        if alive and not self.diverged:  # a later update may have taken the memory of its parameters
            if step != self._core.steps[-1]:
                self._record(*self._latest)
            self._core.measure_last(_stack(params))
        core = self._core
        (records, minimum, crossings), *_ = core.finish()
        parameters = sum(leaf.size for leaf in _select_parameters(self._apply, core.initial))
        attributes = {
            "seed": self._seed,
            **core.describe_member(0),
            **describe_environment(),
            "training": f"a loop of its own, recorded by ntklens.Recorder; minimum of {self._chooser}",
            "config": self._config,
            "run_key": key,
            "N": len(self._probe),
            "C": records["eigenvalues"].shape[-1] // len(self._probe),
            **describe_inputs(self._probe),
            "parameters": parameters,
            "packed_seeds": [self._seed],
            "seconds": time.monotonic() - self._started,
        }
        return build_trajectory(records, minimum, crossings, core.layers, attributes)


class _Apply:
    """A function that is the same program wherever it is the same function, hashable or not."""

    def __init__(self, function: Function) -> None:
        self.__wrapped__ = function

    def __call__(self, params: Params, x: jax.Array) -> jax.Array:
        return call_function(self.__wrapped__, params, x)

    @functools.cached_property
    def _hash(self) -> int | None:
        try:
            return hash(self.__wrapped__)
        except TypeError:
            return None

    def __hash__(self) -> int:
        return id(self.__wrapped__) if self._hash is None else self._hash

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Apply):
            return False
        if self.__wrapped__ is other.__wrapped__:
            return True
        return self._hash is not None and self._hash == other._hash and bool(self.__wrapped__ == other.__wrapped__)


def _refuse_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    raise AssertionError("losses are given")


def _stack(params: Params) -> Params:
    """Return a copy with a leading axis of one member."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], params)


def _select_parameters(apply: Function, params: Params) -> list[jax.Array]:
    leaves = jax.tree.leaves(params)
    return [leaves[number] for members in name_layers(apply, params).values() for number in members]


def _are_equal(apply: Function, first: Params, second: Params) -> bool:
    pairs = zip(_select_parameters(apply, first), _select_parameters(apply, second), strict=True)
    return all(bool(jnp.array_equal(a, b, equal_nan=True)) for a, b in pairs)


def _read_number(name: str, value: Any, step: int) -> float:
    try:
        if value is not None:
            return np.asarray(value, np.float64).item()
        raise TypeError
    except (TypeError, ValueError):
        shape = list(np.shape(value)) if hasattr(value, "shape") else type(value).__name__
        raise InputError(f"recorder({step}, …): {name} must be one number, not {shape}") from None


def _read_labels(config: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """Return the labels as a nested configuration of plain values without the seed, and the seed."""
    flat = {str(name): _read_label(str(name), value) for name, value in flatten_config(dict(config)).items()}
    seed = flat.pop("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InputError(f"config: seed={seed!r} must be an integer, at least 0")
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        if is_not_identity(name):
            raise InputError(f"config: {name} is no setting that tells networks apart; choose another name")
        *groups, leaf = name.split(".")
        node = nested
        for group in groups:
            node = node.setdefault(group, {})
            if not isinstance(node, dict):
                raise InputError(f"config: {name} and {group} cannot both be labels")
        if isinstance(node.get(leaf), dict):
            raise InputError(f"config: {name} cannot be a label and a group of labels")
        node[leaf] = value
    return nested, seed


def _read_label(name: str, value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray | jax.Array) and np.ndim(value) == 0:
        value = value.item()
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise InputError(
            f"config: {name}={value!r} must be a number, a text, a boolean, None or a list of such"
        ) from None
    return value


def _name_run(config: Mapping[str, Any], key: str) -> str:
    """Return the run's directory name: its labels, then eight digits of the key."""
    words = [f"{name.rpartition('.')[2]}={value}" for name, value in flatten_config(dict(config)).items()]
    return re.sub(r"[^\w.=+-]", "_", "-".join(["own", *words]))[:NAME_LENGTH] + f"-{key[:8]}"


def _identify(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns
