"""Numbers that summarise a kernel. Nothing is divided by N or C unless the docstring says so."""

from typing import TypeAlias

import jax
import numpy as np

from ntklens.ntk.spectrum import Kernel, eigenvalues, flatten_kernel

Scalar: TypeAlias = np.floating | jax.Array


def trace(kernel: Kernel) -> Scalar:
    """Tr Θ = Σ_{i,c} Θ[(i,c),(i,c)], a magnitude; not divided by N or C.

    Args:
        kernel: array [N, C, N, C] or square.

    Returns:
        Scalar of the kernel's kind.

    Raises:
        ValueError: if the kernel has another shape.
    """
    return flatten_kernel(kernel).trace()


def effective_rank(kernel: Kernel) -> float:
    """Γ = exp(−Σ_k p_k ln p_k) with p the kernel's eigenvalues, clipped at 0 and normalised to sum 1.

    1 ≤ Γ ≤ rank Θ, and Γ(aΘ) = Γ(Θ). Source: Roy and Vetterli 2007.

    Args:
        kernel: array [N, C, N, C] or square.

    Returns:
        Γ; NaN if the kernel is not finite, or zero: p = 0/0 is then no distribution, and has no entropy.

    Raises:
        ValueError: if the kernel has another shape.
    """
    return effective_rank_from_eigenvalues(eigenvalues(kernel))


def effective_rank_from_eigenvalues(eigenvalues: np.ndarray) -> float:
    """Γ = exp(−Σ_k p_k ln p_k), p_k = max(λ_k, 0) / Σ_j max(λ_j, 0), 0 ln 0 = 0.

    Args:
        eigenvalues: array [K], in any order.

    Returns:
        Γ; NaN if one is not finite, or none is positive: p = 0/0 is then no distribution, and has no entropy.
    """
    clipped = np.maximum(np.asarray(eigenvalues, dtype=np.float64), 0)
    if not np.isfinite(clipped).all() or not clipped.any():
        return float("nan")
    weights = clipped / clipped.max()  # so that the sum cannot overflow
    weights = weights / weights.sum()
    weights = weights[weights > 0]
    return float(np.exp(-(weights * np.log(weights)).sum()))


def participation_ratio(kernel: Kernel) -> Scalar:
    """(Tr Θ)² / ‖Θ‖², the number of eigenvalues that take part; 1 ≤ it ≤ rank Θ.

    Args:
        kernel: array [N, C, N, C] or square.

    Returns:
        Scalar of the kernel's kind; NaN if the kernel is zero.

    Raises:
        ValueError: if the kernel has another shape.
    """
    matrix = flatten_kernel(kernel)
    with np.errstate(invalid="ignore"):
        # A kernel's largest entry is positive, on its diagonal; squares of large float32 kernels would overflow.
        scaled = matrix / matrix.max()
        return scaled.trace() ** 2 / (scaled**2).sum()


def trace_outputs(kernel: Kernel) -> Kernel:
    """The kernel between samples, K[i,j] = (1/C) Σ_c Θ[(i,c),(j,c)].

    Args:
        kernel: array [N, C, N2, C].

    Returns:
        Array [N, N2].

    Raises:
        ValueError: if the kernel has another shape.
    """
    if kernel.ndim != 4 or kernel.shape[1] != kernel.shape[3]:
        raise ValueError(f"tracing over outputs needs a kernel [N, C, N2, C], not {list(kernel.shape)}")
    return kernel.diagonal(axis1=1, axis2=3).mean(-1)


def centre_kernel(kernel: Kernel) -> Kernel:
    """The kernel of gradients less their mean over samples: H Θ H, H = 1 − (1/N) 1 1ᵀ acting on samples.

    Args:
        kernel: array [N, C, N, C], or [N, N] between samples.

    Returns:
        Array of the same shape.

    Raises:
        ValueError: if the kernel has another shape.
    """
    flatten_kernel(kernel)
    axis = kernel.ndim // 2
    rows = kernel - kernel.mean(0, keepdims=True)
    return rows - rows.mean(axis, keepdims=True)


def kernel_distance(kernel: Kernel, other: Kernel) -> float:
    """1 − ⟨Θ, Θ'⟩ / (‖Θ‖ ‖Θ'‖), in [0, 1] for positive semidefinite kernels; does not depend on their scales.

    Computed as ½ |Θ/‖Θ‖ − Θ'/‖Θ'‖|², which loses no digits where the kernels are close. Source: Fort et al. 2020,
    arXiv 2010.15110.

    Args:
        kernel: array of any shape.
        other: array of the same shape.

    Returns:
        The distance in float64; NaN if a kernel is zero or not finite.

    Raises:
        ValueError: if the shapes differ.
    """
    if kernel.shape != other.shape:
        raise ValueError(f"kernels of the same shape are compared, not {list(kernel.shape)} and {list(other.shape)}")
    difference = _normalise(kernel) - _normalise(other)
    return float(np.sum(difference**2) / 2)


def target_alignment(kernel: Kernel, labels: np.ndarray | jax.Array, projection: np.ndarray | None = None) -> float:
    """Centred kernel–target alignment yᵀ H Θ H y / (‖H Θ H‖ |H y|²), y one-hot labels, H = 1 − (1/N) 1 1ᵀ over samples.

    In [0, 1] for a positive semidefinite kernel; 1 if H Θ H is the kernel of the centred labels. Source: Cristianini et
    al. 2001; Baratin et al. 2021, arXiv 2008.00938.

    Args:
        kernel: array [N, C, N, C].
        labels: integers [N], in [0, C); where there is a projection, in [0, outputs).
        projection: [outputs, C], by which the kernel's function was multiplied, and y is; None: C are all outputs.

    Returns:
        The alignment in float64; NaN if the kernel is zero or not finite, or all labels are the same.

    Raises:
        ValueError: if the kernel has another shape.
    """
    samples, outputs = kernel.shape[:2]
    centred = flatten_kernel(centre_kernel(_normalise(kernel)))
    targets = (np.eye(outputs) if projection is None else projection)[np.asarray(labels)]
    targets = (targets - targets.mean(0)).reshape(samples * outputs)
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(targets @ centred @ targets / (np.sqrt(np.sum(centred**2)) * (targets @ targets)))


def _normalise(kernel: Kernel) -> np.ndarray:
    """The kernel over its Frobenius norm, in float64; NaN if it is zero or not finite."""
    matrix = np.asarray(kernel, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        matrix = matrix / np.max(np.abs(matrix))  # squares of large numbers would overflow
        return matrix / np.sqrt(np.sum(matrix**2))
