"""From pools of labelled samples to a Dataset: sizes checked, rows chosen, only these converted."""

import functools
import hashlib
import numbers
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, Unpack

import numpy as np

from ntklens.data.dataset import Dataset, Split
from ntklens.data.dimension import change_dimension, check_dimension
from ntklens.errors import InputError

DEFAULT_TEST_SIZE = 2000
EXACT_IN_FLOAT32 = 2**24  # all integers up to it are
SEEDS: tuple[Literal["data_seed"], Literal["probe_seed"]] = ("data_seed", "probe_seed")
PROBE_DRAW = 1  # beside probe_seed: other random numbers than those of the same data_seed


class SplitOptions(TypedDict, total=False):
    """Which of a source's samples an experiment takes: keyword arguments that every loader hands on.

    Keys:
        train_size: number of training samples; None means all.
        test_size: number of test samples, both halves together; None means 2000, or all that is left if fewer.
        probe_size: number of samples the kernel is measured on; 128 by default.
        data_seed: None takes the first `train_size` samples; a number takes a random, class-balanced subset.
        probe_seed: None measures the kernel on the first `probe_size` held-out samples; a number draws as many from
            all held-out samples, those of the test halves among them. It changes no other split.
        standardize: subtract the mean and divide by the standard deviation of the training subset's inputs; both are
            scalars, taken over all of its samples and pixels.
    """

    train_size: int | None
    test_size: int | None
    probe_size: int
    data_seed: int | None
    probe_seed: int | None
    standardize: bool


DEFAULTS: SplitOptions = {
    "train_size": None,
    "test_size": None,
    "probe_size": 128,
    "data_seed": None,
    "probe_seed": None,
    "standardize": False,
}


def complete_options(options: SplitOptions, train_size: int | None = None) -> SplitOptions:
    """Return the options with a value of each, checked for what is wrong whatever the data hold.

    A loader calls it before it looks for its data.

    Args:
        options: as given.
        train_size: used where they name none.

    Raises:
        InputError: a value that is no such number.
        TypeError: a name that is no option.
    """
    if unknown := options.keys() - DEFAULTS.keys():
        raise TypeError(f"got an unexpected keyword argument '{min(unknown)}'")
    complete: SplitOptions = {**DEFAULTS, "train_size": train_size, **options}
    if complete["train_size"] is not None:
        check_positive("train_size", complete["train_size"])
    check_positive("probe_size", complete["probe_size"])
    test_size = complete["test_size"]
    if test_size is not None:
        check_positive("test_size", test_size)
        if test_size < 2:
            raise InputError(f"dataset.test_size={test_size}: needs 2, one to choose the minimum and one to report")
    for field in SEEDS:
        if complete[field] is not None:
            check_seed(field, complete[field])
    if not isinstance(complete["standardize"], bool):
        raise InputError(f"dataset.standardize={_show(complete['standardize'])}: must be true or false")
    return complete


@dataclass(frozen=True, eq=False)
class Pool:
    """Labelled samples as their source orders them.

    Attributes:
        inputs: [n, *shape] of any dtype, perhaps mapped from a file.
        labels: [n], integers.
    """

    inputs: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


