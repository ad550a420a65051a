"""Slope and sharpness against the Hessian itself, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntklens.training import curvature
from ntklens.training.curvature import measure_sharpness, measure_slope
from problems import make_problem


@pytest.fixture(params=["cross_entropy", "mse"])
def case(request):
    trainer, data = make_problem(width=4, loss=request.param, dim=5)
    params = trainer.init(jax.random.key(3))
    return trainer, params, jnp.asarray(data.train.inputs), jnp.asarray(data.train.labels)


def compute_hessian(trainer, params, inputs, labels):
    """∇²L, whole, in float64; and L and ∇L."""
    with jax.enable_x64(True):
        flat, unravel = jax.flatten_util.ravel_pytree(jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params))
        inputs = inputs.astype(jnp.float64)

        def mean(flat):
            return jnp.mean(trainer.loss(trainer.apply(unravel(flat), inputs), labels))

        return np.asarray(jax.hessian(mean)(flat)), float(mean(flat)), np.asarray(jax.grad(mean)(flat))


@pytest.mark.parametrize(
    "batch", [pytest.param(2048, marks=pytest.mark.slow), 10]
)  # 32 samples: one batch, or four, the last filled up
def test_slope_and_sharpness_are_those_of_the_hessian(case, batch, monkeypatch):
    trainer, params, inputs, labels = case
    monkeypatch.setattr(curvature, "BATCH", batch)
    for program in (curvature.measure_slope, curvature.multiply_once):
        program.clear_cache()  # they do not know of BATCH
    hessian, loss, gradient = compute_hessian(*case)
    kind = {"apply": trainer.apply, "loss": trainer.loss}
    slope = measure_slope(params, inputs, labels, **kind)
    assert float(slope.loss) == pytest.approx(loss, rel=1e-5)
    np.testing.assert_allclose(jax.flatten_util.ravel_pytree(slope.gradient)[0], gradient, atol=1e-6)
    values = np.linalg.eigvalsh(hessian)
    assert measure_sharpness(params, inputs, labels, **kind) == pytest.approx(values[-1], rel=1e-3)
    assert values[-1] > 1.05 * values[-2]  # so that a neighbour would not do


def test_the_largest_eigenvalue_is_meant_also_where_another_is_larger_in_magnitude():
    def apply(params, inputs):  # loss = Σ a_k θ_k² / 2
        return jnp.sum(jnp.array([[-5.0, -1.0, 2.0]]) * params**2, axis=1, keepdims=True) / 2 + 0 * inputs

    sharpness = measure_sharpness(
        jnp.zeros((1, 3)), jnp.ones((1, 1)), jnp.zeros(1, int), apply=apply, loss=lambda f, _: f[:, 0]
    )
    assert sharpness == pytest.approx(2, rel=1e-3)


def test_a_loss_that_is_not_finite_has_no_sharpness():
    trainer, data = make_problem(width=4, dim=5)
    params = jax.tree.map(lambda leaf: leaf * jnp.nan, trainer.init(jax.random.key(0)))
    kind = {"apply": trainer.apply, "loss": trainer.loss}
    assert np.isnan(measure_sharpness(params, jnp.asarray(data.train.inputs), jnp.asarray(data.train.labels), **kind))
