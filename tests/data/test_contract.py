"""Every dataset that there is a file of loads, takes the options of all, and is trained on."""

import jax
import pytest

from contract import OWN, SMALL, check, configure, list_options


@pytest.fixture(autouse=True)
def example(monkeypatch, small_mnist, small_cifar):
    (small_mnist.root / "fashion_mnist").symlink_to(small_mnist.folder)
    monkeypatch.setenv("NTKLENS_DATA", str(small_mnist.root))
    monkeypatch.syspath_prepend(str(OWN))
    double = jax.config.values["jax_enable_x64"]
    yield
    jax.config.update("jax_enable_x64", double)


@pytest.mark.parametrize("dataset", list_options("dataset"))
def test_a_dataset_is_trained_on(dataset):
    words = (f"dataset={dataset}", "dataset.data_seed=1", "dataset.standardize=true", "model.width=4", "model.depth=1")
    data = check(configure(*words, *SMALL)).dataset
    assert (len(data.train), len(data.selection), len(data.test), len(data.probe)) == (20, 5, 5, 4)
    assert data.provenance["data_seed"] == 1
    assert abs(data.train.inputs.mean()) < 1e-5
