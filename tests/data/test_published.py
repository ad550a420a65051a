"""The published files themselves, where NTKLENS_DATA says that they are."""

import os

import numpy as np
import pytest

from ntklens.data import cifar10, fashion_mnist, mnist
from ntklens.data.files import find_root

ROOT = os.environ.get("NTKLENS_DATA")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not ROOT, reason="NTKLENS_DATA is not set")]

FIRST_LABELS = {
    mnist: [5, 0, 4, 1, 9, 2, 1, 3, 1, 4],
    fashion_mnist: [9, 0, 0, 3, 0, 2, 7, 2, 5, 5],
    cifar10: [6, 9, 9, 4, 1, 1, 2, 7, 8, 3],
}
PIXEL_MEANS = {mnist: (0.1307,), fashion_mnist: (0.2860,), cifar10: (0.4914, 0.4822, 0.4465)}


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(params=[mnist, fashion_mnist, cifar10], ids=lambda module: module.__name__.rpartition(".")[2])
def loader(request, shared_cache, monkeypatch):
    name = request.param.__name__.rpartition(".")[2]
    if not (find_root(ROOT) / name).is_dir():
        pytest.skip(f"no {name} below NTKLENS_DATA")
    monkeypatch.setenv("NTKLENS_CACHE", str(shared_cache))
    monkeypatch.setenv("NTKLENS_DATA", ROOT)
    return request.param


def test_first_labels(loader):
    assert loader.load().train.labels[:10].tolist() == FIRST_LABELS[loader]


def test_published_pixel_means(loader):
    train = loader.load(train_size=None).train
    assert len(train) == (50_000 if loader is cifar10 else 60_000)
    np.testing.assert_allclose(train.inputs.mean(axis=(0, 1, 2), dtype=np.float64), PIXEL_MEANS[loader], atol=1e-4)
    assert (train.inputs.min(), train.inputs.max()) == (0, 1)


def test_held_out_pool(loader):
    dataset = loader.load(train_size=10, test_size=9872)
    assert (len(dataset.probe), len(dataset.selection), len(dataset.test)) == (128, 4936, 4936)
    counts = sum(np.bincount(part.labels) for part in (dataset.probe, dataset.selection, dataset.test))
    if loader is not mnist:
        assert (counts == 1000).all()
    else:
        assert counts.tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_no_image_is_in_training_and_held_out(loader):
    dataset = loader.load(train_size=2000, data_seed=0)
    seen = {image.tobytes() for image in dataset.train.inputs}
    for part in (dataset.probe, dataset.selection, dataset.test):
        assert not any(image.tobytes() in seen for image in part.inputs)


def test_balanced_subset(loader):
    assert (np.bincount(loader.load(train_size=1000, data_seed=1).train.labels) == 100).all()
