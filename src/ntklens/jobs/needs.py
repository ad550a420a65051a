"""What one member of a configuration takes, counted from the very programs that train and measure it.

The programs are traced from shapes, as JAX traces them before it compiles: nothing is compiled or computed, no device
is asked for, and a count follows the engine, the quantities and the optimizer that a configuration names.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ntklens.recording.measure import DeviceData, Measurer, measure_records
from ntklens.recording.quantities import HESSIAN, OPTIMIZER, PREVIOUS, REGRESSION, START, WEIGHTED, list_needs
from ntklens.recording.spectra import compute_averaged_kernel, compute_member_kernels, compute_weighted_kernel
from ntklens.training.curvature import multiply_once
from ntklens.training.ensemble import Trainer, advance
from ntklens.training.footprint import Footprint, count_function
from ntklens.training.memory import MemoryNeed, count_bytes

PACKED = ("update", "record")  # of all members of a pack together; other programs are of one
# Kernels of the size of Θ beside those being computed: on two cores four wait for their spectrum, two of them copied to
# float64.
WAITING_KERNELS = 8


class Sizes(NamedTuple):
    """Numbers of samples: to train on, of the two halves held out, and N of the kernel."""

    train: int
    selection: int
    test: int
    probe: int


class Program(NamedTuple):
    """A compiled function of a run, the shapes of its arguments, and the numbers of those that it donates."""

    function: Callable[..., Any]
    arguments: tuple
    donated: tuple[int, ...] = ()

    def count_call(self, repeat: bool = True) -> Footprint:
        """Count what a call takes; `repeat` as in `count_function`."""
        return count_function(self.function, *self.arguments, donated=self.donated, repeat=repeat)


class Needs(NamedTuple):
    """What one member takes.

    Attributes:
      params: shapes of its parameters.
      opt_state: shapes of its optimiser's state.
      calls: of each of `list_programs`, what a call takes.
      shares: shapes of each layer's share of Θ.
    """

    params: Any
    opt_state: Any
    calls: dict[str, Footprint]
    shares: tuple[jax.ShapeDtypeStruct, ...]

    def estimate_memory(self, sample: jax.ShapeDtypeStruct, sizes: Sizes, metrics: tuple[str, ...] = ()) -> MemoryNeed:
        """Return the bytes that training and measuring hold at their peak; kernels are computed while training goes on.

        Args:
          sample: shape and dtype of one input.
          sizes: numbers of samples.
          metrics: the optional quantities that are switched on.

        Returns:
          Shared bytes (data, what is computed of one member at a time, kernels that wait for their spectrum) and bytes
          per member (parameters now, at the start and at the minimum, optimiser, kernels that are kept, and an update
          or a record, whichever is larger).
        """
        theta = count_bytes(self.shares[0])
        single = [count.results + count.temporaries for name, count in self.calls.items() if name not in PACKED]
        update, record = (self.calls[name].temporaries for name in PACKED)
        shared = sum(sizes) * (count_bytes([sample]) + 4) + max(single) + WAITING_KERNELS * theta
        kept = 3 * count_bytes(self.params) + count_bytes(self.opt_state)
        kept += len(list_needs(metrics) & {START, PREVIOUS}) * theta
        return MemoryNeed(shared, kept + max(update, record))


def list_programs(
    trainer: Trainer,
    measurer: Measurer,
    sample: jax.ShapeDtypeStruct,
    sizes: Sizes,
    probes: int = 1,
    members: int = 1,
    curvature: bool = False,
) -> dict[str, Program]:
    """Return the programs of a run: update, record and kernel, and those that quantities need beside them.

    Args:
      trainer: what trains.
      measurer: what measures.
      sample: shape and dtype of one input.
      sizes: numbers of samples.
      probes: number of probes.
      members: how many train together; kernels and curvature are of one.
      curvature: whether products with the Hessian of the train loss are due, beside those that a quantity needs.
    """
    params, opt_state = _describe_state(trainer)
    key = jax.eval_shape(lambda: jax.random.key(0))
    number, scalar = jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct((), jnp.zeros(()).dtype)
    needs = list_needs(measurer.metrics)

    def stack(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((members, *leaf.shape), leaf.dtype), tree)

    def pair(count: int) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
        return jax.ShapeDtypeStruct((count, *sample.shape), sample.dtype), jax.ShapeDtypeStruct((count,), jnp.int32)

    splits: list[Any] = [pair(count) for count in sizes]
    inputs, labels = splits[3]
    data = DeviceData(splits[0], splits[1], splits[2], inputs, labels, (inputs,) * (probes - 1))
    pack, states = stack(params), stack(opt_state)
    update = (pack, states, stack(key), stack(scalar), number, number, *data.train)
    record = (pack, pack, data, states if OPTIMIZER in needs else None)
    programs = {
        "update": Program(functools.partial(advance, trainer=trainer), update, (0, 1)),
        "record": Program(functools.partial(measure_records, measurer=measurer), record),
        "kernel": Program(functools.partial(compute_member_kernels, measurer=measurer), (pack, number, inputs)),
    }
    if WEIGHTED in needs and measurer.rates is not None:
        programs["weighted"] = Program(
            functools.partial(compute_weighted_kernel, measurer=measurer), (pack, number, inputs)
        )
    if HESSIAN in needs or curvature:
        multiply = functools.partial(multiply_once, apply=trainer.apply, loss=trainer.loss)
        programs["curvature"] = Program(multiply, (params, params, scalar, params, *data.train))
    if REGRESSION in needs:
        average = functools.partial(compute_averaged_kernel, measurer=measurer)
        programs["regression"] = Program(average, (params, data.train[0], data.train[0]))
    return programs


def _describe_state(trainer: Trainer) -> tuple[Any, Any]:
    params = jax.eval_shape(trainer.init, jax.random.key(0))
    return params, jax.eval_shape(trainer.optimizer(0.0).init, params)


@functools.lru_cache(maxsize=16)
def count_needs(
    trainer: Trainer,
    measurer: Measurer,
    sample: jax.ShapeDtypeStruct,
    sizes: Sizes,
    probes: int = 1,
    curvature: bool = False,
) -> Needs:
    """Count what one member takes; the arguments are those of `list_programs`."""
    programs = list_programs(trainer, measurer, sample, sizes, probes, curvature=curvature)
    counts = {name: program.count_call() for name, program in programs.items()}
    kernel = programs["kernel"]
    shares = jax.tree.leaves(jax.eval_shape(kernel.function, *kernel.arguments))
    params, opt_state = _describe_state(trainer)
    return Needs(params, opt_state, counts, tuple(shares))
