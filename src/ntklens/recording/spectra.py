"""Kernels of single members, their spectra and full snapshots, measured on all cores while training goes on."""

import functools
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from threadpoolctl import threadpool_limits

from ntklens.machine import count_cores
from ntklens.ntk import metrics
from ntklens.ntk.regression import Regression, average_outputs
from ntklens.ntk.spectrum import Kernel, eigenvalues, flatten_kernel
from ntklens.ntk.weighted import weigh_leaves
from ntklens.recording.measure import ENGINES, Measurer, select_member
from ntklens.recording.quantities import DUE, PREVIOUS, Quantity
from ntklens.training.ensemble import PRECISION, Params


@functools.partial(jax.jit, static_argnames=("measurer",))
def compute_member_kernels(
    params: Params, member: jax.Array, probe: jax.Array, *, measurer: Measurer
) -> dict[str, jax.Array]:
    """Return {layer: its share of Θ, shape [N, C, N, C]} of one of the stacked members."""
    return ENGINES[measurer.engine].layer_kernels(measurer.kernel_apply, select_member(params, member), probe)


@functools.partial(jax.jit, static_argnames=("measurer",))
def compute_member_kernel(params: Params, member: jax.Array, probe: jax.Array, *, measurer: Measurer) -> jax.Array:
    """Return Θ, shape [N, C, N, C], of one of the stacked members."""
    return add_shares(compute_member_kernels(params, member, probe, measurer=measurer))


@functools.partial(jax.jit, static_argnames=("measurer",))
def compute_weighted_kernel(params: Params, member: jax.Array, probe: jax.Array, *, measurer: Measurer) -> jax.Array:
    """Return Σ_ℓ η_ℓ Θ_ℓ, shape [N, C, N, C], of one of the stacked members, with the rates η_ℓ of its leaves."""
    assert measurer.rates is not None
    function, values = weigh_leaves(measurer.kernel_apply, select_member(params, member), measurer.rates)
    return add_shares(ENGINES[measurer.engine].layer_kernels(function, values, probe))


@functools.partial(jax.jit, static_argnames=("measurer",))
def compute_averaged_kernel(params: Params, x1: jax.Array, x2: jax.Array, *, measurer: Measurer) -> jax.Array:
    """Return (1/C) Σ_c Θ[(i,c),(j,c)], shape [N, N2], of one member."""
    with jax.default_matmul_precision(PRECISION):
        return average_outputs(measurer.apply, params, x1, x2)


@dataclass
class KernelView:
    """What a quantity that is measured where a kernel is computed sees of a member; on the host, in float32 or float64.

    Attributes:
      epoch: passes over the training set.
      labels: those of the probe, shape [N].
      theta: Θ, shape [N, C, N, C]; None: the sum of `shares`.
      shares: {layer: its share of Θ}; empty where none is due that needs them.
      start: Θ at the start, where a quantity needs it.
      previous: (epoch, Θ) where a kernel was computed before, where a quantity needs it; None: there was none.
      params: the member's parameters, where a quantity needs them.
      others: Θ on the further probes, where a quantity needs it.
      sharpness: λ_max of the train loss's Hessian, where a quantity needs it.
      learning_rate: of the member; NaN where it is not known.
      limit: K of Θ_∞ = K ⊗ I_C, shape [N, N], where a quantity needs it.
      regression: how well kernel regression with Θ predicts the test samples, where a quantity needs it.
      limit_regression: the same with Θ_∞.
      projection: P of the kernel's outputs, shape [outputs, C]; None: C are all.
      weighted: Σ_ℓ η_ℓ Θ_ℓ with the rates of the leaves, where a quantity needs it; None: all rates are one, it is Θ.
    """

    epoch: float
    labels: np.ndarray | jax.Array
    theta: jax.Array | None = None
    shares: Mapping[str, jax.Array] = field(default_factory=dict)
    start: jax.Array | None = None
    previous: tuple[float, jax.Array] | None = None
    params: Params | None = None
    others: Sequence[jax.Array] = ()
    sharpness: float = math.nan
    learning_rate: float = math.nan
    weighted: jax.Array | None = None
    projection: np.ndarray | None = None
    limit: jax.Array | None = None
    regression: Regression | None = None
    limit_regression: Regression | None = None

    @functools.cached_property
    def kernel(self) -> jax.Array:
        """Θ, shape [N, C, N, C]."""
        return add_shares(self.shares) if self.theta is None else self.theta

    @functools.cached_property
    def matrix(self) -> np.ndarray:
        """Θ as a matrix in float64, shape [N·C, N·C]."""
        return np.asarray(flatten_kernel(self.kernel), np.float64)

    @functools.cached_property
    def eigenvalues(self) -> np.ndarray:
        """Eigenvalues of Θ, descending, shape [N·C]."""
        return eigenvalues(self.kernel)

    def measure_rank(self, kernel: Kernel) -> float:
        """Return the effective rank Γ of a kernel."""
        return metrics.effective_rank_from_eigenvalues(
            self.eigenvalues if kernel is self.kernel else eigenvalues(kernel)
        )


def add_shares(shares: Mapping[str, jax.Array]) -> jax.Array:
    """Return Θ, the sum over the layers."""
    return functools.reduce(jnp.add, shares.values())


def measure_kernel(quantities: Mapping[str, Quantity], moment: str, view: KernelView) -> dict[str, Any]:
    """Measure the quantities that are due where a kernel is computed.

    Args:
      quantities: those of the run.
      moment: a key of `DUE`.
      view: the member.

    Returns:
      name of a quantity → value; what compares with a kernel before is left out where there was none.
    """
    return {
        name: one.measure(view)
        for name, one in quantities.items()
        if one.measure and one.when in DUE[moment] and (PREVIOUS not in one.needs or view.previous)
    }


class SpectrumWorkers:
    """Measures spectra on all cores while training goes on.

    Few kernels wait at a time, so that memory stays bounded when training is faster.

    Args:
      at_once: whether many are measured at once, with one LAPACK thread each; or else one after another with as many
        threads as the process has, whose number is then left as it is.
    """

    def __init__(self, at_once: bool = True) -> None:
        threads = count_cores() if at_once else 1
        self.capacity = 2 * threads
        self.pool = ThreadPoolExecutor(threads, "spectrum")
        self.waiting: deque[Future] = deque()
        self.limits = threadpool_limits(1, user_api="blas") if at_once else None

    def submit(self, measure: Callable, *arguments: Any) -> Future:
        """Return the future of measure(*arguments)."""
        while len(self.waiting) >= self.capacity:
            self.waiting.popleft().result()
        self.waiting.append(self.pool.submit(measure, *arguments))
        return self.waiting[-1]

    def forget(self) -> None:
        """Drop what has not begun, and the futures that nobody waits for any more, with their errors."""
        for future in self.waiting:
            future.cancel()
        self.waiting.clear()

    def close(self) -> None:
        """Drop what has not begun, and give the other threads back."""
        self.pool.shutdown(wait=True, cancel_futures=True)
        if self.limits is not None:
            self.limits.restore_original_limits()
