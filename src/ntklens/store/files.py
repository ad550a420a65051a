"""Files that appear whole or not at all."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LEFTOVER_SECONDS = 3600.0


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside a file; what was written there takes the file's place, unless there was an error.

    Readers see the old file or the new one, whole.
    """
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, text: str, sync: bool = False) -> None:
    """Write a text file whole or not at all.

    Args:
      path: the file, replaced if it is there.
      text: its content.
      sync: whether it must survive a power failure from here on.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        if sync:
            file.flush()
            os.fsync(file.fileno())


def put_in_place(temporary: Path, path: Path) -> bool:
    """Link `temporary` to `path` unless there is a file, and return whether there was none."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
            raise
        if path.exists():  # a file system without hard links: two copies may both get here, either file is whole
            return False
        temporary.rename(path)
    return True
