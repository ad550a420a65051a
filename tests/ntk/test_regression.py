"""Kernel regression against the obvious formulas, and against gradient descent on a linear model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntklens.ntk.regression import RIDGE, average_outputs, regress
from references import compute_layer_kernels


def f(params, x):
    return jnp.tanh(x @ params["w"]) @ params["v"]


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.standard_normal((3, 7))), "v": jnp.asarray(rng.standard_normal((7, 3)))}
    return params, jnp.asarray(rng.standard_normal((6, 3))), jnp.asarray(rng.standard_normal((4, 3)))


def test_the_kernel_is_the_mean_over_outputs(problem):
    params, x1, x2 = problem
    theta = sum(compute_layer_kernels(f, params, x1, x2).values())
    np.testing.assert_allclose(average_outputs(f, params, x1, x2), np.einsum("icjc->ij", theta) / 3, rtol=1e-5)


def test_predictions_are_those_of_the_formula():
    rng = np.random.default_rng(1)
    features, across = rng.standard_normal((6, 9)), rng.standard_normal((5, 9))
    k, other = features @ features.T, across @ features.T
    start = rng.standard_normal((6, 3)), rng.standard_normal((5, 3))
    labels = rng.integers(3, size=6), rng.integers(3, size=5)
    ridge = RIDGE * np.mean(np.linalg.eigvalsh(k))
    wanted = start[1].copy()
    for output in range(3):
        target = (labels[0] == output) - start[0][:, output]
        wanted[:, output] += other @ np.linalg.inv(k + ridge * np.eye(6)) @ target
    found = regress(k, other, start, labels)
    assert found.loss == pytest.approx(np.mean((wanted - np.eye(3)[labels[1]]) ** 2))
    assert found.accuracy == np.mean(wanted.argmax(1) == labels[1])
    without = regress(k, other, (0 * start[0], 0 * start[1]), labels)
    assert without.loss != pytest.approx(found.loss)  # f_0 counts


def test_a_linear_model_trained_to_the_end_is_kernel_regression():
    """Its kernel never moves: gradient descent on the squared error ends where kernel regression says."""
    rng = np.random.default_rng(2)
    x, test = rng.standard_normal((5, 8)), rng.standard_normal((7, 8))
    labels = rng.integers(2, size=5), rng.integers(2, size=7)
    w = rng.standard_normal((8, 2))
    start = x @ w, test @ w
    for _ in range(20_000):
        w = w - 0.05 * x.T @ (x @ w - np.eye(2)[labels[0]]) / 5
    found = regress(x @ x.T, test @ x.T, start, labels, ridge=1e-12)
    assert found.loss == pytest.approx(np.mean((test @ w - np.eye(2)[labels[1]]) ** 2), rel=1e-6)
    moved = regress(2 * x @ x.T, test @ x.T, start, labels, ridge=1e-12)
    assert moved.loss != pytest.approx(found.loss, rel=1e-2)


def test_it_runs_compiled(problem):
    params, x1, x2 = problem
    compiled = jax.jit(lambda p, a, b: average_outputs(f, p, a, b))
    np.testing.assert_allclose(compiled(params, x1, x2), average_outputs(f, params, x1, x2), rtol=1e-5)
