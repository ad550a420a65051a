"""Wrong data of a user's own: one line that names the dataset, whatever its loader returned or raised."""

import json
import sys
from types import ModuleType

import jax.numpy as jnp
import numpy as np
import pytest
from omegaconf import OmegaConf

from ntklens.data import Dataset, Split
from ntklens.data.check import load_checked
from ntklens.errors import InputError

NODE = OmegaConf.create({"_target_": "own_data.load", "name": "mine"})
SIZES = {"train": 6, "selection": 4, "test": 4, "probe": 3}


def make(classes=3, provenance=None, change=None, **labels):
    """A right Dataset of tokens or numbers, in which `change` has been made."""
    splits = {}
    for name, size in SIZES.items():
        inputs = np.random.default_rng(size).standard_normal((size, 5)).astype(np.float32)
        splits[name] = [inputs, labels.get(name, np.arange(size) % 3)]
    if change:
        change(splits)
    return Dataset(
        "mine", **{name: Split(*pair) for name, pair in splits.items()}, classes=classes, provenance=provenance or {}
    )


@pytest.fixture
def load(monkeypatch):
    """(function) → what comes of a loader that returns what the function does."""

    def load(function):
        module = ModuleType("own_data")
        module.load = lambda name: function()
        monkeypatch.setitem(sys.modules, "own_data", module)
        return load_checked(NODE)

    return load


def put(split, part, value):
    def change(splits):
        pair = splits[split]
        pair[part] = value(pair[part]) if callable(value) else value

    return lambda: make(change=change)


def set_value(value):
    def change(inputs):
        inputs = inputs.copy()
        inputs[1, 2] = value
        return inputs

    return change


def fail():
    raise FileNotFoundError(2, "No such file or directory", "x.npy")


WRONG = {
    "labels from 1": (put("train", 1, np.arange(6) % 3 + 1), "labels of train lie in 1 … 3, with classes=3: must be "
                      "integers 0 … 2, the classes; subtract 1"),
    "labels −1 and 1": (put("test", 1, np.array([-1, 1, 1, -1])), "labels of test lie in -1 … 1, with classes=3: must "
                        "be integers 0 … 2, the classes; take (labels + 1) // 2"),
    "a label too large": (put("probe", 1, np.array([0, 7, 1])), "labels of probe lie in 0 … 7"),
    "real targets": (put("train", 1, np.linspace(0, 1, 6)), "labels of train are real numbers (the first: 0.0)"),
    "one-hot rows": (put("train", 1, np.eye(3)[np.arange(6) % 3]), "of one-hot rows take labels.argmax(axis=1)"),
    "a column of labels": (put("train", 1, np.arange(6)[:, np.newaxis] % 3), "a class each; take labels[:, 0]"),
    "beyond float32": (put("test", 0, np.full((4, 4), 1e39)), "inputs of test hold numbers beyond float32"),
    "wide and beyond float32": (put("test", 0, np.full((4, 4), 1e39, ">f8")), "numbers beyond float32"),
    "a NaN of bfloat16": (put("test", 0, np.full((4, 4), np.nan, jnp.bfloat16)), "inputs of test hold NaN"),
    "masked": (put("train", 0, np.ma.masked_less(np.eye(6, 4), 1)), "inputs of train are a masked array"),
    "texts": (put("train", 1, np.array(list("abcabc"))), "labels of train are <U1 (the first: a)"),
    "NaN": (put("train", 0, set_value(np.nan)), "inputs of train hold NaN or infinity in 1 of 6 samples, the first 1"),
    "infinity": (put("probe", 0, set_value(np.inf)), "inputs of probe hold NaN or infinity in 1 of 3 samples"),
    "complex": (put("train", 0, lambda inputs: inputs + 1j), "inputs of train are complex"),
    "objects": (put("train", 0, lambda inputs: inputs.astype(object)), "inputs of train are object"),
    "a dictionary": (put("train", 0, {"ids": np.zeros((6, 2)), "mask": np.zeros((6, 2))}),
                     "inputs of train are a dict: ntklens takes one array [n, …]"),
    "ragged rows": (put("train", 0, [[1.0], [1.0, 2.0]] * 3), "inputs of train are a list: ntklens takes one array"),
    "an empty split": (put("selection", 0, np.zeros((0, 5), np.float32)), "selection has 4 labels for 0 inputs"),
    "no sample": (lambda: make(change=lambda s: s.update(test=[np.zeros((0, 5)), np.zeros(0, int)])), "test is empty"),
    "lengths": (put("train", 1, np.zeros(5, int)), "train has 5 labels for 6 inputs"),
    "shapes": (put("probe", 0, lambda inputs: inputs[:, :4]), "samples of probe have shape (4,), those of train (5,)"),
    "kinds": (put("probe", 0, lambda inputs: np.zeros((3, 5), int)), "inputs of probe are integers, those of train"),
    "long integers": (put("train", 0, np.full((6, 5), 2**40)), "inputs of train hold integers beyond 32 bits"),
    "a pair": (lambda: (np.zeros((4, 5)), np.zeros(4)), "returned a tuple, not a ntklens.data.Dataset"),
    "nothing": (lambda: None, "returned nothing, not a ntklens.data.Dataset"),
    "pairs as splits": (lambda: Dataset("mine", (0, 0), (0, 0), (0, 0), (0, 0), 3, {}), "train is a tuple, not a"),
    "one class": (lambda: make(classes=1), "classes=1: must be the number of classes, 2 or more"),
    "classes as a list": (lambda: make(classes=["a", "b"]), "must be the number of classes"),
    "provenance as text": (lambda: make(provenance="from my disk"), "provenance is a str, not a dict"),
    "a file that is not there": (fail, "FileNotFoundError: [Errno 2] No such file or directory: 'x.npy'"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_it_names_the_dataset(load, name):
    function, fragment = WRONG[name]
    with pytest.raises(InputError) as refusal:
        load(function)
    line = str(refusal.value)
    assert line.startswith("dataset._target_=own_data.load: ")
    assert fragment in line
    assert "\n" not in line


def test_a_loader_that_takes_other_arguments_is_named(load):
    load(make)
    with pytest.raises(InputError, match=r"^dataset\._target_=own_data\.load: .*unexpected keyword argument 'size'"):
        load_checked(OmegaConf.create({**NODE, "size": 3}))


@pytest.mark.parametrize("labels", [np.int64, np.uint8, np.int16, bool])
def test_what_is_right_passes_whatever_its_types(load, labels):
    def build():
        dataset = make(classes=np.int64(3), provenance={"n": np.int64(3), "mean": np.zeros(2), "where": sys})
        splits = {
            name: Split(getattr(dataset, name).inputs.tolist(), (getattr(dataset, name).labels % 2).astype(labels))
            for name in SIZES
        }
        return Dataset("mine", **splits, classes=dataset.classes, provenance=dataset.provenance)

    dataset = load(build)
    assert dataset.train.labels.dtype == np.int32
    assert dataset.train.inputs.shape == (6, 5)
    assert dataset.provenance["n"] == 3
    assert len(dataset.provenance["checksum"]) == 64
    json.dumps(dataset.provenance)


def test_the_checksum_is_that_of_what_was_loaded(load):
    """A loader of the user's own may say what it likes."""
    first = load(lambda: make(provenance={"checksum": "mine"})).provenance["checksum"]
    other = load(put("test", 0, set_value(9))).provenance["checksum"]
    assert len({first, other, "mine"}) == 3
