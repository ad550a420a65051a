import numpy as np
import pytest

from ntklens.data import markov
from ntklens.data.markov import Chain
from ntklens.errors import InputError

SIZES = {"train_size": 20, "test_size": 10, "probe_size": 8}


def test_shapes_types_and_the_mark():
    dataset = markov.load(vocabulary=5, length=6, **SIZES)
    assert dataset.train.inputs.shape == (20, 7)
    assert dataset.train.inputs.dtype == np.int32
    assert (dataset.train.inputs[:, 0] == 5).all()
    assert dataset.train.inputs[:, 1:].max() < 5
    assert (dataset.classes, dataset.train.holds_tokens) == (5, True)
    longer = markov.load(vocabulary=5, length=6, **SIZES | {"train_size": 2000})
    np.testing.assert_array_equal(longer.train.inputs[:20], dataset.train.inputs)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_what_follows_a_context_follows_its_probabilities(order):
    """Frequencies of each token behind each context, within the sequences and at their end, by a count of pairs."""
    chain = Chain(order, 3, 1.0, np.random.default_rng(0))
    pool = chain.draw(np.random.default_rng(1), 60_000, order + 1)
    whole = np.concatenate([pool.inputs[:, 1:], pool.labels[:, None]], axis=1)
    assert whole.min() >= 0
    for first in (0, 1):
        counts = np.zeros((3**order, 3))
        context = sum(whole[:, first + place] * 3 ** (order - 1 - place) for place in range(order))
        np.add.at(counts, (context, whole[:, first + order]), 1)
        total = counts.sum(axis=1, keepdims=True)
        p = chain.probabilities
        assert (np.abs(counts - total * p) <= 5 * np.sqrt(total * p * (1 - p)) + 1e-9).all()
    wrong = np.roll(chain.probabilities, 1, axis=1)
    assert not (np.abs(counts - total * wrong) <= 5 * np.sqrt(total * wrong * (1 - wrong)) + 1e-9).all()


def test_the_smallest_loss_is_that_of_the_chain():
    """The cross-entropy of the chain's own probabilities on fresh samples."""
    dataset = markov.load(vocabulary=4, length=5, train_size=20_000)
    chain = Chain(1, 4, 0.3, np.random.default_rng(np.random.SeedSequence(0).spawn(3)[0]))
    rows = chain.probabilities[dataset.train.inputs[:, -1]]
    losses = -np.log(rows[np.arange(len(rows)), dataset.train.labels])
    assert abs(losses.mean() - dataset.provenance["bayes_loss"]) < 5 * losses.std() / np.sqrt(8192)


def test_a_data_seed_draws_balanced_classes():
    dataset = markov.load(vocabulary=4, length=5, concentration=1.0, data_seed=0, train_size=40)
    assert np.bincount(dataset.train.labels).tolist() == [10] * 4


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"vocabulary": 4097}, "dataset.vocabulary=4097: must be 2 … 4096"),
        ({"order": 7}, "dataset.order=7: 10^7 contexts are more than"),
        ({"length": 2, "order": 3}, "dataset.length=2: must be dataset.order=3 or more"),
        ({"concentration": 0.0}, "dataset.concentration=0: must be a positive number"),
        ({"chain_seed": -1}, "dataset.chain_seed=-1: must be a whole number"),
        ({"standardize": True}, "dataset.standardize=true: the inputs of markov are tokens"),
        ({"data_seed": 0, "concentration": 0.001, "vocabulary": 30}, "the chain gives too few samples to class"),
    ],
)
def test_what_cannot_be_is_refused(change, text):
    with pytest.raises(InputError) as refusal:
        markov.load(**change)
    assert text in str(refusal.value)
