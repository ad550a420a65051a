"""How many members fit into memory together; counted from shapes, before anything is compiled."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import psutil

from ntklens.training.ensemble import Trainer


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


def count_activation_bytes(apply: Callable, params: Any, inputs: jax.ShapeDtypeStruct) -> int:
    """Return the bytes of every intermediate result of f(params, inputs): more than a gradient keeps."""
    program = jax.make_jaxpr(apply)(params, inputs).jaxpr
    return sum(count_bytes([variable.aval]) for equation in program.eqns for variable in equation.outvars)


def estimate_memory(
    trainer: Trainer,
    sample: jax.ShapeDtypeStruct,
    train_size: int,
    held_out_size: int,
    probe_size: int,
    batch: int,
    kept_kernels: int = 0,
) -> MemoryNeed:
    """Count the bytes that training and measuring need at their peak.

    Args:
      trainer: what trains.
      sample: shape and dtype of one input.
      train_size: training samples.
      held_out_size: test and selection samples.
      probe_size: samples N of the kernel.
      batch: samples per evaluation batch.
      kept_kernels: kernels that are kept of each member.

    Returns:
      Shared bytes (data, the kernel's workspace) and bytes per member (parameters, optimiser, snapshots, activations).
    """
    dtype = jnp.zeros(()).dtype
    params = jax.eval_shape(trainer.init, jax.random.key(0))
    opt_state = jax.eval_shape(trainer.optimizer(0.0).init, params)

    def activations(samples: int) -> int:
        return count_activation_bytes(
            trainer.apply, params, jax.ShapeDtypeStruct((samples, *sample.shape), sample.dtype)
        )

    probe = jax.ShapeDtypeStruct((probe_size, *sample.shape), sample.dtype)
    outputs = jax.eval_shape(trainer.apply, params, probe)
    samples = train_size + held_out_size + probe_size
    data = samples * count_bytes([sample])
    shares = len(jax.tree.leaves(params)) + 4
    kernel = activations(probe_size) * 2 * outputs.shape[1] + shares * outputs.size**2 * dtype.itemsize
    working = 2 * activations(trainer.batch_size or train_size) + count_bytes(params)
    traces = 2 * outputs.shape[1] * activations(probe_size)
    working = max(working, traces, activations(min(batch, max(train_size, held_out_size))))
    kept = 3 * count_bytes(params) + 2 * count_bytes(opt_state)  # now, initial, best; the optimiser's update is a copy
    kept += kept_kernels * outputs.size**2 * dtype.itemsize
    return MemoryNeed(data + kernel, kept + working)


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
