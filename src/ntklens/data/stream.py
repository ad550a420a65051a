"""Datasets that are drawn: an endless, fixed sequence of samples for each split."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from ntklens.data.dataset import Dataset
from ntklens.data.split import DEFAULT_TEST_SIZE, Pool, SplitOptions, assemble_dataset, order_balanced
from ntklens.errors import InputError

BLOCK = 1024  # samples drawn at once: always whole, so that no sample depends on how many are asked for
RAREST = 1000  # a balanced draw gives up where a class has less than one sample in so many
Draw = Callable[[np.random.Generator, int], Pool]


@dataclass(frozen=True)
class Source:
    """What samples are drawn from.

    Attributes:
        draw: (generator, number of samples) → samples.
        classes: number of classes C.
        noun: what gives the labels, for messages.
        key: the override that sets the number of classes.
        provenance: `source`, `files` and further plain values.
        tokens: whether inputs are tokens.
    """

    draw: Draw
    classes: int
    noun: str
    key: str
    provenance: dict[str, Any]
    tokens: bool = False


class Stream:
    """An endless, fixed sequence of labelled samples, of which any number of first ones can be had.

    Args:
        draw: (generator, number of samples) → samples.
        generator: what they are drawn with.
    """

    def __init__(self, draw: Draw, generator: np.random.Generator) -> None:
        self._draw = draw
        self._generator = generator
        self._blocks: list[Pool] = []

    def take(self, size: int) -> Pool:
        """Return the first samples: inputs [n, …], labels int32 [n], n the whole blocks that hold `size`."""
        while len(self._blocks) * BLOCK < size:
            self._blocks.append(self._draw(self._generator, BLOCK))
        return _join(self._blocks)


def draw_dataset(
    name: str, prepare: Callable[[np.random.SeedSequence], Source], seed: int, options: SplitOptions
) -> Dataset:
    """Draw the splits of a dataset.

    The held-out samples depend on the source alone, the probe on `probe_seed`, too. The training samples are the first
    of an endless sequence: fewer are the beginning of more, for each `data_seed`.

    Args:
        name: name in messages and results.
        prepare: what draws the source → the source.
        seed: draws the source, and with it the held-out samples.
        options: complete, with a number as `train_size`. A `test_size` of None means 2000; a number as `data_seed`
            takes another sequence, its classes in turn; a number as `probe_seed` draws new samples.

    Returns:
        The Dataset.

    Raises:
        InputError: a class too rare for a balanced draw.
    """
    source_draw, held_out_draw, train_draw = np.random.SeedSequence(seed).spawn(3)
    source = prepare(source_draw)
    train_size, probe_size = cast(int, options["train_size"]), options["probe_size"]
    test_size = DEFAULT_TEST_SIZE if options["test_size"] is None else options["test_size"]
    held_out = Stream(source.draw, np.random.default_rng(held_out_draw)).take(probe_size + test_size)
    probe_rows = np.arange(probe_size)
    if options["probe_seed"] is not None:
        # As many words of entropy as for a data_seed, another last one.
        draw = np.random.default_rng([seed, options["probe_seed"], 2])
        probe_rows += len(held_out)
        held_out = _join([held_out, Stream(source.draw, draw).take(probe_size)])
    if options["data_seed"] is None:
        train = Stream(source.draw, np.random.default_rng(train_draw)).take(train_size)
        rows = np.arange(train_size)
    else:
        train, rows = _draw_balanced(source, train_size, seed, options["data_seed"])
    return assemble_dataset(
        name=name,
        train=train,
        train_rows=rows,
        held_out=held_out,
        probe_rows=probe_rows,
        classes=source.classes,
        scale=1,
        source=source.provenance,
        test_size=test_size,
        options=options,
        tokens=source.tokens,
    )


def _join(pools: list[Pool]) -> Pool:
    return Pool(np.concatenate([pool.inputs for pool in pools]), np.concatenate([pool.labels for pool in pools]))


def _draw_balanced(source: Source, size: int, seed: int, data_seed: int) -> tuple[Pool, np.ndarray]:
    # The words of entropy differ in number from those of the other draws, so no data_seed repeats one of them.
    inputs_draw, order_draw = np.random.SeedSequence([seed, data_seed, 1]).spawn(2)
    stream = Stream(source.draw, np.random.default_rng(inputs_draw))
    classes, rounds = source.classes, -(-size // source.classes)
    pool = stream.take(size)
    while (counts := np.bincount(pool.labels, minlength=classes)).min() < rounds:
        if len(pool) > 16 * BLOCK and len(pool) > RAREST * counts.min():
            raise InputError(
                f"dataset.data_seed={data_seed}: the {source.noun} gives too few samples to class {counts.argmin()} for"
                f" a balanced draw; take fewer {source.key} than {classes}, or dataset.data_seed=null"
            )
        pool = stream.take(2 * len(pool))
    return pool, order_balanced(pool.labels, classes, np.random.default_rng(order_draw))[:size]