def build_dataset(
    *,
    name: str,
    train: Pool,
    held_out: Pool,
    classes: int,
    scale: float,
    source: dict[str, Any],
    input_dim: int | None = None,
    tokens: bool = False,
    **options: Unpack[SplitOptions],
) -> Dataset:
    """Choose the samples of an experiment from what a source holds.

    The `test_size` held-out samples after the first `probe_size` are the selection half and the test half. These first
    are the probe, or `probe_seed` draws another one.

    Args:
        name: name of the data, for messages and provenance.
        train: the pool of training samples.
        held_out: the pool of held-out samples.
        classes: number of classes C.
        scale: inputs are divided by it (255 for bytes).
        source: where the samples come from, for the provenance: `source` and `files`.
        input_dim: dimension of the inputs, see `dimension.change_dimension`; None leaves them as they are.
        tokens: whether inputs are tokens, which stay integers.
        **options: see `SplitOptions`.

    Returns:
        The Dataset.

    Raises:
        InputError: a value that is no such number, or asks for more than there is.
    """
    complete = complete_options(options)
    noun = "samples" if tokens else "images"
    check_dimension(input_dim)
    train_size, probe_size = complete["train_size"], complete["probe_size"]
    if train_size is not None and train_size > len(train):
        raise InputError(f"dataset.train_size={train_size}: {name} has {len(train)} training {noun}")
    if probe_size > len(held_out):
        raise InputError(f"dataset.probe_size={probe_size}: {name} has {len(held_out)} held-out {noun}")
    left = len(held_out) - probe_size
    if left < 2:
        raise InputError(
            f"dataset.probe_size={probe_size}: leaves {left} of the {len(held_out)} held-out {noun} of {name} for"
            " testing, which needs 2"
        )
    test_size = min(DEFAULT_TEST_SIZE, left) if complete["test_size"] is None else complete["test_size"]
    if test_size > left:
        raise InputError(
            f"dataset.test_size={test_size}: {name} has {left} held-out {noun} beside the probe of {probe_size}"
        )
    size = len(train) if train_size is None else train_size
    return assemble_dataset(
        name=name,
        train=train,
        train_rows=select_rows(train.labels, classes, size, complete["data_seed"]),
        held_out=held_out,
        probe_rows=select_probe(len(held_out), probe_size, complete["probe_seed"]),
        classes=classes,
        scale=scale,
        source=source,
        test_size=test_size,
        options=complete,
        input_dim=input_dim,
        tokens=tokens,
    )


def assemble_dataset(
    *,
    name: str,
    train: Pool,
    train_rows: np.ndarray,
    held_out: Pool,
    probe_rows: np.ndarray,
    classes: int,
    scale: float,
    source: dict[str, Any],
    test_size: int,
    options: SplitOptions,
    input_dim: int | None = None,
    tokens: bool = False,
) -> Dataset:
    """Convert the chosen rows to a Dataset, with its provenance.

    Args:
        name: name of the data.
        train: the pool of training samples.
        train_rows: int [n], the rows of it to train on, in order.
        held_out: the pool of held-out samples, at least `probe_size + test_size`.
        probe_rows: int [probe_size], the rows of it that are the probe, in order.
        classes: number of classes C.
        scale: inputs are divided by it.
        source: for the provenance.
        test_size: number of test samples, both halves together.
        options: complete; `train_size` and `test_size` do not count.
        input_dim: dimension of the inputs; None leaves them as they are.
        tokens: whether inputs are tokens, which stay integers.

    Returns:
        The Dataset.

    Raises:
        InputError: `standardize` where the training inputs are all the same, or are tokens.
    """
    probe_size, standardize = options["probe_size"], options["standardize"]
    middle, end = probe_size + test_size // 2, probe_size + test_size
    convert = functools.partial(_convert, scale=scale, tokens=tokens)
    splits = {
        "train": convert(train, train_rows),
        "selection": convert(held_out, slice(probe_size, middle)),
        "test": convert(held_out, slice(middle, end)),
        "probe": convert(held_out, probe_rows),
    }
    statistics: dict[str, float] = {}
    if standardize:
        if tokens:
            raise InputError(f"dataset.standardize=true: the inputs of {name} are tokens; leave it out")
        inputs = splits["train"].inputs
        mean, deviation = inputs.mean(dtype=np.float64), inputs.std(dtype=np.float64)
        if deviation == 0:
            raise InputError("dataset.standardize=true: all training inputs are the same")
        for split in splits.values():
            np.subtract(split.inputs, np.float32(mean), out=split.inputs)
            np.divide(split.inputs, np.float32(deviation), out=split.inputs)
        statistics = {"input_mean": float(mean), "input_deviation": float(deviation)}
    if input_dim is not None:
        splits = {part: change_dimension(split, input_dim) for part, split in splits.items()}
        statistics["input_dim"] = input_dim
    provenance: dict[str, Any] = {
        "name": name,
        **source,
        "train_size": len(splits["train"]),
        "test_size": test_size,
        "probe_size": probe_size,
        **{seed: None if (value := options[seed]) is None else int(value) for seed in SEEDS},
        "standardize": standardize,
        **statistics,
        "checksum": compute_checksum(*splits.values()),
    }
    return Dataset(name=name, classes=classes, provenance=provenance, **splits)


