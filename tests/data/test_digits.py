import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from ntklens.data import digits
from ntklens.errors import InputError


def test_digits_are_those_of_scikit_learn():
    pixels, labels = load_digits(return_X_y=True)
    dataset = digits.load(train_size=None)
    assert dataset.train.inputs.shape == (1000, 8, 8, 1)
    assert (len(dataset.probe), len(dataset.selection), len(dataset.test)) == (128, 334, 335)
    parts = (dataset.train, dataset.probe, dataset.selection, dataset.test)
    order = np.arange(1797) * 1111 % 1797
    assert sorted(order) == list(range(1797))
    assert (np.concatenate([part.inputs.reshape(len(part), 64) for part in parts]) == pixels[order] / 16).all()
    assert (np.concatenate([part.labels for part in parts]) == labels[order]).all()
    assert dataset.classes == 10


def test_every_part_has_digits_of_all_writers():
    """The published order groups the writers: whatever tells its halves apart must not tell our halves apart."""
    place = {image.tobytes(): k for k, image in enumerate(load_digits(return_X_y=True)[0].astype(np.uint8))}
    dataset = digits.load(train_size=None)
    for part in (dataset.train, dataset.probe, dataset.selection, dataset.test):
        places = [place[np.rint(image * 16).astype(np.uint8).tobytes()] for image in part.inputs.reshape(-1, 64)]
        assert np.histogram(places, 9, (0, 1797))[0].min() > 0.7 * len(part) / 9
        assert np.bincount(part.labels, minlength=10).min() > 0.5 * len(part) / 10


def test_provenance_names_source_and_content():
    provenance = digits.load().provenance
    assert provenance["source"].startswith("scikit-learn ")
    assert len(provenance["files"]["load_digits"]) == 64
    assert provenance["checksum"] == digits.load().provenance["checksum"]


def test_balanced_subset():
    counts = np.bincount(digits.load(train_size=205, data_seed=4).train.labels)
    assert set(counts) == {20, 21}


def test_more_than_there_is():
    with pytest.raises(InputError, match=r"^dataset\.train_size=1001: digits has 1000 training images$"):
        digits.load(train_size=1001)


def test_scikit_learns_loader_is_not_imported_where_its_file_is_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert len(digits.load().train) == 200


def test_without_the_file_the_loader_is_asked(monkeypatch):
    here = digits.load()
    monkeypatch.setattr(digits, "find_spec", lambda _name: None)
    assert digits.load().provenance == here.provenance
