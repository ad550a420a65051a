"""Kernels of single members, their spectra and full snapshots, measured on all cores while training goes on."""

import functools
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from threadpoolctl import threadpool_limits

from ntklens.machine import count_cores
from ntklens.ntk import metrics
from ntklens.ntk.spectrum import eigenvalues
from ntklens.recording.measure import ENGINES, Measurer, select_member
from ntklens.training.ensemble import Params


@functools.partial(jax.jit, static_argnames=("measurer",))
def compute_member_kernels(
    params: Params, member: jax.Array, probe: jax.Array, *, measurer: Measurer
) -> dict[str, jax.Array]:
    """Return {layer: its share of Θ, shape (N, C, N, C)} of one of the stacked members."""
    return ENGINES[measurer.engine].layer_kernels(measurer.apply, select_member(params, member), probe)


@functools.partial(jax.jit, static_argnames=("measurer",))
def compute_member_kernel(params: Params, member: jax.Array, probe: jax.Array, *, measurer: Measurer) -> jax.Array:
    """Return Θ, shape (N, C, N, C), of one of the stacked members."""
    return functools.reduce(jnp.add, compute_member_kernels(params, member, probe, measurer=measurer).values())


def measure_spectrum(kernel: jax.Array) -> dict[str, Any]:
    """Return what a record holds of a kernel's spectrum.

    Args:
      kernel: Θ, shape (N, C, N, C).

    Returns:
      `eigenvalues` (N·C,), `effective_rank`, `effective_rank_traced`.
    """
    spectrum = eigenvalues(kernel)
    traced = eigenvalues(metrics.trace_outputs(kernel))
    return {
        "eigenvalues": spectrum,
        "effective_rank": metrics.effective_rank_from_eigenvalues(spectrum),
        "effective_rank_traced": metrics.effective_rank_from_eigenvalues(traced),
    }


def measure_layers(kernels: dict[str, jax.Array]) -> dict[str, Any]:
    """Return what a crossing holds beyond a record.

    Args:
      kernels: {layer: its share of Θ, shape (N, C, N, C)}.

    Returns:
      what `measure_spectrum` returns, and `effective_rank_layer` (layers,).
    """
    layers = [metrics.effective_rank_from_eigenvalues(eigenvalues(share)) for share in kernels.values()]
    return {**measure_spectrum(functools.reduce(jnp.add, kernels.values())), "effective_rank_layer": np.array(layers)}


def measure_snapshot(kernels: dict[str, jax.Array]) -> dict[str, Any]:
    """Return what the start and the minimum hold beyond a record.

    Args:
      kernels: {layer: its share of Θ, shape (N, C, N, C)}.

    Returns:
      what `measure_layers` returns, and `effective_rank_centred`.
    """
    centred = eigenvalues(metrics.centre_kernel(functools.reduce(jnp.add, kernels.values())))
    return {**measure_layers(kernels), "effective_rank_centred": metrics.effective_rank_from_eigenvalues(centred)}


class SpectrumWorkers:
    """Measures spectra on all cores while training goes on: many at once with one LAPACK thread each.

    Few kernels wait at a time, so that memory stays bounded when training is faster.
    """

    def __init__(self) -> None:
        cores = count_cores()
        self.capacity = 2 * cores
        self.pool = ThreadPoolExecutor(cores, "spectrum")
        self.waiting: deque[Future] = deque()
        self.limits = threadpool_limits(1, user_api="blas")

    def submit(self, measure: Callable, kernels: Any) -> Future:
        """Return the future of measure(kernels)."""
        while len(self.waiting) >= self.capacity:
            self.waiting.popleft().result()
        self.waiting.append(self.pool.submit(measure, kernels))
        return self.waiting[-1]

    def forget(self) -> None:
        """Drop what has not begun, and the futures that nobody waits for any more, with their errors."""
        for future in self.waiting:
            future.cancel()
        self.waiting.clear()

    def close(self) -> None:
        """Drop what has not begun, and give the other threads back."""
        self.pool.shutdown(wait=True, cancel_futures=True)
        self.limits.restore_original_limits()
