"""Digits: 1797 handwritten digits of 8 × 8 pixels that ship inside scikit-learn; nothing is downloaded."""

import gzip
import hashlib
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Unpack

import numpy as np

from ntklens.data.dataset import Dataset
from ntklens.data.split import Pool, SplitOptions, build_dataset, complete_options

TRAINING_IMAGES = 1000
# The published order groups the writers, so two halves of it are of different difficulty. Steps of the golden section
# (1111 / 1797, without a common factor) spread every block of the new order over all writers.
STRIDE = 1111


def load(
    *,
    root: str | None = None,
    name: str = "digits",
    input_dim: int | None = None,
    **options: Unpack[SplitOptions],
) -> Dataset:
    """Load the digits, in a fixed order that mixes the writers: 1000 to train on, 797 held out. Inputs are pixel/16.

    Args:
        root: unused; every dataset of images takes it.
        name: name in messages and results.
        input_dim: dimension of the inputs, see `dimension.change_dimension`; None leaves images as they are.
        **options: see `SplitOptions`; by default 200 training samples.

    Returns:
        Dataset with inputs [n, 8, 8, 1], or [n, input_dim], and 10 classes.

    Raises:
        InputError: a value that is no such number, or asks for more than there is.

    Source: E. Alpaydin, C. Kaynak (1998), Optical Recognition of Handwritten Digits, UCI; the copy in scikit-learn.
    """
    pixels, labels = _read()
    order = np.arange(len(labels)) * STRIDE % len(labels)
    images = pixels[order].astype(np.uint8).reshape(-1, 8, 8, 1)
    labels = labels[order].astype(np.uint8)
    return build_dataset(
        name=name,
        train=Pool(images[:TRAINING_IMAGES], labels[:TRAINING_IMAGES]),
        held_out=Pool(images[TRAINING_IMAGES:], labels[TRAINING_IMAGES:]),
        classes=10,
        scale=16,
        source={
            "source": f"scikit-learn {version('scikit-learn')}, load_digits",
            "files": {"load_digits": hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()},
        },
        input_dim=input_dim,
        **complete_options(options, train_size=200),
    )


def _read() -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels [1797, 64] and labels [1797] of scikit-learn's file; its own loader takes 2 s to import."""
    found = find_spec("sklearn")
    file = Path(found.origin if found and found.origin else "").parent / "datasets" / "data" / "digits.csv.gz"
    if file.is_file():
        with gzip.open(file, "rt") as lines:
            table = np.loadtxt(lines, delimiter=",", dtype=np.uint8)
        return table[:, :-1], table[:, -1]
    from sklearn.datasets import load_digits

    return load_digits(return_X_y=True)
