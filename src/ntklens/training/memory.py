"""How many members fit into memory together, and how much there is."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import psutil


class MemoryNeed(NamedTuple):
    """Bytes at the peak: `shared` once, and `per_member` for each member trained together."""

    shared: int
    per_member: int

    def count_members(self, limit: float) -> int:
        """Return how many members fit into `limit` bytes; 0 if not even one does."""
        return max(0, int((limit - self.shared) // self.per_member))


def count_bytes(tree: Any) -> int:
    """Return the bytes of the arrays (or shapes) in a tree."""
    return sum(leaf.size * jnp.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree))


def find_free_memory() -> int:
    """Return the bytes that this process may still use: on the accelerator, else of the machine and its cgroup."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    free = psutil.virtual_memory().available
    return min([free, *find_cgroup_memory()])


def find_cgroup_memory(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> list[int]:
    """Return the bytes left in this process's control group and in those above it, as far as they set a limit."""
    if not membership.is_file():
        return []
    own = [line.partition("::")[2].strip("/") for line in membership.read_text().splitlines() if line.startswith("0::")]
    left = []
    for group in [root / path for path in own]:
        for folder in (group, *group.parents[: len(group.parents) - len(root.parents)]):
            limit, used = folder / "memory.max", folder / "memory.current"
            if limit.is_file() and used.is_file() and (text := limit.read_text().strip()) != "max":
                left.append(int(text) - int(used.read_text()))
    return left
