import jax.numpy as jnp
import numpy as np
import pytest

from ntklens.ntk.spectrum import eigenvalues, find_sample_kernel


def make_kernel(samples, outputs, seed=0):
    factor = np.random.default_rng(seed).standard_normal((samples * outputs, 40)).astype(np.float32)
    return (factor @ factor.T).reshape(samples, outputs, samples, outputs)


def test_a_kernel_alike_for_all_outputs_has_its_eigenvalues_once_per_output():
    between = make_kernel(6, 1)[:, 0, :, 0]
    kernel = between[:, None, :, None] * np.eye(3, dtype=np.float32)[None, :, None, :]
    np.testing.assert_array_equal(find_sample_kernel(kernel), between)
    expected = np.linalg.eigvalsh(kernel.reshape(18, 18).astype(np.float64))[::-1]
    np.testing.assert_allclose(eigenvalues(jnp.asarray(kernel)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("place", [(5, 2, 5, 2), (3, 0, 4, 1), (0, 0, 0, 1)])
def test_one_entry_that_differs_is_noticed(place):
    between = make_kernel(6, 1)[:, 0, :, 0]
    kernel = between[:, None, :, None] * np.eye(3, dtype=np.float32)[None, :, None, :]
    kernel[place] += 1e-3
    assert find_sample_kernel(kernel) is None


def test_other_kernels_have_no_such_structure():
    assert find_sample_kernel(make_kernel(6, 3)) is None
    assert find_sample_kernel(make_kernel(6, 1)) is None
    assert find_sample_kernel(make_kernel(6, 1)[:, 0, :, 0]) is None
