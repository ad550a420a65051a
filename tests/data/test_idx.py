import gzip
import os
import shutil

import numpy as np
import pytest

from ntklens.data import fashion_mnist, mnist
from ntklens.data.idx import read_idx
from ntklens.errors import InputError

SIZES = {"train_size": 30, "probe_size": 8}


def refuse(small, **changes):
    """The one line with which mnist refuses what now lies in the folder."""
    with pytest.raises(InputError) as caught:
        mnist.load(root=str(small.root), **SIZES | changes)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"dataset.root={small.root}: ")
    return line


def write(small, name, content):
    (small.folder / name).write_bytes(gzip.compress(content))


def test_images_and_labels_are_those_of_the_files(small_mnist):
    dataset = mnist.load(root=str(small_mnist.root), **SIZES)
    assert dataset.train.inputs.shape == (30, 28, 28, 1)
    expected = small_mnist.images[:30, ..., np.newaxis].astype(np.float32) / np.float32(255)
    assert (dataset.train.inputs == expected).all()
    assert (dataset.train.labels == small_mnist.labels[:30]).all()
    held_out = np.concatenate([part.inputs for part in (dataset.probe, dataset.selection, dataset.test)])
    assert (np.rint(held_out[..., 0] * 255) == small_mnist.held_out_images).all()
    labels = np.concatenate([part.labels for part in (dataset.probe, dataset.selection, dataset.test)])
    assert (labels == small_mnist.held_out_labels).all()


def test_dataset_holds_on_to_no_mapped_file(small_mnist):
    for _ in range(2):
        dataset = mnist.load(root=str(small_mnist.root), **SIZES)
        for split in (dataset.train, dataset.selection, dataset.test, dataset.probe):
            assert type(split.inputs) is type(split.labels) is np.ndarray
            assert split.inputs.flags.owndata
            assert split.labels.flags.owndata


def test_uncompressed_names_hold_the_same(small_mnist):
    compressed = mnist.load(root=str(small_mnist.root), **SIZES)
    for path in list(small_mnist.folder.iterdir()):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    plain = mnist.load(root=str(small_mnist.root), **SIZES)
    assert plain.provenance["checksum"] == compressed.provenance["checksum"]
    assert plain.provenance["files"].keys() == {name.name for name in small_mnist.folder.iterdir()}


def test_environment_names_the_root(small_mnist, monkeypatch):
    monkeypatch.setenv("NTKLENS_DATA", str(small_mnist.root))
    assert mnist.load(**SIZES).provenance["source"] == str(small_mnist.folder)


def test_root_goes_before_the_environment(small_mnist, monkeypatch, tmp_path):
    monkeypatch.setenv("NTKLENS_DATA", str(tmp_path / "elsewhere"))
    assert mnist.load(root=str(small_mnist.root), **SIZES).provenance["source"] == str(small_mnist.folder)


def test_fashion_mnist_has_its_own_folder(small_mnist):
    shutil.copytree(small_mnist.folder, small_mnist.root / "fashion_mnist")
    dataset = fashion_mnist.load(root=str(small_mnist.root), **SIZES)
    assert dataset.name == "fashion_mnist"
    assert dataset.provenance["source"] == str(small_mnist.root / "fashion_mnist")


def test_counts_are_those_of_the_header(small_mnist):
    with pytest.raises(InputError, match=r"^dataset\.train_size=61: mnist has 60 training images$"):
        mnist.load(root=str(small_mnist.root), train_size=61, probe_size=8)
    with pytest.raises(InputError, match=r"^dataset\.probe_size=41: mnist has 40 held-out images$"):
        mnist.load(root=str(small_mnist.root), train_size=30, probe_size=41)


def test_bad_numbers_are_told_before_files_are_looked_for(tmp_path):
    with pytest.raises(InputError, match=r"^dataset\.train_size=0: must be a positive integer$"):
        mnist.load(root=str(tmp_path / "absent"), train_size=0)
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("kept", [0, 1, 9, 100, -9, -1])
def test_truncated_gzip(small_mnist, kept):
    path = small_mnist.folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:kept])
    line = refuse(small_mnist)
    assert str(path) in line
    assert "put the published file there, or delete it to download it" in line


