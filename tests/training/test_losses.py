import jax.numpy as jnp
import numpy as np
import pytest

from ntklens.training.losses import cross_entropy, mse


def test_cross_entropy_of_equal_logits_is_log_of_the_classes():
    assert cross_entropy(jnp.zeros((1, 10)), jnp.array([3])) == pytest.approx(np.log(10), rel=1e-6)


def test_cross_entropy_against_its_definition():
    logits = np.random.default_rng(0).standard_normal((5, 4))
    labels = np.array([0, 3, 1, 1, 2])
    expected = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(5), labels]
    np.testing.assert_allclose(
        cross_entropy(jnp.asarray(logits, jnp.float32), jnp.asarray(labels)), expected, rtol=1e-6
    )


def test_mse_is_the_mean_over_classes_of_squares_to_one_hot():
    losses = mse(jnp.array([[0.5, 0.0], [0.0, 1.0]]), jnp.array([0, 1]))
    np.testing.assert_allclose(losses, [0.125, 0.0])
