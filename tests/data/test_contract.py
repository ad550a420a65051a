"""Every dataset that there is a file of loads, takes the options of all, and is trained on."""

import jax
import numpy as np
import pytest

from contract import OWN, SMALL, check, configure, list_options
from ntklens.errors import InputError
from ntklens.jobs.datasets import load_dataset


@pytest.fixture(autouse=True)
def example(monkeypatch, tmp_path, small_mnist, small_cifar):
    """The files that the options read where no other is named."""
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "images.npz", images=rng.random((440, 8, 8), np.float32), labels=np.arange(440) % 10)
    monkeypatch.chdir(tmp_path)
    (small_mnist.root / "fashion_mnist").symlink_to(small_mnist.folder)
    monkeypatch.setenv("NTKLENS_DATA", str(small_mnist.root))
    monkeypatch.syspath_prepend(str(OWN))
    double = jax.config.values["jax_enable_x64"]
    yield
    jax.config.update("jax_enable_x64", double)


@pytest.mark.slow
@pytest.mark.parametrize("dataset", list_options("dataset"))
def test_a_dataset_is_trained_on(dataset):
    words = (f"dataset={dataset}", "dataset.data_seed=1", "model.width=4", "model.depth=1", *SMALL)
    tokens = load_dataset(configure(*words)).probe.holds_tokens
    if tokens:
        with pytest.raises(InputError, match="standardize=true: the inputs of"):
            load_dataset(configure(*words, "dataset.standardize=true"))
    data = check(configure(*words, "model=causal_transformer" if tokens else "dataset.standardize=true")).dataset
    assert (len(data.train), len(data.selection), len(data.test), len(data.probe)) == (20, 5, 5, 4)
    assert data.provenance["data_seed"] == 1
    assert tokens or abs(data.train.inputs.mean()) < 1e-5
