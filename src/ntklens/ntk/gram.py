"""Gram matrices of gradients, Σ_p z[i, p] z2[j, p], summed over blocks of columns.

On a CPU a block stays in cache, and a symmetric matrix is computed as two or four block rows from the diagonal on; a
GPU takes the largest products that memory allows.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike

CPU_COLUMNS = 2048  # of one block: 320 rows of float32 take 2.6 MB
GPU_BYTES = 2**30  # of one block
SPLIT_ROWS = ((1024, 4), (128, 2), (0, 1))  # from so many rows on, a symmetric matrix is so many block rows


def uses_cpu() -> bool:
    """Whether programs are compiled for a CPU, where large products are best cut into pieces that stay in cache."""
    return jax.default_backend() == "cpu"


class Gram:
    """A sum of products z z2ᵀ [rows, columns] under way; symmetric if every z2 is z.

    The sum is a list of arrays, the block rows, that `add` maps to another, so that it may be carried by a loop.
    """

    def __init__(self, rows: int, columns: int, dtype: DTypeLike, *, is_symmetric: bool) -> None:
        self.rows, self.columns, self.dtype, self.is_symmetric = rows, columns, dtype, is_symmetric
        parts = next(parts for least, parts in SPLIT_ROWS if rows >= least) if is_symmetric and uses_cpu() else 1
        self.cuts = [(rows * k // parts, rows * (k + 1) // parts) for k in range(parts)]
        self.width = CPU_COLUMNS if uses_cpu() else max(CPU_COLUMNS, GPU_BYTES // (jnp.dtype(dtype).itemsize * rows))

    def start(self) -> list[Array]:
        """A sum of nothing."""
        if not self.is_symmetric:
            return [jnp.zeros((self.rows, self.columns), self.dtype)]
        return [jnp.zeros((stop - start, self.rows - start), self.dtype) for start, stop in self.cuts]

    def add(self, total: list[Array], z: Array, z2: Array) -> list[Array]:
        """Add z z2ᵀ, z [rows, P] and z2 [columns, P], in one step."""
        if not self.is_symmetric:
            return [total[0] + z @ z2.T]
        return [part + z[start:stop] @ z[start:].T for part, (start, stop) in zip(total, self.cuts, strict=True)]

    def add_columns(self, total: list[Array], z: Array, z2: Array) -> list[Array]:
        """Add z z2ᵀ by blocks of columns."""
        blocks = z.shape[1] // self.width
        if blocks <= 1:
            return self.add(total, z, z2)

        def step(total: list[Array], k: Array) -> tuple[list[Array], None]:
            start = k * self.width
            block = lax.dynamic_slice_in_dim(z, start, self.width, 1)
            return self.add(total, block, lax.dynamic_slice_in_dim(z2, start, self.width, 1)), None

        total, _ = lax.scan(step, total, jnp.arange(blocks))
        rest = blocks * self.width
        return self.add(total, z[:, rest:], z2[:, rest:]) if rest < z.shape[1] else total

    def add_outer(self, total: list[Array], left: tuple[Array, Array], right: tuple[Array, Array]) -> list[Array]:
        """Add the Gram of the gradients Σ_t a ⊗ δ, formed a few features at a time.

        Args:
            total: the sum so far.
            left: a [N, T, K] and δ [N, C, T, F] of the rows.
            right: the same of the columns.

        Returns:
            The sum.
        """
        width, features = left[0].shape[2], left[1].shape[3]
        fitting = [w for w in range(1, features + 1) if features % w == 0 and w * width <= 4 * self.width]
        step_features = max(fitting, default=1)

        def cut(delta: Array) -> Array:
            """[features / step, N, C step, T]."""
            n, c, t, f = delta.shape
            delta = delta.reshape(n, c, t, f // step_features, step_features)
            return delta.transpose(3, 0, 1, 4, 2).reshape(f // step_features, n, c * step_features, t)

        def form(delta: Array, a: Array) -> Array:
            n, c = delta.shape[0], delta.shape[1] // step_features
            return (delta @ a).reshape(n * c, step_features * width)

        def step(total: list[Array], deltas: tuple[Array, Array]) -> tuple[list[Array], None]:
            z = form(deltas[0], left[0])
            return self.add(total, z, z if self.is_symmetric else form(deltas[1], right[0])), None

        blocks = cut(left[1])
        deltas = (blocks, blocks if self.is_symmetric else cut(right[1]))
        if len(blocks) == 1:
            return step(total, (deltas[0][0], deltas[1][0]))[0]
        return lax.scan(step, total, deltas)[0]

    def finish(self, total: list[Array]) -> Array:
        """The matrix [rows, columns]."""
        if len(total) == 1:
            return total[0]
        whole = jnp.zeros((self.rows, self.rows), self.dtype)
        for part, (start, stop) in zip(total, self.cuts, strict=True):
            whole = whole.at[start:stop, start:].set(part).at[stop:, start:stop].set(part[:, stop - start :].T)
        return whole
