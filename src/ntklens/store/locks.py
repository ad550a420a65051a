"""Who computes what now: one lock per seed, held by the operating system, so that it ends with its holder.

A lock covers the byte at the seed's number in `<run>/.claims`. It needs no clock and no process number, and holds over
the nodes of a cluster where the file system has locks. Where it has none everything can be locked: two copies of a
seed are then computed, which costs time and harms nothing.
"""

import errno
import fcntl
import os
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ntklens.errors import InputError

FILE_NAME = ".claims"
SUBMISSION_NAME = ".submitting"  # a file of its own: closing a file gives up every lock that a process has on it
LAUNCHES = range(64)  # bytes of a sweep's own file: each launch holds one
HELD = (errno.EACCES, errno.EAGAIN)
TRIES = 3

_own: dict[str, set[int]] = {}  # what this process holds: closing any other descriptor of the file would release it


@contextmanager
def lock_seeds(run: Path, seeds: Collection[int]) -> Iterator[list[int]]:
    """Lock seeds of a run until the context ends.

    Args:
      run: the run's directory, which exists.
      seeds: which to lock.

    Yields:
      Those that no other process holds.

    Raises:
      InputError: if the run's directory cannot be written.
    """
    descriptor = _open(run / FILE_NAME)
    name = os.path.realpath(run)
    try:
        locked = {seed for seed in seeds if _try_lock(descriptor, seed)}
        for _ in range(TRIES):  # `find_locked` holds a lock for a moment
            if len(locked) < len(seeds):
                time.sleep(0.02)
                locked |= {seed for seed in seeds if seed not in locked and _try_lock(descriptor, seed)}
        _own[name] = locked
        yield sorted(locked)
    finally:
        _own.pop(name, None)
        os.close(descriptor)


class Locks:
    """Locks in a folder's file of locks that a process takes and gives back one by one; they end with the process.

    Args:
      folder: which exists; no other function here is called for it by this process.

    Raises:
      InputError: if the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.descriptor = _open(folder / FILE_NAME)

    def take(self, number: int) -> bool:
        """Take a lock, or keep it; return whether it is held."""
        return _lock(self.descriptor, number)

    def give_back(self, number: int) -> None:
        """Let others have a lock."""
        with suppress(OSError):
            fcntl.lockf(self.descriptor, fcntl.LOCK_UN, 1, number)


@contextmanager
def lock_launch(folder: Path) -> Iterator[None]:
    """Say, until the context ends, that a launch is at work on a sweep; several may be."""
    descriptor = _open(folder / FILE_NAME)
    try:
        next((place for place in LAUNCHES if _try_lock(descriptor, place)), None)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def lock_submission(folder: Path) -> Iterator[bool]:
    """Try to be the one launch that submits jobs of a sweep, until the context ends; yield whether it is."""
    descriptor = _open(folder / SUBMISSION_NAME)
    try:
        yield _lock(descriptor, 0)
    finally:
        os.close(descriptor)


def is_launched(folder: Path) -> bool:
    """Return whether a launch is at work on a sweep."""
    return bool(find_locked(folder, LAUNCHES))


def find_locked(run: Path, seeds: Iterable[int]) -> set[int]:
    """Return which seeds somebody is computing now; the results need not be writable."""
    if (own := _own.get(os.path.realpath(run))) is not None:
        return own & set(seeds)
    try:
        descriptor = os.open(run / FILE_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return set()
    try:
        return {seed for seed in seeds if not _try_lock(descriptor, seed, fcntl.LOCK_SH)}
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise InputError(f"paths.results: {path} cannot be written ({error.strerror})") from error


def _lock(descriptor: int, number: int) -> bool:
    """Try a few times to take a lock: whoever only looks, or waits for jobs, holds one for a moment."""
    for _ in range(TRIES):
        if _try_lock(descriptor, number):
            return True
        time.sleep(0.02)
    return _try_lock(descriptor, number)


def _try_lock(descriptor: int, seed: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.lockf(descriptor, kind | fcntl.LOCK_NB, 1, seed)
    except OSError as error:
        return error.errno not in HELD  # anything else: this file system has no locks
    return True
