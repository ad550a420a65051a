"""What a seed computes over its whole schedule, from what its programs take once; before anything is compiled."""

import math
from typing import Any

from ntklens.jobs.needs import Needs
from ntklens.sweep.cost import Workload
from ntklens.training.memory import count_bytes

SNAPSHOTS = 2 + 3  # start and minimum, crossings


def count_workload(needs: Needs, updates: int, records: int, spectra: int) -> Workload:
    """Count what one seed does.

    Args:
      needs: what its programs take.
      updates: updates.
      records: how often losses and traces are measured.
      spectra: how often the spectrum is measured on the way.

    Returns:
      The counts; the eigenvalues of a kernel, and of each layer's share at the snapshots, take 4/3 (N·C)³.
    """
    samples, classes = needs.shares[0].shape[:2]
    layers = max(1, len(needs.shares) - 1)  # a readout's spectrum is that of its samples
    eigenproblems = spectra + SNAPSHOTS * (1 + layers) + 2
    return Workload(
        training=needs.calls["update"].effort * updates,
        kernels=records * needs.calls["record"].effort + (spectra + SNAPSHOTS) * needs.calls["kernel"].effort,
        spectra=eigenproblems * 4 / 3 * float(samples * classes) ** 3,
        updates=updates,
        records=records,
    )


def count_checkpoint_bytes(needs: Needs, records: int, kernels: int = 0) -> int:
    """Return the bytes of a checkpoint: parameters twice, the optimiser's state, the records so far, kept kernels."""
    modes = math.prod(needs.shares[0].shape[:2])
    kept: Any = 2 * count_bytes(needs.params) + count_bytes(needs.opt_state)
    return kept + 4 * (records * (modes + 64) + kernels * modes**2)
