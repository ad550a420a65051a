"""Digits: 1797 handwritten digits of 8 × 8 pixels that ship inside scikit-learn; nothing is downloaded."""

import hashlib

import numpy as np

from ntklens.data.dataset import Dataset
from ntklens.data.split import Pool, build_dataset

TRAINING_IMAGES = 1000
# The published order groups the writers, so two halves of it are of different difficulty. Steps of the golden section
# (1111 / 1797, without a common factor) spread every block of the new order over all writers.
STRIDE = 1111


def load(
    *,
    root: str | None = None,
    train_size: int | None = 200,
    test_size: int | None = None,
    probe_size: int = 128,
    data_seed: int | None = None,
    standardize: bool = False,
    name: str = "digits",
) -> Dataset:
    """Load the digits, in a fixed order that mixes the writers: 1000 to train on, 797 held out. Inputs are pixel/16.

    Args:
        root: unused; every dataset of images takes it.
        train_size: number of training samples; None means all 1000.
        test_size: number of test samples, both halves together; None means all that the probe leaves.
        probe_size: number of samples the kernel is measured on.
        data_seed: None takes the first `train_size` samples; a number takes a random, class-balanced subset.
        standardize: subtract the mean and divide by the standard deviation (scalars) of the training subset.
        name: name in messages and results.

    Returns:
        Dataset with inputs [n, 8, 8, 1] and 10 classes.

    Raises:
        InputError: a value that is no such number, or asks for more than there is.

    Source: E. Alpaydin, C. Kaynak (1998), Optical Recognition of Handwritten Digits, UCI; the copy in scikit-learn.
    """
    import sklearn
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    order = np.arange(len(labels)) * STRIDE % len(labels)
    images = pixels[order].astype(np.uint8).reshape(-1, 8, 8, 1)
    labels = labels[order].astype(np.uint8)
    return build_dataset(
        name=name,
        train=Pool(images[:TRAINING_IMAGES], labels[:TRAINING_IMAGES]),
        held_out=Pool(images[TRAINING_IMAGES:], labels[TRAINING_IMAGES:]),
        classes=10,
        scale=16,
        train_size=train_size,
        test_size=test_size,
        probe_size=probe_size,
        data_seed=data_seed,
        standardize=standardize,
        source={
            "source": f"scikit-learn {sklearn.__version__}, load_digits",
            "files": {"load_digits": hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()},
        },
    )
