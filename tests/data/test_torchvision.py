"""Folders as torchvision leaves them are found; messages name what set the root: the variable or the override."""

import shutil

import pytest

from ntklens.data import cifar10, fashion_mnist, mnist
from ntklens.errors import InputError

SIZES = {"train_size": 30, "test_size": 10, "probe_size": 5}


@pytest.mark.parametrize(("loader", "folder"), [(mnist, "MNIST"), (fashion_mnist, "FashionMNIST")])
def test_idx_files_below_raw_are_found(small_mnist, loader, folder):
    ours = mnist.load(root=str(small_mnist.root), **SIZES)
    raw = small_mnist.root / folder / "raw"
    raw.parent.mkdir()
    shutil.move(small_mnist.folder, raw)
    theirs = loader.load(root=str(small_mnist.root), **SIZES)
    assert theirs.provenance["checksum"] == ours.provenance["checksum"]
    assert not small_mnist.folder.exists()
    (raw / "t10k-labels-idx1-ubyte.gz").write_bytes(b"no IDX")
    with pytest.raises(InputError, match=f"^dataset.root={small_mnist.root}: .*/{folder}/raw/t10k-labels"):
        loader.load(root=str(small_mnist.root), **SIZES)


def test_batches_at_the_root_are_found(small_cifar):
    ours = cifar10.load(root=str(small_cifar.root), **SIZES)
    shutil.move(small_cifar.root / "cifar10" / cifar10.FOLDER, small_cifar.root / cifar10.FOLDER)
    theirs = cifar10.load(root=str(small_cifar.root), **SIZES)
    assert theirs.provenance["checksum"] == ours.provenance["checksum"]
    (small_cifar.root / cifar10.FOLDER / "test_batch").write_bytes(b"no batch")
    with pytest.raises(InputError, match=f"^dataset.root={small_cifar.root}: .*test_batch"):
        cifar10.load(root=str(small_cifar.root), **SIZES)


def test_the_variable_that_was_set_is_named(small_mnist, monkeypatch):
    monkeypatch.setenv("NTKLENS_DATA", str(small_mnist.root))
    (small_mnist.folder / "t10k-labels-idx1-ubyte.gz").write_bytes(b"no IDX")
    with pytest.raises(InputError, match=f"^NTKLENS_DATA={small_mnist.root}: "):
        mnist.load(**SIZES)
    monkeypatch.setenv("NTKLENS_DATA", "/proc/nowhere")
    with pytest.raises(
        InputError, match=r"^NTKLENS_DATA=/proc/nowhere: mnist is not there .*; put .* type dataset.root="
    ):
        mnist.load(**SIZES)
    with pytest.raises(InputError, match=r"^dataset.root=/proc/nowhere/x: "):
        mnist.load(root="/proc/nowhere/x", **SIZES)
