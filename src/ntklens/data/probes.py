"""Further probes: disjoint sets of held-out samples beside the probe, on which the kernel is measured too."""

import numpy as np

from ntklens.data.dataset import Dataset
from ntklens.errors import InputError


def choose_probes(dataset: Dataset, count: int) -> list[np.ndarray]:
    """Return the inputs of the probes 2 … `count`, each of as many samples as the probe.

    They are the test samples in order, those of the half that reports the loss first, without samples that equal one of
    the probe. A kernel takes no label, so the losses are as good as before.

    Args:
        dataset: the probe, and the test halves.
        count: how many probes there are, the first included.

    Returns:
        Arrays [N, …], `count` − 1 of them.

    Raises:
        InputError: if there are too few samples.
    """
    if count == 1:
        return []
    size = len(dataset.probe)
    seen = {sample.tobytes() for sample in dataset.probe.inputs}
    pool = np.concatenate([dataset.test.inputs, dataset.selection.inputs])
    left = pool[[sample.tobytes() not in seen for sample in pool]]
    if (count - 1) * size > len(left):
        raise InputError(
            f"ntk.probes={count}: {count} × dataset.probe_size={size} = {count * size} samples, and the probe and the "
            f"test samples are {size + len(left)}; lower ntk.probes or dataset.probe_size, or raise dataset.test_size"
        )
    return [left[number * size : (number + 1) * size] for number in range(count - 1)]
