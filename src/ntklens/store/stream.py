"""A file as HDF5 needs it, where names change and disks fill up."""

import atexit
import io
import os
import sys
from pathlib import Path
from typing import Any


class Stream(io.RawIOBase):
    """A file for h5py: no lock is taken, it stays readable when another takes its name, and forked processes share it.

    HDF5 cannot bear an error while it writes: the first one is kept, and nothing is written any more.

    Args:
      path: the file.
      flags: of `os.open`.

    Attributes:
      error: why not all was written.
    """

    def __init__(self, path: Path, flags: int = os.O_RDONLY) -> None:
        self.descriptor = os.open(path, flags | getattr(os, "O_CLOEXEC", 0), 0o666)
        self.position = 0
        self.error: OSError | None = None

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def writable(self) -> bool:
        """Return True: HDF5 knows what it may do."""
        return True

    def fileno(self) -> int:
        """Return the descriptor."""
        return self.descriptor

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position, of this process alone."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.position}
        self.position = offset + (os.fstat(self.descriptor).st_size if whence == os.SEEK_END else start[whence])
        return self.position

    def tell(self) -> int:
        """Return the position."""
        return self.position

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, as far as the file goes."""
        count = os.preadv(self.descriptor, [buffer], self.position)
        self.position += count
        return count

    def write(self, data: Any) -> int:
        """Write everything, unless there was an error."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while rest and self.error is None:
                count = os.pwrite(self.descriptor, rest, self.position)
                self.position, rest = self.position + count, rest[count:]
        except OSError as error:
            self.error = error
        self.position += len(rest)
        return size

    def truncate(self, size: int | None = None) -> int:
        """Change the size, unless there was an error."""
        size = self.position if size is None else size
        try:
            if self.error is None:
                os.ftruncate(self.descriptor, size)
        except OSError as error:
            self.error = error
        return size

    def close(self) -> None:
        """Give the descriptor back."""
        if not self.closed:
            super().close()
            os.close(self.descriptor)

    def __reduce__(self) -> tuple:
        """Pickle the content: by then, a file of this name may be another."""
        return io.BytesIO, (os.pread(self.descriptor, os.fstat(self.descriptor).st_size, 0),)


@atexit.register
def close_streams() -> None:
    """Close what HDF5 still reads through Python: it closes files after Python has ended, and crashes on these."""
    if h5py := sys.modules.get("h5py"):
        for file in h5py.h5f.get_obj_ids(types=h5py.h5f.OBJ_FILE):
            if file.get_access_plist().get_driver() == h5py.h5fd.fileobj_driver:
                h5py.File(file).close()