def select_rows(labels: np.ndarray, classes: int, size: int, data_seed: int | None) -> np.ndarray:
    """Choose training rows; for one `data_seed` a smaller choice is the beginning of a larger one.

    Args:
        labels: int [n], each in 0 … classes − 1.
        classes: number of classes C.
        size: number of rows to choose, at most n.
        data_seed: None takes the first rows; a number shuffles the rows and takes the classes in turn.

    Returns:
        int [size] row numbers.
    """
    if data_seed is None:
        return np.arange(size)
    generator = np.random.default_rng(data_seed)
    shuffled = generator.permutation(len(labels))
    return shuffled[order_balanced(np.asarray(labels)[shuffled], classes, generator)[:size]]


def select_probe(count: int, size: int, probe_seed: int | None) -> np.ndarray:
    """Choose the held-out rows of the probe; for one `probe_seed` a smaller choice is the beginning of a larger one.

    Args:
        count: number of held-out rows n.
        size: number of rows to choose, at most n.
        probe_seed: None takes the first rows; a number draws rows at random.

    Returns:
        int [size] row numbers.
    """
    if probe_seed is None:
        return np.arange(size)
    return np.random.default_rng([probe_seed, PROBE_DRAW]).permutation(count)[:size]


def order_balanced(labels: np.ndarray, classes: int, generator: np.random.Generator) -> np.ndarray:
    """Order rows in rounds: round r holds the r-th row of each class that has one, the classes in random order.

    Every beginning of the order is as balanced as the labels allow: two class counts differ by more than one only
    where the rarer class has run out.

    Args:
        labels: int [n], each in 0 … classes − 1.
        classes: number of classes C.
        generator: gives the order of the classes within each round.

    Returns:
        int [n], a permutation of the rows.
    """
    members = [np.flatnonzero(labels == label) for label in range(classes)]
    rounds = np.full((max(map(len, members)), classes), -1)
    for label, rows in enumerate(members):
        rounds[: len(rows), label] = rows
    order = np.take_along_axis(rounds, np.argsort(generator.random(rounds.shape), axis=1), axis=1).ravel()
    return order[order >= 0]


def compute_checksum(*splits: Split) -> str:
    """SHA-256 over the shapes and bytes of all inputs and labels, in order; inputs count as float32.

    Integers that float32 does not tell apart, beyond 2^24, count as int32. A difference between float64 inputs that is
    below float32 changes no run in float32; it does not count in float64 either.

    Args:
        splits: the splits, in the order in which they count.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for split in splits:
        kind = "<i4" if _exceeds_float32(np.asarray(split.inputs)) else "<f4"
        for array, dtype in ((split.inputs, kind), (split.labels, "<i4")):
            digest.update(str(array.shape).encode())
            digest.update(np.ascontiguousarray(array, dtype=dtype).data)
    return digest.hexdigest()


def _exceeds_float32(inputs: np.ndarray) -> bool:
    """Return whether these are integers that float32 does not hold exactly."""
    large = inputs.dtype.kind in "iu" and inputs.dtype.itemsize > 2 and inputs.size > 0
    return large and max(int(inputs.max()), -int(inputs.min())) > EXACT_IN_FLOAT32


def check_positive(field: str, value: Any) -> None:
    """Raise an InputError unless `value` is a positive integer."""
    if not _is_integer(value) or value < 1:
        raise InputError(f"dataset.{field}={_show(value)}: must be a positive integer")


def check_seed(field: str, value: Any) -> None:
    """Raise an InputError unless `value` is a whole number from 0."""
    if not _is_integer(value) or value < 0:
        raise InputError(f"dataset.{field}={_show(value)}: must be a whole number from 0")


def _convert(pool: Pool, rows: slice | np.ndarray, scale: float, tokens: bool) -> Split:
    # np.array copies: a Dataset never holds on to a mapped file.
    inputs = np.array(pool.inputs[rows], dtype=np.int32 if tokens else np.float32)
    if scale != 1:
        np.divide(inputs, np.float32(scale), out=inputs)
    return Split(inputs, np.array(pool.labels[rows], dtype=np.int32))


def _is_integer(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _show(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
