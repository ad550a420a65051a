import functools
import io
import tarfile

import numpy as np
import pytest

from ntklens.data import cifar10
from ntklens.data.files import RemoteFile
from ntklens.errors import InputError

SIZES = {"train_size": 45, "probe_size": 8}
FOLDER = "cifar-10-batches-py"


def pack(small, suffix, mode, prefix=""):
    """Put the folder's batches into an archive beside it, with one file more than is needed, and remove the folder."""
    archive = small.folder.parent / f"cifar-10-python.tar{suffix}"
    with tarfile.open(archive, mode) as members:
        for path in sorted(small.folder.iterdir(), reverse=True):
            members.add(path, f"{prefix}{FOLDER}/{path.name}")
        extra = tarfile.TarInfo(f"{prefix}{FOLDER}/readme.html")
        extra.size = 700
        members.addfile(extra, io.BytesIO(b"x" * 700))
    remove(small)
    return archive


def remove(small):
    for path in small.folder.iterdir():
        path.unlink()
    small.folder.rmdir()


def refuse(small, **changes):
    with pytest.raises(InputError) as caught:
        cifar10.load(root=str(small.root), **SIZES | changes)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"dataset.root={small.root}: ")
    return line


def test_images_and_labels_are_those_of_the_batches(small_cifar):
    dataset = cifar10.load(root=str(small_cifar.root), **SIZES)
    assert (dataset.train.inputs == small_cifar.images[:45].astype(np.float32) / np.float32(255)).all()
    assert (dataset.train.labels == small_cifar.labels[:45]).all()
    held_out = np.concatenate([part.inputs for part in (dataset.probe, dataset.selection, dataset.test)])
    assert (np.rint(held_out * 255) == small_cifar.held_out_images).all()
    assert dataset.provenance["files"].keys() == {path.name for path in small_cifar.folder.iterdir()}
    assert dataset.classes == 10


@pytest.mark.parametrize(
    ("suffix", "mode"), [("", "w"), (".gz", "w:gz"), (".bz2", "w:bz2"), (".xz", "w:xz"), (".gz", "w:xz")]
)
@pytest.mark.parametrize("prefix", ["", "./"])
def test_archive_of_any_compression_holds_what_the_folder_holds(small_cifar, suffix, mode, prefix):
    folder = cifar10.load(root=str(small_cifar.root), **SIZES, data_seed=2)
    archive = pack(small_cifar, suffix, mode, prefix)
    packed = cifar10.load(root=str(small_cifar.root), **SIZES, data_seed=2)
    assert packed.provenance["checksum"] == folder.provenance["checksum"]
    assert packed.provenance["source"] == str(archive)
    assert packed.provenance["files"].keys() == {archive.name}
    assert list(archive.parent.iterdir()) == [archive]  # nothing was unpacked
    again = cifar10.load(root=str(small_cifar.root), **SIZES, data_seed=2)
    assert again.provenance == packed.provenance


def test_archive_is_downloaded_and_verified(small_cifar, serve, formats, monkeypatch, tmp_path):
    archive = pack(small_cifar, ".gz", "w:gz")
    address = serve(archive.parent) + archive.name
    monkeypatch.setattr(cifar10, "ARCHIVE", RemoteFile(archive.name, formats.compute_md5(archive), (address,)))
    cifar10.load(root=str(tmp_path / "new"), **SIZES)
    assert (tmp_path / "new" / "cifar10" / archive.name).read_bytes() == archive.read_bytes()
    monkeypatch.setattr(cifar10, "ARCHIVE", RemoteFile(archive.name, "0" * 32, (address,)))
    with pytest.raises(InputError, match="sent has another checksum"):
        cifar10.load(root=str(tmp_path / "other"), **SIZES)


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.9, 0.9999])
def test_truncated_archive(small_cifar, suffix, share):
    archive = pack(small_cifar, suffix, "w:" + suffix[1:])
    content = archive.read_bytes()
    archive.write_bytes(content[: int(share * len(content))])
    assert f"{archive} is truncated, corrupted or no tar archive" in refuse(small_cifar)


def test_truncated_plain_archive(small_cifar):
    archive = pack(small_cifar, "", "w")
    archive.write_bytes(archive.read_bytes()[:100_000])
    assert str(archive) in refuse(small_cifar)


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz"])
def test_corrupted_archive(small_cifar, suffix):
    archive = pack(small_cifar, suffix, "w:" + suffix[1:])
    content = bytearray(archive.read_bytes())
    for position in (len(content) // 2, len(content) - 5):
        content[position] ^= 0xFF
        archive.write_bytes(content)
        assert f"{archive} is truncated, corrupted or no tar archive" in refuse(small_cifar)
        content[position] ^= 0xFF


def test_archive_without_a_batch(small_cifar):
    (small_cifar.folder / "data_batch_3").unlink()
    archive = pack(small_cifar, ".gz", "w:gz")
    assert f"{archive} does not hold {FOLDER}/data_batch_3" in refuse(small_cifar)


def test_link_in_the_place_of_a_batch(small_cifar):
    (small_cifar.folder / "data_batch_3").unlink()
    (small_cifar.folder / "data_batch_3").symlink_to("data_batch_2")
    archive = pack(small_cifar, ".gz", "w:gz")
    assert f"{archive} does not hold {FOLDER}/data_batch_3" in refuse(small_cifar)


def test_folder_without_a_batch(small_cifar):
    path = small_cifar.folder / "data_batch_3"
    path.unlink()
    assert f"cannot read {path}: No such file or directory" in refuse(small_cifar)


def test_damaged_batch_is_named(small_cifar):
    path = small_cifar.folder / "data_batch_2"
    path.write_bytes(path.read_bytes()[:-20])
    assert f"{path} is truncated or corrupted" in refuse(small_cifar)
    archive = pack(small_cifar, ".xz", "w:xz")
    assert f"{FOLDER}/data_batch_2 in {archive} is truncated or corrupted" in refuse(small_cifar)


def test_wrong_type_and_label_are_named(small_cifar, formats):
    path = small_cifar.folder / "test_batch"
    encode = functools.partial(formats.encode_batch, small_cifar.held_out_images)
    path.write_bytes(encode(small_cifar.held_out_labels, dtype="u2"))
    assert f"{path} has data of type 'u2', not uint8" in refuse(small_cifar)
    path.write_bytes(encode(small_cifar.held_out_labels + 1))
    assert f"{path} has a label 10, outside 0 … 9" in refuse(small_cifar)


def test_more_than_there_is(small_cifar):
    with pytest.raises(InputError, match=r"^dataset\.train_size=51: cifar10 has 50 training images$"):
        cifar10.load(root=str(small_cifar.root), train_size=51, probe_size=8)
