"""Eigenvalues of kernels."""

from typing import TypeAlias

import jax
import numpy as np
import scipy.linalg

Kernel: TypeAlias = np.ndarray | jax.Array


def flatten_kernel(kernel: Kernel) -> Kernel:
    """A kernel as a square matrix, sample-major.

    Args:
        kernel: array [N, C, N, C], or already square.

    Returns:
        Array [N C, N C].

    Raises:
        ValueError: for any other shape.
    """
    if kernel.ndim == 4 and kernel.shape[:2] == kernel.shape[2:]:
        return kernel.reshape(kernel.shape[0] * kernel.shape[1], -1)
    if kernel.ndim == 2 and kernel.shape[0] == kernel.shape[1]:
        return kernel
    raise ValueError(f"a kernel is an array [N, C, N, C] or square, not {list(kernel.shape)}")


def eigenvalues(kernel: Kernel) -> np.ndarray:
    """Eigenvalues of a symmetric kernel, largest first, in its own precision.

    By reduction to a tridiagonal matrix (LAPACK's sytrd through JAX) and the root-free QR iteration (sterf): what
    LAPACK's syevd does, to the bit. At 1280 × 1280 in float32 on one core both took 0.055 s, `jnp.linalg.eigvalsh`
    0.12 s; but scipy's syevd holds Python's lock, and two at once on two cores took 0.112 s, against 0.067 s.

    Args:
        kernel: array [N, C, N, C] or square; the lower triangle is read.

    Returns:
        Array [N C], all NaN if the kernel is not finite.

    Raises:
        ValueError: if the kernel has another shape.
    """
    matrix = flatten_kernel(kernel)
    host = np.asarray(kernel)
    if not np.isfinite(host).all():
        return np.full(len(matrix), np.nan, host.dtype)
    if (between_samples := find_sample_kernel(host)) is not None:
        return np.repeat(eigenvalues(between_samples), host.shape[1])
    if isinstance(matrix, jax.Array) and len(matrix) > 2:
        diagonal, beside = map(np.asarray, _tridiagonalise(matrix))
        return scipy.linalg.eigvalsh_tridiagonal(diagonal, beside, check_finite=False, lapack_driver="sterf")[::-1]
    return scipy.linalg.eigh(np.array(matrix), eigvals_only=True, driver="evd", check_finite=False)[::-1]


@jax.jit
def _tridiagonalise(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Diagonal [K] and subdiagonal [K − 1] of a similar tridiagonal matrix."""
    _, diagonal, beside, _ = jax.lax.linalg.tridiagonal(matrix, lower=True)
    return diagonal, beside


def find_sample_kernel(kernel: np.ndarray) -> np.ndarray | None:
    """Return K if Θ = K ⊗ I_C to the bit, as for a readout or an infinitely wide network; else None.

    Its spectrum is that of K, each value C times: a problem C³ times smaller.

    Args:
        kernel: array [N, C, N, C], or square.

    Returns:
        Array [N, N], or None.
    """
    if kernel.ndim != 4 or kernel.shape[1] == 1 or kernel[0, 0, :, 1:].any():
        return None
    between_samples = kernel[:, 0, :, 0]
    identity = np.eye(kernel.shape[1], dtype=kernel.dtype)
    same = np.array_equal(kernel, between_samples[:, None, :, None] * identity[None, :, None, :])
    return between_samples if same else None
