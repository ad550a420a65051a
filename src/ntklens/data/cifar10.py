"""CIFAR-10: colour images of 32 × 32 pixels, 50000 for training and 10000 held out."""

import bz2
import gzip
import lzma
import re
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, Unpack

import numpy as np

from ntklens.data.batch import CLASSES, BatchError, decode_batch
from ntklens.data.cache import describe_source, load_decoded
from ntklens.data.dataset import Dataset
from ntklens.data.files import RemoteFile, download_files, find_root, name_root
from ntklens.data.split import Pool, SplitOptions, build_dataset, complete_options
from ntklens.errors import InputError

ARCHIVE = RemoteFile(
    "cifar-10-python.tar.gz",
    "c58f30108f718f92721af3b95e74349a",
    ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",),
)
CONTENT = "86a4131a2d3a0fe637d4d65089285df9378446f90ce3efbdc164320ff69324c8"  # of the published samples, decoded
ARCHIVES = re.compile(r"cifar-10-python\.tar(\.\w+)?")
FOLDER = "cifar-10-batches-py"
TRAINING_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
BATCHES = (*TRAINING_BATCHES, "test_batch")
# By the first bytes of an archive.
OPENERS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"\xfd7zXZ\0": lzma.open, b"BZh": bz2.open}


def load(
    *,
    root: str | None = None,
    name: str = "cifar10",
    input_dim: int | None = None,
    **options: Unpack[SplitOptions],
) -> Dataset:
    """Load CIFAR-10 from `cifar10/` below the root, or from the root itself.

    What is absent is downloaded. Inputs are pixel/255.

    The published batches are read from the folder `cifar-10-batches-py` or, without unpacking it, from the archive
    `cifar-10-python.tar`, uncompressed or compressed by gzip, bzip2 or xz.

    Args:
        root: where to look; None means NTKLENS_DATA, else ntklens's cache.
        name: name in messages and results.
        input_dim: dimension of the inputs, see `dimension.change_dimension`; None leaves images as they are.
        **options: see `SplitOptions`; by default 100 training samples.

    Returns:
        Dataset with inputs [n, 32, 32, 3], or [n, input_dim], and 10 classes.

    Raises:
        InputError: files that are absent and cannot be downloaded, or are damaged; sizes that ask for too much.

    Source: A. Krizhevsky (2009), Learning multiple layers of features from tiny images.
    """
    complete = complete_options(options, train_size=100)
    base = find_root(root)
    place = base / "cifar10"
    if _find(place, base) is None:
        download_files(name, [ARCHIVE], place, f"cifar10/{FOLDER}/ or cifar10/{ARCHIVE.name}")
    source = _find(place, base) or place / ARCHIVE.name
    try:
        if source.is_dir():
            files = [source / batch for batch in BATCHES]
            decoded = load_decoded(name, files, lambda: _decode(source, _read_folder(source)))
        else:
            decoded = load_decoded(name, [source], lambda: _decode(source, _read_archive(source)))
    except OSError as error:
        raise InputError(f"{name_root(base)}: cannot read {error.filename or place}: {error.strerror}") from error
    arrays = decoded.arrays
    return build_dataset(
        name=name,
        train=Pool(arrays["train_images"], arrays["train_labels"]),
        held_out=Pool(arrays["held_out_images"], arrays["held_out_labels"]),
        classes=CLASSES,
        scale=255,
        source=describe_source(source, decoded, CONTENT),
        input_dim=input_dim,
        **complete,
    )


def _find(*places: Path) -> Path | None:
    """Return the unpacked folder or the archive, in our folder or at the root, where torchvision puts it."""
    for place in places:
        if (place / FOLDER).is_dir():
            return place / FOLDER
        names = [path for path in place.iterdir() if ARCHIVES.fullmatch(path.name)] if place.is_dir() else []
        if names:
            return min(names)
    return None


def _read_folder(folder: Path) -> dict[str, bytes]:
    return {batch: (folder / batch).read_bytes() for batch in BATCHES}


def _read_archive(archive: Path) -> dict[str, bytes]:
    with open(archive, "rb") as stream:
        beginning = stream.read(6)
    open_stream: Callable[..., Any] = next(
        (opener for magic, opener in OPENERS.items() if beginning.startswith(magic)), open
    )
    batches = {}
    try:
        # Read as a stream: each byte is decompressed once, and nothing is unpacked to disk.
        with open_stream(archive, "rb") as stream:
            with tarfile.open(fileobj=stream, mode="r|") as members:
                for member in members:
                    path = PurePosixPath(member.name)
                    content = members.extractfile(member) if member.isfile() else None
                    if content is not None and path.parent.name == FOLDER and path.name in BATCHES:
                        batches[path.name] = content.read()
            while stream.read(1 << 20):  # up to the end, where the compressors keep their checksums
                pass
    except (tarfile.TarError, EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise _refuse(archive, f"is truncated, corrupted or no tar archive ({error})", archive) from error
    if missing := [batch for batch in BATCHES if batch not in batches]:
        raise _refuse(archive, f"does not hold {FOLDER}/{missing[0]}", archive)
    return batches


def _decode(source: Path, batches: dict[str, bytes]) -> dict[str, np.ndarray]:
    decoded = {}
    for name, content in batches.items():
        try:
            decoded[name] = decode_batch(content)
        except BatchError as error:
            file = source / name if source.is_dir() else f"{FOLDER}/{name} in {source}"
            raise _refuse(file, str(error), source) from error
    images, labels = zip(*(decoded[name] for name in TRAINING_BATCHES), strict=True)
    return {
        "train_images": np.concatenate(images),
        "train_labels": np.concatenate(labels),
        "held_out_images": decoded["test_batch"][0],
        "held_out_labels": decoded["test_batch"][1],
    }


def _refuse(file: Path | str, reason: str, source: Path) -> InputError:
    root = source.parents[1 if source.parent.name == "cifar10" else 0]
    return InputError(
        f"{name_root(root)}: {file} {reason}; put the published data there, or delete the damaged to download them"
    )
