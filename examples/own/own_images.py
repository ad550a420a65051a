"""Images of one's own, from an .npz file that holds `images` [n, height, width, channels] and `labels` [n]."""

import hashlib
from pathlib import Path
from typing import Unpack

import numpy as np

from ntklens.data import Dataset, Pool, SplitOptions, build_dataset


def load(
    *, path: str = "images.npz", name: str = "images", held_out: int = 400, **options: Unpack[SplitOptions]
) -> Dataset:
    """Load labelled images; the last of them are held out.

    Args:
        path: of the .npz file.
        name: name in messages and results.
        held_out: number of images that are not trained on.
        **options: which samples to take, see `ntklens.data.SplitOptions`.
    """
    with np.load(path) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    train, rest = slice(None, len(labels) - held_out), slice(len(labels) - held_out, None)
    checksum = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return build_dataset(
        name=name,
        train=Pool(images[train], labels[train]),
        held_out=Pool(images[rest], labels[rest]),
        classes=int(labels.max()) + 1,
        scale=1.0,
        source={"source": path, "files": {Path(path).name: checksum}},
        **options,
    )
