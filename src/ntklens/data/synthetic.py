"""Synthetic: Gaussian inputs labelled by a random teacher network; as many as asked for, of any dimension."""

import itertools
from typing import Unpack

import numpy as np

from ntklens.data.dataset import Dataset
from ntklens.data.split import Pool, SplitOptions, check_positive, check_seed, complete_options
from ntklens.data.stream import Source, draw_dataset
from ntklens.errors import InputError

CENTRING_SAMPLES = 8192


class Teacher:
    """A random ReLU network whose largest standardised output is the label.

    label(x) = argmax_c [f_c(x) − E f_c] / sd f_c, f(x) = W_L φ(… φ(W_1 x + b_1) …), φ = relu, W_l ~ N(0, 2 / fan_in),
    b_l ~ N(0, 1). Mean and deviation are taken over a fixed sample of inputs: without them a few classes would take
    nearly all.

    Args:
        input_dim: dimension d of the inputs.
        classes: number of classes C.
        width: units of each hidden layer.
        depth: number of hidden layers.
        generator: draws the weights, then the inputs for mean and deviation.

    Raises:
        InputError: no unit of the last hidden layer is ever active, so that all outputs are constant.
    """

    def __init__(self, input_dim: int, classes: int, width: int, depth: int, generator: np.random.Generator) -> None:
        widths = [input_dim, *[width] * depth, classes]
        self._layers = [
            (generator.normal(scale=np.sqrt(2 / fan_in), size=(fan_in, fan_out)), generator.normal(size=(1, fan_out)))
            for fan_in, fan_out in itertools.pairwise(widths)
        ]
        self._mean, self._deviation = np.zeros((1, classes)), np.ones((1, classes))
        logits = self.compute_logits(generator.standard_normal((CENTRING_SAMPLES, input_dim)))
        self._mean, self._deviation = logits.mean(axis=0, keepdims=True), logits.std(axis=0, keepdims=True)
        if self._deviation.min() < 1e-9:
            raise InputError(
                f"dataset.teacher_width={width}: the outputs of the teacher are constant; take a wider one"
            )

    def compute_logits(self, inputs: np.ndarray) -> np.ndarray:
        """Return the standardised outputs [n, C] for inputs [n, d], in float64."""
        values = inputs.astype(np.float64)
        for weight, bias in self._layers[:-1]:
            values = np.maximum(values @ weight + bias, 0)
        return (values @ self._layers[-1][0] - self._mean) / self._deviation

    def draw(self, generator: np.random.Generator, count: int) -> Pool:
        """Return labelled samples: inputs float32 [count, d], labels int32 [count]."""
        inputs = generator.standard_normal((count, len(self._layers[0][0])), dtype=np.float32)
        return Pool(inputs, self.compute_logits(inputs).argmax(axis=1).astype(np.int32))


def load(
    *,
    input_dim: int = 32,
    classes: int = 10,
    teacher_width: int = 64,
    teacher_depth: int = 2,
    teacher_seed: int = 0,
    name: str = "synthetic",
    **options: Unpack[SplitOptions],
) -> Dataset:
    """Draw Gaussian inputs, x ~ N(0, I_d), and label them by a random teacher network (`Teacher`).

    The held-out samples depend on the teacher, `input_dim` and `classes` alone, the probe on `probe_seed`, too. The
    training samples are the first of an endless sequence: fewer are the beginning of more, for each `data_seed`.

    Args:
        input_dim: dimension d of the inputs.
        classes: number of classes C.
        teacher_width: units of each hidden layer of the teacher.
        teacher_depth: number of hidden layers of the teacher.
        teacher_seed: draws the teacher, and with it the held-out samples.
        name: name in messages and results.
        **options: see `SplitOptions`; by default 1000 training samples. There is no end of samples: `train_size` is a
            number, a `test_size` of None means 2000, and a number as `data_seed` takes another sequence, its classes in
            turn. A number as `probe_seed` draws new samples.

    Returns:
        Dataset with inputs [n, d].

    Raises:
        InputError: a value that is no such number, or a class too rare for a balanced draw.
    """
    complete = complete_options(options, train_size=1000)
    numbers = {
        "input_dim": input_dim,
        "classes": classes,
        "train_size": complete["train_size"],
        "teacher_width": teacher_width,
        "teacher_depth": teacher_depth,
    }
    for field, value in numbers.items():
        check_positive(field, value)
    if classes < 2:
        raise InputError(f"dataset.classes={classes}: needs 2")
    check_seed("teacher_seed", teacher_seed)

    def prepare(draw: np.random.SeedSequence) -> Source:
        teacher = Teacher(input_dim, classes, teacher_width, teacher_depth, np.random.default_rng(draw))
        description = f"teacher: width {teacher_width}, depth {teacher_depth}, seed {teacher_seed}"
        return Source(teacher.draw, classes, "teacher", "dataset.classes", {"source": description, "files": {}})

    return draw_dataset(name, prepare, teacher_seed, complete)
