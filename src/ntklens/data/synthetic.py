"""Synthetic: Gaussian inputs labelled by a random teacher network; as many as asked for, of any dimension."""

import itertools
from typing import Any, Unpack, cast

import numpy as np

from ntklens.data.dataset import Dataset
from ntklens.data.split import (
    DEFAULT_TEST_SIZE,
    Pool,
    SplitOptions,
    assemble_dataset,
    check_positive,
    check_seed,
    complete_options,
    order_balanced,
)
from ntklens.errors import InputError

BLOCK = 1024  # samples drawn and labelled at once: always whole, so that no sample depends on how many are asked for
CENTRING_SAMPLES = 8192
RAREST = 1000  # a balanced draw gives up where a class has less than one sample in so many


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


class Stream:
    """An endless, fixed sequence of labelled samples, of which any number of first ones can be had.

    Args:
        teacher: gives the labels.
        input_dim: dimension d of the inputs.
        generator: draws the inputs.
    """

    def __init__(self, teacher: Teacher, input_dim: int, generator: np.random.Generator) -> None:
        self._teacher = teacher
        self._input_dim = input_dim
        self._generator = generator
        self._inputs: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []

    def take(self, size: int) -> Pool:
        """Return the first samples: inputs float32 [n, d], labels int32 [n], n the whole blocks that hold `size`."""
        while len(self._labels) * BLOCK < size:
            inputs = self._generator.standard_normal((BLOCK, self._input_dim), dtype=np.float32)
            self._inputs.append(inputs)
            self._labels.append(self._teacher.compute_logits(inputs).argmax(axis=1).astype(np.int32))
        return Pool(np.concatenate(self._inputs), np.concatenate(self._labels))


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
    train_size, data_seed = cast(int, complete["train_size"]), complete["data_seed"]
    numbers = {
        "input_dim": input_dim,
        "classes": classes,
        "train_size": train_size,
        "teacher_width": teacher_width,
        "teacher_depth": teacher_depth,
    }
    for field, value in numbers.items():
        check_positive(field, value)
    if classes < 2:
        raise InputError(f"dataset.classes={classes}: needs 2")
    check_seed("teacher_seed", teacher_seed)
    test_size = DEFAULT_TEST_SIZE if complete["test_size"] is None else complete["test_size"]

    teacher_draw, held_out_draw, train_draw = np.random.SeedSequence(teacher_seed).spawn(3)
    teacher = Teacher(input_dim, classes, teacher_width, teacher_depth, np.random.default_rng(teacher_draw))
    probe_size, probe_seed = complete["probe_size"], complete["probe_seed"]
    held_out = Stream(teacher, input_dim, np.random.default_rng(held_out_draw)).take(probe_size + test_size)
    probe_rows = np.arange(probe_size)
    if probe_seed is not None:
        # As many words of entropy as for a data_seed, another last one.
        draw = np.random.default_rng([teacher_seed, probe_seed, 2])
        probe_rows += len(held_out)
        held_out = _append(held_out, Stream(teacher, input_dim, draw).take(probe_size))
    if data_seed is None:
        train = Stream(teacher, input_dim, np.random.default_rng(train_draw)).take(train_size)
        rows = np.arange(train_size)
    else:
        train, rows = _draw_balanced(teacher, input_dim, classes, train_size, teacher_seed, data_seed)
    source: dict[str, Any] = {
        "source": f"teacher: width {teacher_width}, depth {teacher_depth}, seed {teacher_seed}",
        "files": {},
    }
    return assemble_dataset(
        name=name,
        train=train,
        train_rows=rows,
        held_out=held_out,
        probe_rows=probe_rows,
        classes=classes,
        scale=1,
        source=source,
        test_size=test_size,
        options=complete,
    )


def _append(pool: Pool, other: Pool) -> Pool:
    return Pool(np.concatenate([pool.inputs, other.inputs]), np.concatenate([pool.labels, other.labels]))


def _draw_balanced(
    teacher: Teacher, input_dim: int, classes: int, size: int, teacher_seed: int, data_seed: int
) -> tuple[Pool, np.ndarray]:
    # The words of entropy differ in number from those of the other draws, so no data_seed repeats one of them.
    inputs_draw, order_draw = np.random.SeedSequence([teacher_seed, data_seed, 1]).spawn(2)
    stream = Stream(teacher, input_dim, np.random.default_rng(inputs_draw))
    rounds = -(-size // classes)
    pool = stream.take(size)
    while (counts := np.bincount(pool.labels, minlength=classes)).min() < rounds:
        if len(pool) > 16 * BLOCK and len(pool) > RAREST * counts.min():
            raise InputError(
                f"dataset.data_seed={data_seed}: the teacher gives too few samples to class {counts.argmin()} for a"
                f" balanced draw; take fewer dataset.classes than {classes}, or dataset.data_seed=null"
            )
        pool = stream.take(2 * len(pool))
    return pool, order_balanced(pool.labels, classes, np.random.default_rng(order_draw))[:size]
