"""Operations counted from a model's program, bytes from its shapes; before anything is compiled."""

from typing import Any

import jax
import numpy as np

from ntklens.sweep.cost import Workload
from ntklens.training.memory import count_bytes


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


def count_checkpoint_bytes(params: Any, opt_state: Any, records: int, modes: int, kernels: int = 0) -> int:
    """Return the bytes of a checkpoint: parameters twice, the optimiser's state, the records so far, kept kernels."""
    return 2 * count_bytes(params) + count_bytes(opt_state) + 4 * (records * (modes + 64) + kernels * modes**2)
