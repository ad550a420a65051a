"""Small training problems that several tests share."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from ntklens.data import Dataset, Split
from ntklens.models.mlp import MLP
from ntklens.training.ensemble import Trainer
from ntklens.training.losses import LOSSES


def make_dataset(
    train_size: int = 32, test_size: int = 40, probe_size: int = 12, dim: int = 9, classes: int = 3
) -> Dataset:
    """Gaussian inputs labelled by a linear teacher."""
    generator = np.random.default_rng(0)
    teacher = generator.standard_normal((dim, classes))

    def draw(size: int) -> Split:
        inputs = generator.standard_normal((size, dim)).astype(np.float32)
        return Split(inputs, np.argmax(inputs @ teacher, axis=1).astype(np.int32))

    half = test_size // 2
    return Dataset(
        "teacher", draw(train_size), draw(half), draw(test_size - half), draw(probe_size), classes, {"checksum": ""}
    )


def make_problem(
    width: int = 16,
    depth: int = 2,
    loss: str = "cross_entropy",
    optimizer: Callable[[Any], optax.GradientTransformation] = optax.adam,
    batch_size: int | None = None,
    **dataset: int,
) -> tuple[Trainer, Dataset]:
    data = make_dataset(**dataset)
    model = MLP(width, depth, data.classes)
    sample = jnp.asarray(data.probe.inputs[:1])
    trainer = Trainer(lambda key: model.init(key, sample), model.apply, LOSSES[loss], optimizer, batch_size)
    return trainer, data
