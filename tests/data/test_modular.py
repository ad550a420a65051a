import numpy as np
import pytest

from ntklens.data import modular
from ntklens.errors import InputError

SIZES = {"test_size": 10, "probe_size": 8}
OBVIOUS = {
    "add": lambda a, b, p: (a + b) % p,
    "subtract": lambda a, b, p: (a - b) % p,
    "multiply": lambda a, b, p: (a * b) % p,
    "divide": lambda a, b, p: next(c for c in range(p) if c * b % p == a),
}


def list_parts(dataset):
    return [getattr(dataset, part) for part in ("train", "selection", "test", "probe")]


@pytest.mark.parametrize("operation", OBVIOUS)
def test_labels_are_those_of_the_operation(operation):
    dataset = modular.load(modulus=7, operation=operation, **SIZES)
    for split in list_parts(dataset):
        assert split.inputs.dtype == split.labels.dtype == np.int32
        assert split.holds_tokens
        for (a, b, mark), label in zip(split.inputs.tolist(), split.labels.tolist(), strict=True):
            assert mark == 7
            assert label == OBVIOUS[operation](a, b, 7)
            assert b or operation != "divide"
    assert dataset.classes == 7


def test_all_pairs_stand_in_one_split_each():
    dataset = modular.load(modulus=7, train_fraction=0.4, test_size=None, probe_size=8)
    rows = np.concatenate([split.inputs for split in list_parts(dataset)])
    assert len(rows) == len(np.unique(rows, axis=0)) == 49
    assert len(dataset.train) == round(0.4 * 49)
    fewer = modular.load(modulus=7, train_fraction=0.4, train_size=5, **SIZES)
    np.testing.assert_array_equal(fewer.train.inputs, dataset.train.inputs[:5])
    other = modular.load(modulus=7, train_fraction=0.4, split_seed=1, **SIZES)
    assert other.provenance["checksum"] != fewer.provenance["checksum"]


def test_a_larger_fraction_contains_a_smaller_one():
    small, large = (modular.load(modulus=11, train_fraction=fraction, **SIZES).train for fraction in (0.3, 0.6))
    np.testing.assert_array_equal(large.inputs[: len(small)], small.inputs)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"modulus": 1025}, "dataset.modulus=1025: must be 2 … 1024"),
        ({"modulus": 1}, "dataset.modulus=1: must be 2"),
        ({"modulus": 9, "operation": "divide"}, "dataset.modulus=9: dataset.operation=divide needs a prime"),
        ({"operation": "plus"}, "dataset.operation=plus: must be one of add, subtract, multiply, divide"),
        ({"train_fraction": 1.0}, "dataset.train_fraction=1: must lie between 0 and 1"),
        ({"split_seed": -1}, "dataset.split_seed=-1: must be a whole number"),
        ({"train_size": 1000}, "dataset.train_size=1000: modular has 480 training samples"),
        ({"standardize": True}, "dataset.standardize=true: the inputs of modular are tokens"),
    ],
)
def test_what_cannot_be_is_refused(change, text):
    with pytest.raises(InputError) as refusal:
        modular.load(**change)
    assert text in str(refusal.value)
