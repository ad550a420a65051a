"""Compiled programs, kept from one run of the tests to the next, in a folder that all clones of one user share.

JAX keys a program by its text, the compiler's options and the versions of jaxlib and XLA: what is kept is never stale.
"""

import atexit
import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from ntklens._compat import describe_processor

CACHES = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
FOLDER = CACHES / "ntklens" / "test-programs"
KINDS = {
    "JAX_COMPILATION_CACHE_DIR": str,
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": float,
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": int,
}
LIMIT = 500_000_000  # bytes; a whole run of the tests leaves about a third of it


def share(folder: Path = FOLDER) -> dict[str, str]:
    """Return JAX's settings for a folder of compiled programs: one given from outside, ours, or a temporary one."""
    settings = {
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    if chosen := os.environ.get("JAX_COMPILATION_CACHE_DIR"):  # also in the workers of pytest-xdist, which inherit it
        return settings | {"JAX_COMPILATION_CACHE_DIR": chosen}
    try:
        place = folder / describe_processor()
        place.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=place).close()
        prune(folder, LIMIT)
    except OSError:
        place = Path(tempfile.mkdtemp(prefix="ntklens-tests-"))
        atexit.register(shutil.rmtree, place, ignore_errors=True)
    return settings | {"JAX_COMPILATION_CACHE_DIR": str(place)}


def prune(folder: Path, limit: int) -> None:
    """Remove the programs used longest ago until those left take half the limit, if together they exceed it."""
    found = []
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # another run removes them too
            if path.is_file():
                stat = path.stat()
                found.append((max(stat.st_atime, stat.st_mtime), stat.st_size, path))
    total = sum(size for _, size, _ in found)
    if total <= limit:
        return
    for _, size, path in sorted(found):
        path.unlink(missing_ok=True)
        total -= size
        if total <= limit / 2:
            return
