"""Why something failed, in one line that names what to change."""

import errno

from omegaconf import DictConfig

from ntklens.config.schemas import GIB
from ntklens.errors import InputError
from ntklens.jobs.process import PROCESS_BYTES

LOWER_MEMORY = "lower model.width, dataset.probe_size, dataset.train_size or training.batch_size"
# What a disk says when it is full or gone: no fault of the run, which the next launch continues.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ESTALE)


def describe_shortage(cfg: DictConfig, need: float, limit: float, process: int) -> str:
    """Return what to say where one seed needs more bytes than may be used: `need`, and `process` beside its arrays."""
    asked = cfg.ntk.memory_limit
    key = f"ntk.memory_limit={asked:g}" if asked else f"model.width={cfg.model.get('width')}"
    raised = "raise ntk.memory_limit, or " if asked else ""
    spared = f"tracking=none saves {(process - PROCESS_BYTES) / GIB:.2g}; " if process > PROCESS_BYTES else ""
    return (
        f"{key}: one seed of width {cfg.model.get('width')} needs about {(need + process) / GIB:.3g} GiB, "
        f"{process / GIB:.2g} of them for libraries; {limit / GIB:.3g} GiB may be used; "
        f"{spared}{raised}{LOWER_MEMORY}"
    )


def is_of_the_disk(error: BaseException) -> bool:
    """Return whether an error is the disk's, and no fault of the run."""
    return isinstance(error, OSError) and error.errno in DISK_ERRORS


def describe_failure(error: Exception) -> str:
    """Return one line; for want of memory, one that says what to lower."""
    lines = str(error).strip().splitlines()
    if isinstance(error, InputError):
        return lines[0]
    text = f"{type(error).__name__}: {lines[0] if lines else ''}"
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error) or "Out of memory" in str(error):
        return f"out of memory: {LOWER_MEMORY} ({text})"
    return text
