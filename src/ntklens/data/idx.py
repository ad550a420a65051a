"""IDX, the format of MNIST and its kin: a header of big-endian numbers, then bytes.

Source: Y. LeCun, C. Cortes, C. Burges, The MNIST database of handwritten digits, "File formats".
"""

import gzip
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ntklens.data.cache import describe_source, load_decoded
from ntklens.data.dataset import Dataset
from ntklens.data.files import RemoteFile, download_files, find_root, name_root
from ntklens.data.split import Pool, SplitOptions, build_dataset
from ntklens.errors import InputError

CLASSES = 10
TORCHVISION = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}  # its folders, which hold `raw`
SIDE = 28
UNSIGNED_BYTE = 0x08
TYPES = {0x08: "uint8", 0x09: "int8", 0x0B: "int16", 0x0C: "int32", 0x0D: "float32", 0x0E: "float64"}
KEYS = ("train_images", "train_labels", "held_out_images", "held_out_labels")


def load_idx_dataset(
    *,
    folder: str,
    files: Sequence[RemoteFile],
    content: str,
    root: str | None,
    name: str,
    input_dim: int | None,
    options: SplitOptions,
) -> Dataset:
    """Load a dataset of four IDX files: images and labels for training, images and labels held out.

    Args:
        folder: the folder below the root that holds the files.
        files: the four published files, in the order above; a file without its `.gz` is read too.
        content: what `cache.compute_content` gives for the published arrays.
        root: where to look; see `find_root`.
        name: name in messages and results.
        input_dim: dimension of the inputs; None leaves images as they are.
        options: which samples, checked.

    Returns:
        Dataset with inputs [n, 28, 28, 1] and 10 classes.

    Raises:
        InputError: files that are absent and cannot be downloaded, or are damaged; sizes that ask for too much.
    """
    base = find_root(root)
    place = _choose_place(base, folder, files)
    absent = [file for file in files if _find(place, file.name) is None]
    download_files(name, absent, place, f"{folder}/*-ubyte.gz")
    paths = [_find(place, file.name) or place / file.name for file in files]
    try:
        decoded = load_decoded(folder, paths, lambda: _decode(paths))
    except OSError as error:
        raise InputError(f"{name_root(base)}: cannot read {error.filename or place}: {error.strerror}") from error
    arrays = decoded.arrays
    return build_dataset(
        name=name,
        train=Pool(arrays["train_images"], arrays["train_labels"]),
        held_out=Pool(arrays["held_out_images"], arrays["held_out_labels"]),
        classes=CLASSES,
        scale=255,
        source=describe_source(place, decoded, content),
        input_dim=input_dim,
        **options,
    )


def read_idx(path: Path) -> np.ndarray:
    """Read an IDX file of unsigned bytes, compressed by gzip or not.

    Args:
        path: the file; its first bytes show whether it is compressed.

    Returns:
        uint8 array of the header's shape.

    Raises:
        InputError: the file is no such file, or its bytes are not as many as its header says.
        OSError: the file cannot be opened.
    """  # noqa: DOC501
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as error:
            raise _refuse(path, f"is truncated or corrupted ({error})") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in TYPES:
        raise _refuse(path, f"is no IDX file (it begins with {content[:4].hex() or 'nothing'})")
    if content[2] != UNSIGNED_BYTE:
        raise _refuse(path, f"holds {TYPES[content[2]]}, not uint8")
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise _refuse(path, "is truncated within its header")
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    size = int(np.prod(shape, dtype=object))
    if len(content) - start != size:
        raise _refuse(path, f"has {len(content) - start} bytes where its header says {size}")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def _decode(paths: Sequence[Path]) -> dict[str, np.ndarray]:
    arrays = [read_idx(path) for path in paths]
    for part in (0, 2):
        images, labels = arrays[part : part + 2]
        if images.ndim != 3 or images.shape[1:] != (SIDE, SIDE):
            raise _refuse(paths[part], f"has shape {images.shape}, not (images, {SIDE}, {SIDE})")
        if labels.ndim != 1:
            raise _refuse(paths[part + 1], f"has shape {labels.shape}, not (labels,)")
        if len(images) != len(labels):
            raise _refuse(paths[part + 1], f"has {len(labels)} labels for {len(images)} images")
        if not len(labels):
            raise _refuse(paths[part], "holds no images")
        if labels.max() >= CLASSES:
            raise _refuse(paths[part + 1], f"has a label {labels.max()}, beyond {CLASSES - 1}")
        arrays[part] = images[..., np.newaxis]
    return dict(zip(KEYS, arrays, strict=True))


def _choose_place(root: Path, folder: str, files: Sequence[RemoteFile]) -> Path:
    """Return torchvision's folder if that alone has all files; else our own, where what is absent is put."""
    ours, theirs = root / folder, root / TORCHVISION.get(folder, folder) / "raw"
    whole = [place for place in (ours, theirs) if all(_find(place, file.name) for file in files)]
    return whole[0] if whole else ours


def _find(place: Path, name: str) -> Path | None:
    return next((path for path in (place / name, place / name.removesuffix(".gz")) if path.exists()), None)


def _refuse(path: Path, reason: str) -> InputError:
    root = path.parents[2 if path.parent.name == "raw" else 1]
    return InputError(f"{name_root(root)}: {path} {reason}; put the published file there, or delete it to download it")
