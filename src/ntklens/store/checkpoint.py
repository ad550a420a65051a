"""What a seed needs to go on where it was: arrays written by orbax, believed only if their checksum holds.

`<seed>/checkpoint/<step>/` holds the arrays, `<step>.json` beside it appears when they are complete. The last two are
kept, so that a damaged one falls back to the one before.
"""

import errno
import functools
import hashlib
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ntklens.store.files import write_atomically

DIRECTORY_NAME = "checkpoint"
KEPT = 2
SPARE_BYTES = 64 << 10  # beyond the arrays, for orbax's own files


class Checkpoint(NamedTuple):
    """A nested dict or list of arrays, how far it is, and the plain values stored with it."""

    step: int
    arrays: Any
    details: dict[str, Any]


def save_checkpoint(directory: Path, step: int, arrays: Any, identity: str, **details: Any) -> None:
    """Write a checkpoint beside the last one, and remove those before.

    Args:
      directory: the seed's directory.
      step: updates done.
      arrays: nested dicts and lists of arrays.
      identity: what `load_checkpoint` must be given to believe it.
      details: plain values to keep with it.

    Raises:
      OSError: if the disk is full or cannot be written; the checkpoints before are then still there.
    """
    import jax  # not above: who only asks for checkpoints, or removes them, does not wait for it

    folder = directory / DIRECTORY_NAME
    folder.mkdir(parents=True, exist_ok=True)
    arrays = jax.tree.map(np.asarray, arrays)
    size = sum(array.nbytes for array in jax.tree.leaves(arrays))
    if shutil.disk_usage(folder).free < 2 * size + SPARE_BYTES:  # orbax takes a full disk, but not quietly
        raise OSError(errno.ENOSPC, f"checkpoint not written: {os.strerror(errno.ENOSPC)}")
    target = folder / str(step)
    notes = target.with_suffix(".json")
    if notes.exists():
        return
    shutil.rmtree(target, ignore_errors=True)
    try:
        _open_checkpointer().save(target.resolve(), arrays)
        _open_checkpointer().wait_until_finished()
    except OSError:
        raise
    except Exception as error:  # orbax and tensorstore have their own kinds for a full disk
        raise OSError(f"checkpoint not written: {describe_error(error)}") from error
    text = json.dumps({"step": step, "identity": identity, "checksum": compute_checksum(target), **details})
    write_atomically(notes, text, sync=True)
    for old in _find_steps(folder)[KEPT:]:
        (folder / f"{old}.json").unlink(missing_ok=True)
    for entry in folder.iterdir():  # also what an interrupted save left
        if entry.is_dir() and not entry.with_suffix(".json").exists():
            shutil.rmtree(entry, ignore_errors=True)


def load_checkpoint(directory: Path, identity: str) -> Checkpoint | None:
    """Return the furthest checkpoint that is whole and of this identity; damaged ones are reported and skipped.

    Args:
      directory: the seed's directory.
      identity: what `save_checkpoint` was given.
    """  # noqa: DOC501
    import jax

    folder = directory / DIRECTORY_NAME
    for step in _find_steps(folder):
        path = folder / str(step)
        try:
            details = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            if details.pop("identity") != identity:
                _reject(path)
                continue
            if compute_checksum(path) != details.pop("checksum"):
                raise ValueError("its checksum differs")
            arrays = jax.tree.map(np.asarray, _open_checkpointer().restore(path.resolve()))
        except Exception as error:  # whatever a damaged file makes its reader say
            print(f"{path}: damaged checkpoint skipped ({describe_error(error)})", file=sys.stderr)
            if not isinstance(error, OSError | MemoryError):  # which say nothing of the checkpoint itself
                _reject(path)
            continue
        return Checkpoint(step, arrays, details)
    return None


def _reject(path: Path) -> None:
    """Remove a checkpoint that is not believed: it would be taken for the furthest for ever."""
    path.with_suffix(".json").unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def find_checkpoint_step(directory: Path) -> int:
    """Return how far the furthest checkpoint is, 0 if there is none; it is not looked into."""
    return next(iter(_find_steps(directory / DIRECTORY_NAME)), 0)


def read_checkpoint_details(directory: Path) -> dict[str, Any] | None:
    """Return what is noted of the furthest checkpoint; None if there is none. It is not looked into."""
    folder = directory / DIRECTORY_NAME
    for step in _find_steps(folder):
        try:
            details = json.loads((folder / f"{step}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(details, dict):
            return details
    return None


def remove_checkpoints(directory: Path) -> None:
    """Remove what a finished seed needs no more."""
    shutil.rmtree(directory / DIRECTORY_NAME, ignore_errors=True)


def measure_write_rate(folder: Path) -> float:
    """Return the bytes per second that a folder's disk takes, by writing 64 MiB and removing them.

    Args:
      folder: need not exist; the nearest folder above it that does is written to.

    Raises:
      OSError: if it cannot be written.
    """
    place = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    content = os.urandom(64 << 20)
    with tempfile.TemporaryFile(dir=place) as file:
        started = time.perf_counter()
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        return len(content) / (time.perf_counter() - started)


def describe_error(error: Exception) -> str:
    """Return an error's kind and the beginning of what it says: orbax's lines are a thousand characters long."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"


def compute_checksum(folder: Path) -> str:
    """Return BLAKE2b of the names and bytes of the files below a folder.

    Of files and not of arrays: a damaged one is never given to a reader that answers in threads of its own.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(entry for entry in folder.rglob("*") if entry.is_file()):
        digest.update(f"{path.relative_to(folder)} {path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _find_steps(folder: Path) -> list[int]:
    """Return the steps of the complete checkpoints, the furthest first."""
    try:
        names = [entry.name for entry in os.scandir(folder)]
    except OSError:
        return []
    return sorted((int(name[:-5]) for name in names if name.endswith(".json") and name[:-5].isdigit()), reverse=True)


@functools.cache
def _open_checkpointer() -> Any:
    """Return an orbax checkpointer that says nothing of its own; one per process, its event loop outlives an error."""
    import orbax.checkpoint as ocp  # a second to import: only where a checkpoint is written or read

    logging.getLogger("absl").setLevel(logging.ERROR)
    return ocp.StandardCheckpointer()
