"""What a unit costs: operations counted from the model's program, bytes from its shapes; before anything is compiled.

Seconds are operations over rates that were measured on two cores of one machine; a sweep corrects them by what its own
finished units took (`plan.calibrate`).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from ntklens.training.memory import MemoryNeed, count_bytes

# Operations per second of one core, float32, and seconds per call; measured by benchmarks/estimates.py.
TRAINING_RATE, KERNEL_RATE, SPECTRUM_RATE = 15e9, 30e9, 45e9
UPDATE_SECONDS, RECORD_SECONDS = 6e-5, 2e-3
START_SECONDS = 4.0  # of a pack: tracing, compiling or reading the cache, publishing


class Workload(NamedTuple):
    """Counted operations of one seed, and how often it is looked at."""

    training: float
    kernels: float
    spectra: float
    updates: int
    records: int

    def estimate_seconds(self, members: int, cores: int) -> float:
        """Return the seconds of a pack of `members` seeds on `cores` cores."""
        operations = self.training / TRAINING_RATE + self.kernels / KERNEL_RATE + self.spectra / SPECTRUM_RATE
        calls = self.updates * UPDATE_SECONDS + self.records * RECORD_SECONDS
        return START_SECONDS + calls + members * operations / cores


class Cost(NamedTuple):
    """What a configuration needs.

    Attributes:
      workload: operations of one seed.
      memory: bytes, shared and per member of a pack.
      pack: members that train together at most for speed's sake; None: as many as fit.
      checkpoint: bytes of one seed's checkpoint.
    """

    workload: Workload
    memory: MemoryNeed
    pack: int | None
    checkpoint: int


def count_operations(apply: Any, params: Any, sample: jax.ShapeDtypeStruct) -> float:
    """Return the multiplications and additions of f for one sample: 2 per term of every product, 1 per other result.

    Args:
      apply: (parameters, inputs (1, …)) → logits (1, C).
      params: parameters or their shapes.
      sample: one input, shape (1, …).
    """
    return _count_jaxpr(jax.make_jaxpr(apply)(params, sample).jaxpr)


def _count_jaxpr(jaxpr: Any) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        inner = [value for value in equation.params.values() if hasattr(value, "eqns") or hasattr(value, "jaxpr")]
        if inner:
            repeats = equation.params.get("length", 1)
            total += repeats * sum(_count_jaxpr(getattr(value, "jaxpr", value)) for value in inner)
            continue
        size = sum(variable.aval.size for variable in equation.outvars)
        if equation.primitive.name == "dot_general":
            ((contracted, _), _) = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += 2.0 * size * float(np.prod([shape[axis] for axis in contracted]))
        elif equation.primitive.name == "conv_general_dilated":
            kernel = equation.invars[1].aval
            outputs = kernel.shape[equation.params["dimension_numbers"].rhs_spec[0]]
            total += 2.0 * size * kernel.size / outputs
        else:
            total += size
    return total


def count_workload(
    forward: float,
    params: Any,
    outputs: tuple[int, int],
    batch: int,
    updates: int,
    records: int,
    spectra: int,
    evaluated: int,
) -> Workload:
    """Count what one seed does.

    Args:
      forward: operations of f for one sample.
      params: parameters or their shapes.
      outputs: probe samples N and logits C.
      batch: samples per update.
      updates: updates.
      records: how often losses and traces are measured.
      spectra: how often the spectrum is measured on the way.
      evaluated: training and held-out samples that a record's losses are of.

    Returns:
      The counts: a gradient is three times a forward pass, a kernel one forward and C backward passes of the probe and
      two Gram matrices per layer, eigenvalues 4/3 (N·C)³.
    """
    probe, classes = outputs
    size = probe * classes
    shapes = [leaf.shape for leaf in jax.tree.leaves(params) if len(leaf.shape) >= 2]
    grams = sum(2.0 * (probe**2 * np.prod(shape[:-1]) + size**2 * shape[-1]) for shape in shapes)
    passes = forward * probe * (1 + 2 * classes)
    snapshots = 2 + 3  # start and minimum, crossings
    layers = max(1, len(shapes) - 1)  # a readout's spectrum is that of its samples
    eigenproblems = spectra + snapshots * (1 + layers) + 2
    return Workload(
        training=3.0 * forward * batch * updates,
        kernels=records * (forward * evaluated + passes) + (spectra + snapshots) * (passes + grams),
        spectra=eigenproblems * 4 / 3 * float(size) ** 3,
        updates=updates,
        records=records,
    )


def count_checkpoint_bytes(params: Any, opt_state: Any, records: int, modes: int) -> int:
    """Return the bytes of a checkpoint: parameters twice, the optimiser's state, and the records so far."""
    return 2 * count_bytes(params) + count_bytes(opt_state) + 4 * records * (modes + 64)


def choose_equal_parts(total: int, largest: int) -> list[int]:
    """Return sizes of parts that sum to `total`, none above `largest`, as equal as can be."""
    parts = -(-total // largest)
    return [total // parts + (index < total % parts) for index in range(parts)]


def split_evenly(items: Sequence[int], largest: int) -> list[list[int]]:
    """Cut items into runs of almost equal length, none above `largest`."""
    cut, first = [], 0
    for size in choose_equal_parts(len(items), largest):
        cut.append(list(items[first : first + size]))
        first += size
    return cut
