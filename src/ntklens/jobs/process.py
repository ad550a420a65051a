"""What a process needs before its first array."""

from typing import TYPE_CHECKING

from omegaconf import DictConfig

from ntklens.config.construct import construct

if TYPE_CHECKING:  # its module imports JAX, which telling the state of a sweep does not need
    pass


PROCESS_BYTES = 450 << 20  # of a process with its libraries, before the first array


def count_process_bytes(cfg: DictConfig) -> int:
    """Return the bytes of a process that computes, and of what tracks it, before its first array."""
    return PROCESS_BYTES + int(construct(cfg.tracking).memory)
