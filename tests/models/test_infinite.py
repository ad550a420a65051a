"""The limit of infinite width, against the recursion of arc-cosine kernels and against wide networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntklens.errors import InputError
from ntklens.models.cnn import CNN
from ntklens.models.infinite import infinite_kernels
from ntklens.models.mlp import MLP
from ntklens.models.resnet import ResNet
from ntklens.ntk.structured import kernel


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def recur(x1, x2, depth, width, bias):
    """Θ_∞ and the NNGP kernel of a ReLU network of variance 1/fan_in, in float64 (Cho & Saul 2009)."""
    x1, x2 = x1.reshape(len(x1), -1), x2.reshape(len(x2), -1)
    dim, one = x1.shape[1], 1.0 if bias else 0.0
    k12, k1, k2 = x1 @ x2.T / dim, (x1**2).sum(1) / dim, (x2**2).sum(1) / dim
    theta = dim * k12 + one
    for _ in range(depth):
        root = np.sqrt(np.outer(k1, k2))
        angle = np.arccos(np.clip(k12 / root, -1, 1))
        derivative = (np.pi - angle) / (2 * np.pi)
        k12 = root * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)
        k1, k2 = k1 / 2, k2 / 2
        theta = width * k12 + one + derivative * theta
    return theta, k12


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("depth", [1, 3])
def test_dense_networks_follow_the_recursion(depth, bias):
    x1, x2 = draw(5, 4, 2), draw(3, 4, 2, seed=1)
    for network, width in (
        (MLP(64, depth, 3, bias=bias), 64),
        (MLP(64, depth, 3, bias=bias, parameterization="ntk", base_width=16), 16),
        (MLP(64, depth, 3, bias=bias, parameterization="mup", base_width=16), 16),
    ):
        ntk, nngp = infinite_kernels(network, x1, x2)
        theta, covariance = recur(x1, x2, depth, width, bias)
        np.testing.assert_allclose(ntk, theta, rtol=1e-5)
        np.testing.assert_allclose(nngp, 0 if network.parameterization == "mup" else covariance, rtol=1e-5, atol=1e-9)


def measure_distances(network, x, seeds=4):
    """‖Θ_0 − Θ_∞‖ / ‖Θ_∞‖, root mean square over seeds, and of their mean."""
    limit = np.einsum("ij,cd->icjd", infinite_kernels(network, x).ntk, np.eye(network.classes))
    apart = []
    for seed in range(seeds):
        params = network.init(jax.random.key(seed), jnp.asarray(x[:1], jnp.float32))
        apart.append(np.asarray(kernel(network, params, jnp.asarray(x, jnp.float32))) - limit)
    size = np.linalg.norm(limit)
    return np.sqrt(np.mean([np.linalg.norm(one) ** 2 for one in apart])) / size, np.linalg.norm(
        np.mean(apart, 0)
    ) / size


NETWORKS = {
    "mlp": lambda **options: MLP(depth=2, classes=2, base_width=32, **options),
    "cnn": lambda **options: CNN(depth=2, classes=2, base_width=32, **options),
    "cnn strided": lambda **options: CNN(
        depth=2, classes=2, base_width=32, stride=2, pooling="none", global_average=False, bias=False, **options
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "parameterization"),
    [("mlp", "standard"), ("mlp", "ntk"), ("mlp", "mup"), ("cnn", "ntk"), ("cnn strided", "mup")],
)
def test_kernels_of_wide_networks_approach_the_limit(name, parameterization):
    """Their distance falls as width^(−1/2), known from so few seeds to a fifth; that from another limit stays."""
    x = draw(4, 4, 4, 2)
    widths = (32, 128, 512)
    networks = [NETWORKS[name](width=width, parameterization=parameterization) for width in widths]
    found = [measure_distances(network, x, seeds=8)[0] for network in networks]
    slope = np.polyfit(np.log(widths), np.log(found), 1)[0]
    print(name, parameterization, found, slope)
    assert slope == pytest.approx(-0.5, abs=0.2)
    assert found[-1] < 0.2


@pytest.mark.slow
def test_a_wrong_limit_is_not_approached(monkeypatch):
    """A twin that must fail: the limit of the network of another base width."""
    x, right = draw(4, 4, 4, 2), infinite_kernels
    wide = CNN(width=512, depth=2, classes=2, base_width=32, parameterization="ntk")
    wrong = CNN(width=512, depth=2, classes=2, base_width=48, parameterization="ntk")
    monkeypatch.setitem(globals(), "infinite_kernels", lambda network, x: right(wrong, x))
    assert measure_distances(wide, x)[0] > 0.25


def test_blocks_change_nothing(monkeypatch):
    x1, x2 = draw(5, 4, 4, 1), draw(3, 4, 4, 1, seed=1)
    network = CNN(8, 1, 2)
    whole = infinite_kernels(network, x1, x2)
    monkeypatch.setattr("ntklens.models.infinite.LARGEST_BLOCK", 4 * 16**2)
    for one, other in zip(infinite_kernels(network, x1, x2), whole, strict=True):
        assert one.shape == (5, 3)
        np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize(
    ("network", "text"),
    [
        (ResNet(8, 1, 3), "model=resnet: its infinite width is known of mlp and cnn alone"),
        (
            MLP(8, 1, 3, activation="gelu"),
            "model.activation=gelu: infinite width has a closed form for relu, erf, linear",
        ),
        (CNN(8, 1, 3, pooling="max"), "model.pooling=max: infinite width has a closed form for average, none"),
    ],
)
def test_what_has_no_closed_form_is_refused(network, text):
    with pytest.raises(InputError) as refusal:
        infinite_kernels(network, draw(2, 4, 4, 1))
    assert text in str(refusal.value)