def test_every_flipped_byte_of_the_compressed_data_is_noticed(small_mnist):
    path = small_mnist.folder / "t10k-labels-idx1-ubyte.gz"
    good = path.read_bytes()
    for position in range(10, len(good)):
        path.write_bytes(good[:position] + bytes([good[position] ^ 0xFF]) + good[position + 1 :])
        assert str(path) in refuse(small_mnist)


def test_bad_magic(small_mnist, formats):
    content = b"\x01" + formats.encode_idx(small_mnist.images)[1:]
    write(small_mnist, "train-images-idx3-ubyte.gz", content)
    assert "is no IDX file (it begins with 01000803)" in refuse(small_mnist)


def test_unknown_type_code(small_mnist, formats):
    write(small_mnist, "train-images-idx3-ubyte.gz", formats.encode_idx(small_mnist.images, code=0x0A))
    assert "is no IDX file" in refuse(small_mnist)


def test_wrong_type(small_mnist, formats):
    write(small_mnist, "train-images-idx3-ubyte.gz", formats.encode_idx(small_mnist.images.astype(">f4"), code=0x0D))
    assert "train-images-idx3-ubyte.gz holds float32, not uint8" in refuse(small_mnist)


@pytest.mark.parametrize("change", [-1, 1])
def test_bytes_that_the_header_does_not_promise(small_mnist, formats, change):
    content = formats.encode_idx(small_mnist.images) + b"\0"
    write(small_mnist, "train-images-idx3-ubyte.gz", content[: len(content) - 1 + change])
    size = 60 * 28 * 28
    assert f"has {size + change} bytes where its header says {size}" in refuse(small_mnist)


def test_truncated_header(small_mnist, formats):
    write(small_mnist, "train-images-idx3-ubyte.gz", formats.encode_idx(small_mnist.images)[:10])
    assert "is truncated within its header" in refuse(small_mnist)


@pytest.mark.parametrize(
    ("name", "shape", "reason"),
    [
        ("train-images-idx3-ubyte.gz", (60, 14, 14), "has shape (60, 14, 14), not (images, 28, 28)"),
        ("train-images-idx3-ubyte.gz", (60,), "has shape (60,), not (images, 28, 28)"),
        ("t10k-images-idx3-ubyte.gz", (39, 28, 28), "has 40 labels for 39 images"),
        ("t10k-labels-idx1-ubyte.gz", (40, 1), "has shape (40, 1), not (labels,)"),
        ("t10k-labels-idx1-ubyte.gz", (41,), "has 41 labels for 40 images"),
    ],
)
def test_wrong_shape(small_mnist, formats, name, shape, reason):
    write(small_mnist, name, formats.encode_idx(np.zeros(shape, np.uint8)))
    assert reason in refuse(small_mnist)


def test_no_images(small_mnist, formats):
    write(small_mnist, "train-images-idx3-ubyte.gz", formats.encode_idx(np.zeros((0, 28, 28), np.uint8)))
    write(small_mnist, "train-labels-idx1-ubyte.gz", formats.encode_idx(np.zeros((0,), np.uint8)))
    assert "train-images-idx3-ubyte.gz holds no images" in refuse(small_mnist, train_size=None)


def test_label_out_of_range(small_mnist, formats):
    labels = small_mnist.labels.copy()
    labels[7] = 10
    write(small_mnist, "train-labels-idx1-ubyte.gz", formats.encode_idx(labels))
    assert "train-labels-idx1-ubyte.gz has a label 10, beyond 9" in refuse(small_mnist)


def test_folder_in_the_place_of_a_file(small_mnist):
    path = small_mnist.folder / "train-labels-idx1-ubyte.gz"
    path.unlink()
    path.mkdir()
    assert f"cannot read {path}: Is a directory" in refuse(small_mnist)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file(small_mnist):
    path = small_mnist.folder / "train-labels-idx1-ubyte.gz"
    path.chmod(0)
    assert f"cannot read {path}: Permission denied" in refuse(small_mnist)


def test_shapes_of_any_rank_are_read(tmp_path, formats):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 2, 2)
    (tmp_path / "array").write_bytes(formats.encode_idx(array))
    assert (read_idx(tmp_path / "array") == array).all()
