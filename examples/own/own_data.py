"""A dataset of one's own: a function that returns a `ntklens.data.Dataset`."""

from typing import Unpack

import numpy as np

from ntklens.data import Dataset, Pool, SplitOptions, build_dataset


def load(
    *, rings: int = 3, noise: float = 0.1, samples: int = 1000, name: str = "rings", **options: Unpack[SplitOptions]
) -> Dataset:
    """Draw points in the plane on concentric rings, one class each.

    Args:
        rings: number of rings.
        noise: standard deviation of the radius, where neighbouring rings lie 1 apart.
        samples: number of samples to train on at most, and as many held out.
        name: name in messages and results.
        **options: which samples to take: train_size, test_size, probe_size, probe_seed, data_seed,
            standardize.
    """
    generator = np.random.default_rng(0)

    def draw() -> Pool:
        labels = generator.integers(rings, size=samples)
        radius = 1 + labels + noise * generator.standard_normal(samples)
        angle = generator.uniform(0, 2 * np.pi, samples)
        return Pool(np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1), labels)

    return build_dataset(
        name=name,
        train=draw(),
        held_out=draw(),
        classes=rings,
        scale=1.0,
        source={"source": f"{rings} rings, noise {noise}", "files": {}},
        **options,
    )
