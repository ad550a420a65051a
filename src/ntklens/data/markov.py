"""Markov: sequences of a random Markov chain and the token that follows; as many as asked for, nothing downloaded."""

from typing import Unpack

import numpy as np

from ntklens.data.dataset import Dataset
from ntklens.data.split import Pool, SplitOptions, check_positive, check_seed, complete_options
from ntklens.data.stream import Source, draw_dataset
from ntklens.errors import InputError

LARGEST = 4096  # classes; of more than 128 the kernel is that of projected outputs
CONTEXTS = 2**20  # rows of the largest chain
BURN_IN = 64  # tokens drawn before a sequence begins


class Chain:
    """P(x_t | x_{t−k} … x_{t−1}) of order k over V tokens; each context has a distribution drawn from Dirichlet(c).

    Args:
        order: k.
        vocabulary: V.
        concentration: c: small ones leave little choice, large ones make the tokens alike.
        generator: draws the distributions.
    """

    def __init__(self, order: int, vocabulary: int, concentration: float, generator: np.random.Generator) -> None:
        self._vocabulary, self._order = vocabulary, order
        self.probabilities = generator.dirichlet(np.full(vocabulary, concentration), vocabulary**order)
        self._sums = self.probabilities.cumsum(axis=1)
        self._sums /= self._sums[:, -1:]  # so that no draw lies above the last

    def draw(self, generator: np.random.Generator, count: int, length: int) -> Pool:
        """Return sequences int32 [count, 1 + length] behind the mark V, with what follows each as its label."""
        context = generator.integers(self._vocabulary**self._order, size=count)
        sequences = np.full((count, 1 + length), self._vocabulary, np.int32)
        for place in range(-BURN_IN, length + 1):
            chosen = (generator.random((count, 1)) >= self._sums[context]).sum(axis=1)
            if place == length:
                return Pool(sequences, chosen.astype(np.int32))
            if place >= 0:
                sequences[:, 1 + place] = chosen
            context = (context * self._vocabulary + chosen) % self._vocabulary**self._order
        raise AssertionError

    def compute_entropy(self, sequences: np.ndarray) -> float:
        """Return the mean entropy in nats of what follows these sequences: the smallest cross-entropy there is."""
        powers = self._vocabulary ** np.arange(self._order)[::-1]
        rows = self.probabilities[sequences[:, -self._order :] @ powers]
        return float(-(rows * np.log(np.where(rows > 0, rows, 1))).sum(axis=1).mean())


def load(
    *,
    vocabulary: int = 10,
    order: int = 1,
    length: int = 16,
    concentration: float = 0.3,
    chain_seed: int = 0,
    name: str = "markov",
    **options: Unpack[SplitOptions],
) -> Dataset:
    """Draw sequences of a random Markov chain (`Chain`); the label is the token that follows.

    Tokens 0 … V − 1 are those of the chain, V is the mark that every sequence begins with. The cross-entropy of the
    chain's own probabilities, below which no network's falls but by chance, is `bayes_loss` in the provenance.

    Args:
        vocabulary: V, the number of tokens and of classes, at most 4096.
        order: how many tokens the next one depends on.
        length: tokens of a sequence, beside the mark; `order` or more.
        concentration: of the Dirichlet distribution that draws what follows each context.
        chain_seed: draws the chain and the held-out samples.
        name: name in messages and results.
        **options: see `SplitOptions`; by default 1000 training samples. There is no end of samples: `train_size` is a
            number, a `test_size` of None means 2000, and a number as `data_seed` takes another sequence, its classes in
            turn, so that the chain's own frequencies are not kept. A number as `probe_seed` draws new samples.

    Returns:
        Dataset with inputs int32 [n, 1 + length] and V classes.

    Raises:
        InputError: a value that is no such number, or a class too rare for a balanced draw.
    """
    complete = complete_options(options, train_size=1000)
    for field, value in {
        "vocabulary": vocabulary, "order": order, "length": length, "train_size": complete["train_size"]
    }.items():  # fmt: skip
        check_positive(field, value)
    check_seed("chain_seed", chain_seed)
    if not 2 <= vocabulary <= LARGEST:
        raise InputError(f"dataset.vocabulary={vocabulary}: must be 2 … {LARGEST}")
    if vocabulary**order > CONTEXTS:
        raise InputError(
            f"dataset.order={order}: {vocabulary}^{order} contexts are more than {CONTEXTS}; lower dataset.order or "
            "dataset.vocabulary"
        )
    if length < order:
        raise InputError(f"dataset.length={length}: must be dataset.order={order} or more")
    if not 0 < concentration < np.inf:
        raise InputError(f"dataset.concentration={concentration:g}: must be a positive number")

    def prepare(draw: np.random.SeedSequence) -> Source:
        chain = Chain(order, vocabulary, concentration, np.random.default_rng(draw))
        fresh = chain.draw(np.random.default_rng(draw.spawn(1)[0]), ENTROPY_SAMPLES, order)
        description = f"Markov chain of order {order}, Dirichlet {concentration:g}, seed {chain_seed}"
        provenance = {"source": description, "files": {}, "bayes_loss": chain.compute_entropy(fresh.inputs)}
        return Source(
            lambda generator, count: chain.draw(generator, count, length),
            vocabulary,
            "chain",
            "dataset.vocabulary",
            provenance,
            tokens=True,
        )

    return draw_dataset(name, prepare, chain_seed, complete)


ENTROPY_SAMPLES = 8192  # over which `bayes_loss` is a mean
