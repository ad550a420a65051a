import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntklens.ntk import metrics
from ntklens.ntk.spectrum import eigenvalues, flatten_kernel
from references import compute_effective_rank


def make_kernel(n=5, c=3, rank=9, seed=0, dtype=np.float64):
    jacobian = np.random.default_rng(seed).normal(size=(n, c, rank)).astype(dtype)
    return np.einsum("icp,jdp->icjd", jacobian, jacobian)


each_kind = pytest.mark.parametrize("kind", [np.asarray, jnp.asarray], ids=["numpy", "jax"])


@each_kind
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.usefixtures("x64")
def test_eigenvalues_are_those_of_numpy_in_descending_order(kind, dtype):
    kernel = make_kernel(dtype=dtype)
    values = eigenvalues(kind(kernel))
    expected = np.linalg.eigvalsh(kernel.reshape(15, 15).astype(np.float64))[::-1]
    assert values.dtype == dtype
    np.testing.assert_allclose(values, expected, rtol=0, atol=30 * np.finfo(dtype).eps * expected[0])
    assert (np.diff(values) <= 0).all()


@each_kind
def test_a_kernel_that_is_not_finite_has_nan_eigenvalues_and_rank(kind):
    kernel = make_kernel(dtype=np.float32)
    kernel[0, 0, 1, 1] = np.inf
    assert np.isnan(eigenvalues(kind(kernel))).all()
    assert np.isnan(metrics.effective_rank(kind(kernel)))


def test_eigenvalues_leave_the_kernel_as_it_was():
    kernel = np.asfortranarray(make_kernel().reshape(15, 15))
    before = kernel.copy()
    eigenvalues(kernel)
    np.testing.assert_array_equal(kernel, before)


@each_kind
@pytest.mark.usefixtures("x64")
def test_effective_rank_equals_the_oracle_and_ignores_scale(kind):
    kernel = make_kernel()
    expected = compute_effective_rank(kernel.reshape(15, 15))
    assert metrics.effective_rank(kind(kernel)) == pytest.approx(expected, rel=1e-10)
    assert metrics.effective_rank(kind(kernel.reshape(15, 15))) == pytest.approx(expected, rel=1e-10)
    assert metrics.effective_rank(kind(1e6 * kernel)) == pytest.approx(expected, rel=1e-10)
    assert 1 <= expected <= 9


def test_effective_rank_of_known_spectra():
    assert metrics.effective_rank(np.eye(7)) == pytest.approx(7)
    assert metrics.effective_rank(np.ones((7, 7))) == pytest.approx(1)


@each_kind
def test_a_zero_kernel_has_no_effective_rank(kind):
    """Its normalised spectrum is 0/0: any number, 0 or 1 too, would be a limit of some kernels and not of others."""
    assert np.isnan(metrics.effective_rank(kind(np.zeros((3, 2, 3, 2)))))
    assert metrics.effective_rank_from_eigenvalues(np.array([1.0, 1.0, 0.0, -1e-3])) == pytest.approx(2)
    assert metrics.effective_rank_from_eigenvalues(np.array([3.0, 1.0])) == pytest.approx(
        np.exp(-0.75 * np.log(0.75) - 0.25 * np.log(0.25))
    )
    assert metrics.effective_rank_from_eigenvalues(np.full(3, 3e38, np.float32)) == pytest.approx(3)


def test_effective_rank_of_nothing_is_nan():
    assert np.isnan(metrics.effective_rank(np.zeros((4, 4))))
    assert np.isnan(metrics.effective_rank_from_eigenvalues(np.array([1.0, np.nan])))
    assert np.isnan(metrics.effective_rank_from_eigenvalues(np.array([np.inf, 1.0])))
    assert np.isnan(metrics.participation_ratio(np.zeros((4, 4))))


@each_kind
def test_trace_is_the_sum_of_the_diagonal_without_division(kind):
    kernel = make_kernel(dtype=np.float32)
    expected = sum(kernel[i, c, i, c] for i in range(5) for c in range(3))
    assert float(metrics.trace(kind(kernel))) == pytest.approx(expected, rel=1e-6)
    assert float(metrics.trace(kind(kernel.reshape(15, 15)))) == pytest.approx(expected, rel=1e-6)


@each_kind
def test_participation_ratio_counts_equal_eigenvalues(kind):
    assert float(metrics.participation_ratio(kind(np.diag([2.0, 2.0, 0.0]).astype(np.float32)))) == pytest.approx(2)
    kernel = make_kernel(dtype=np.float32)
    values = np.linalg.eigvalsh(kernel.reshape(15, 15))
    ratio = float(metrics.participation_ratio(kind(1e25 * kernel)))
    assert ratio == pytest.approx(values.sum() ** 2 / (values**2).sum(), rel=1e-4)


@each_kind
def test_tracing_over_outputs_divides_by_their_number(kind):
    kernel = make_kernel(dtype=np.float32)
    expected = sum(kernel[:, c, :, c] for c in range(3)) / 3
    np.testing.assert_allclose(metrics.trace_outputs(kind(kernel)), expected, rtol=1e-5)
    assert metrics.trace_outputs(kind(kernel[:, :, :2])).shape == (5, 2)


@each_kind
def test_centred_kernel_is_that_of_centred_gradients(kind):
    jacobian = np.random.default_rng(0).normal(size=(5, 3, 9)).astype(np.float32)
    centred = jacobian - jacobian.mean(0, keepdims=True)
    kernel = np.einsum("icp,jdp->icjd", jacobian, jacobian)
    expected = np.einsum("icp,jdp->icjd", centred, centred)
    np.testing.assert_allclose(metrics.centre_kernel(kind(kernel)), expected, atol=1e-4)
    traced = metrics.centre_kernel(metrics.trace_outputs(kind(kernel)))
    np.testing.assert_allclose(traced, metrics.trace_outputs(expected), atol=1e-4)


def test_what_can_be_traced_is():
    kernel = jnp.asarray(make_kernel(dtype=np.float32))
    together = jax.jit(
        lambda k: (metrics.trace(k), metrics.participation_ratio(k), metrics.trace_outputs(k), metrics.centre_kernel(k))
    )(kernel)
    assert all(np.isfinite(value).all() for value in together)


@pytest.mark.parametrize("shape", [(3,), (3, 4), (2, 3, 4, 3), (2, 2, 2)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"\[N, C, N, C\] or square"):
        flatten_kernel(np.zeros(shape))
