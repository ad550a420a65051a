import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from ntklens.ntk.masks import active_units, flipped_fraction


class Network(nn.Module):
    @nn.compact
    def __call__(self, x):
        h = nn.relu(nn.Dense(6)(x))
        h = jnp.maximum(nn.Dense(5)(jnp.tanh(h)), 0.0)
        return nn.Dense(2)(h + 0.5 * jnp.maximum(h, -1.0))  # the last is no ReLU


def draw(seed):
    x = jax.random.normal(jax.random.key(9), (7, 4))
    return Network().init(jax.random.key(seed), x), x


def compute_units(params, x):
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["params"])
    first = np.asarray(x, np.float64) @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"][None]
    second = np.tanh(np.maximum(first, 0)) @ p["Dense_1"]["kernel"] + p["Dense_1"]["bias"][None]
    return first > 0, second > 0


def test_masks_are_those_of_the_units():
    params, x = draw(0)
    for found, expected in zip(active_units(Network(), params, x), compute_units(params, x), strict=True):
        np.testing.assert_array_equal(found[:, 0], expected)


def test_flips_are_counted_over_units_and_samples():
    (params, x), (other, _) = draw(0), draw(1)
    flips = [a != b for a, b in zip(compute_units(params, x), compute_units(other, x), strict=True)]
    expected = sum(flip.sum() for flip in flips) / sum(flip.size for flip in flips)
    assert 0 < expected < 1
    found = jax.jit(lambda a, b: flipped_fraction(Network().apply, a, b, x))(params, other)
    assert float(found) == pytest.approx(expected, rel=1e-6)
    assert float(flipped_fraction(Network(), params, params, x)) == 0


def test_a_copy_that_is_held_fixed_does_not_count():
    """f − f_0 has each ReLU twice; that of f_0 never flips."""
    (params, x), (other, _) = draw(0), draw(1)
    plain = float(flipped_fraction(Network(), params, other, x))

    def centred(tree, x):
        return Network().apply({"params": tree["params"]}, x) - Network().apply({"params": tree["state"]["initial"]}, x)

    trees = [{"params": one["params"], "state": {"initial": params["params"]}} for one in (params, other)]
    assert float(flipped_fraction(centred, *trees, x)) == pytest.approx(plain, rel=1e-6)


def test_without_a_relu_there_is_no_fraction():
    w = {"w": jnp.ones((4, 3))}
    assert np.isnan(flipped_fraction(lambda p, x: jnp.tanh(x @ p["w"]), w, w, draw(0)[1]))
