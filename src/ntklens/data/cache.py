"""Decoded arrays on disk, memory-mapped: a source is decompressed and checked once, not by every job."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ntklens.data.files import find_cache

FORMAT = 2  # raise it whenever a decoder changes what it returns


@dataclass(frozen=True, eq=False)
class Decoded:
    """Arrays by name, perhaps memory-mapped, the SHA-256 of each file that they come from, and that of the arrays.

    The same samples have one `content`, however their files are packed.
    """

    arrays: dict[str, np.ndarray]
    files: dict[str, str]
    content: str


def load_decoded(name: str, files: Sequence[Path], decode: Callable[[], dict[str, np.ndarray]]) -> Decoded:
    """Return what `decode` returns, from the cache where it holds what these files gave before.

    An entry is named by the resolved path, size and modification time of each file. It is written under a temporary
    name and renamed, so any number of jobs may start at once. A cache that is damaged or cannot be written costs time,
    nothing else.

    Args:
        name: what the entry is called for human eyes.
        files: the source files.
        decode: reads and checks the source files.

    Returns:
        The arrays by name, the SHA-256 of the files by name, and that of the arrays.

    Raises:
        OSError: a source file cannot be read.
    """
    entry = find_cache() / "decoded" / f"{name}-{_identify(files)}"
    found = _read(entry)
    if found is None:
        arrays = decode()
        found = Decoded(arrays, {path.name: compute_sha256(path) for path in files}, compute_content(arrays))
        with contextlib.suppress(OSError):
            _write(entry, found)
    return found


def describe_source(place: Path, decoded: Decoded, published: str) -> dict[str, Any]:
    """Return what a provenance says of samples that come from files.

    Args:
        place: the file, or the folder of the files.
        decoded: what they hold.
        published: the `content` of the samples as they were published.

    Returns:
        `source`, `files`, `content`, and `published`: whether these are the published samples.
    """
    return {
        "source": str(place),
        "files": decoded.files,
        "content": decoded.content,
        "published": decoded.content == published,
    }


def compute_sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def compute_content(arrays: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 of the names, dtypes, shapes and bytes of arrays, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape} ".encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()


def _identify(files: Sequence[Path]) -> str:
    states = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(json.dumps([FORMAT, states]).encode()).hexdigest()[:16]


def _read(entry: Path) -> Decoded | None:
    try:
        index = json.loads((entry / "index.json").read_text())
        arrays = {name: np.load(entry / f"{name}.npy", mmap_mode="r") for name in index["arrays"]}
        described = {name: _describe(array) for name, array in arrays.items()}
        found = Decoded(arrays, dict(index["files"]), str(index["content"]))
        return found if described == index["arrays"] else None
    except (OSError, ValueError, TypeError, KeyError, EOFError):
        return None


def _write(entry: Path, decoded: Decoded) -> None:
    entry.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=entry.parent, ignore_cleanup_errors=True) as temporary:
        new = Path(temporary) / "entry"
        new.mkdir()
        for name, array in decoded.arrays.items():
            with open(new / f"{name}.npy", "wb") as stream:
                np.save(stream, array)
                os.fsync(stream.fileno())
        arrays = {name: _describe(array) for name, array in decoded.arrays.items()}
        index = {"arrays": arrays, "files": decoded.files, "content": decoded.content}
        (new / "index.json").write_text(json.dumps(index))
        if _read(entry) is None:
            # What is there is damaged: it goes aside in one step, so that no reader sees half of it.
            with contextlib.suppress(OSError):
                os.rename(entry, Path(temporary) / "damaged")
        # Fails where another job was first, whose entry is as good.
        os.rename(new, entry)


def _describe(array: np.ndarray) -> list[Any]:
    return [str(array.dtype), list(array.shape)]
