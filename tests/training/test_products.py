"""Gradients by products are those of the convolution, of every kind; the rest stays as it is."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from ntklens.data import Split
from ntklens.models.cnn import CNN
from ntklens.models.resnet import ResNet
from ntklens.training import ensemble, products
from ntklens.training.curvature import multiply_once
from ntklens.training.ensemble import Trainer, advance, initialise, run_states
from ntklens.training.losses import LOSSES
from ntklens.training.products import differentiate_by_products
from problems import make_problem

IMAGES = ("NHWC", "HWIO", "NHWC")
# Shape of the inputs, of the filter, and options of the convolution.
KINDS = {
    "same": ((4, 7, 9, 2), (3, 2, 2, 5), {}),
    "batch of one": ((1, 7, 9, 2), (3, 2, 2, 5), {}),
    "valid, strided": ((4, 7, 9, 2), (3, 2, 2, 5), {"padding": "VALID", "window_strides": (2, 3)}),
    "same, strided": ((4, 9, 8, 2), (3, 3, 2, 5), {"window_strides": (2, 2)}),
    "dilated, odd padding": ((4, 7, 9, 2), (3, 2, 2, 5), {"padding": ((2, 1), (0, 3)), "rhs_dilation": (2, 1)}),
    "dilated, strided": ((4, 9, 9, 2), (3, 3, 2, 5), {"window_strides": (2, 1), "rhs_dilation": (1, 2)}),
    "negative padding": ((4, 7, 9, 2), (3, 2, 2, 5), {"padding": ((-1, 2), (1, -1))}),
    "1 × 1": ((4, 5, 6, 3), (1, 1, 3, 4), {}),
    "1 × 1, strided": ((4, 5, 7, 3), (1, 1, 3, 4), {"window_strides": (2, 3)}),
    "of the whole image": ((4, 5, 6, 2), (5, 6, 2, 3), {"padding": "VALID"}),
    "patches": ((4, 6, 6, 2), (2, 2, 2, 3), {"padding": "VALID", "window_strides": (2, 2)}),
    "groups": ((4, 7, 5, 6), (3, 3, 2, 9), {"feature_group_count": 3, "window_strides": (2, 1)}),
    "by channel": ((4, 7, 5, 3), (3, 3, 1, 6), {"feature_group_count": 3}),
    "transposed": ((4, 4, 5, 2), (3, 3, 2, 5), {"padding": ((2, 1), (1, 1)), "lhs_dilation": (2, 2)}),
    "channels first": ((4, 2, 7, 9), (5, 2, 3, 2), {"dimension_numbers": ("NCHW", "OIHW", "NCHW")}),
    "mixed layouts": ((7, 4, 9, 2), (5, 3, 2, 2), {"dimension_numbers": ("HNWC", "OHWI", "CHWN")}),
    "one axis": ((4, 7, 2), (3, 2, 5), {"window_strides": (2,), "dimension_numbers": ("NWC", "WIO", "NWC")}),
    "three axes": (
        (2, 4, 3, 5, 2),
        (2, 3, 2, 2, 3),
        {"window_strides": (1, 2, 1), "dimension_numbers": ("NDHWC", "DHWIO", "NDHWC")},
    ),
}


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


def make(kind):
    """A convolution in a call of its own, with its operands in float64."""
    inputs, weight, options = KINDS[kind]
    options = {"padding": "SAME", "window_strides": (1,) * (len(inputs) - 2), "dimension_numbers": IMAGES} | options

    @jax.jit
    def convolve(weight, a):
        return lax.conv_general_dilated(a, weight, **options)

    rng = np.random.default_rng(0)
    return convolve, jnp.asarray(rng.normal(size=weight)), jnp.asarray(rng.normal(size=inputs))


def list_convolutions(function, *arguments):
    """How many convolutions have gradients of their own, and how many do not."""
    text = str(jax.make_jaxpr(function)(*arguments))
    return text.count("custom_vjp_call["), text.count("conv_general_dilated[")


def differentiate(function):
    return jax.value_and_grad(lambda *operands: jnp.sum(jnp.sin(function(*operands))), argnums=(0, 1))


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    ("kind", "patch_bytes"),
    [*((kind, products.PATCH_BYTES) for kind in KINDS), ("same", 20_000), ("groups", 1), ("mixed layouts", 1)],
)  # of all samples, of three and the rest, of one at a time
def test_gradients_are_those_of_the_convolution(kind, patch_bytes, monkeypatch):
    monkeypatch.setattr(products, "PATCH_BYTES", patch_bytes)
    convolve, weight, a = make(kind)
    fast = differentiate_by_products(convolve)
    assert list_convolutions(fast, weight, a) == (1, 1)
    value, gradients = differentiate(fast)(weight, a)
    expected, others = differentiate(convolve)(weight, a)
    assert value == expected
    for one, other in zip(gradients, others, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12 * np.abs(other).max())


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    "model",
    [
        CNN(4, 2, 3, pooling="max", parameterization="mup"),
        pytest.param(
            CNN(4, 2, 3, kernel_size=5, stride=2, pooling="none", global_average=False), marks=pytest.mark.slow
        ),
        pytest.param(ResNet(4, 1, 3, groups=2), marks=pytest.mark.slow),
    ],
    ids=["cnn", "strided cnn", "resnet"],
)
def test_gradients_and_products_with_the_hessian_of_a_model(model, monkeypatch):
    rng = np.random.default_rng(0)
    x, y = jnp.asarray(rng.normal(size=(5, 9, 8, 2))), jnp.arange(5) % 3
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), model.init(jax.random.key(0), x[:1]))
    loss = LOSSES["cross_entropy"]

    def differentiate(apply):
        return jax.jit(jax.value_and_grad(lambda params: loss(apply(params, x), y).mean()))(params)

    def multiply(apply):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return multiply_once(params, zeros, jnp.zeros(()), params, x, y, apply=apply, loss=loss)

    value, gradient = differentiate(differentiate_by_products(model.apply))
    hessian = multiply(functools.partial(model.apply))
    monkeypatch.setattr("ntklens.training.curvature.differentiate_by_products", lambda apply: apply)
    expected = differentiate(model.apply)
    assert float(value) == pytest.approx(float(expected[0]), rel=1e-12)
    for one, other in [(gradient, expected[1]), (hessian, multiply(functools.partial(model.apply)))]:
        size = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(other))
        jax.tree.map(
            lambda a, b, size=size: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12 * size), one, other
        )


def test_recomputed_convolutions_are_replaced_and_those_of_a_loop_are_not():
    module = nn.remat(nn.Conv)(4, (3, 3))
    x = jnp.ones((2, 5, 5, 3))
    params = module.init(jax.random.key(0), x)
    fast = differentiate_by_products(module.apply)
    assert list_convolutions(module.apply, params, x) == (0, 1)
    assert list_convolutions(fast, params, x) == (1, 1)
    assert "remat" in str(jax.make_jaxpr(fast)(params, x)) or "checkpoint" in str(jax.make_jaxpr(fast)(params, x))

    def loop(weight, a):
        return lax.fori_loop(0, 3, lambda _, a: lax.conv_general_dilated(a, weight, (1, 1), "SAME"), a)

    operands = jnp.ones((2, 2, 3, 3)), jnp.ones((1, 2, 5, 5))
    assert list_convolutions(differentiate_by_products(loop), *operands) == (0, 1)


def lower(trainer, data):
    state = initialise(trainer, [0, 1], 1e-2)
    inputs, labels, number = jnp.asarray(data.train.inputs), jnp.asarray(data.train.labels), jnp.int32(1)
    keys = state.order_key, state.learning_rate
    return advance.lower(
        state.params, state.opt_state, *keys, number, number, inputs, labels, trainer=trainer
    ).as_text()


@pytest.mark.parametrize("batch_size", [None, 8])
def test_programs_without_convolutions_are_as_they_were(batch_size, monkeypatch):
    with_products = lower(*make_problem(batch_size=batch_size))
    monkeypatch.setattr(ensemble, "differentiate_by_products", lambda apply: apply)
    assert lower(*make_problem(batch_size=batch_size)) == with_products


def test_an_accelerator_keeps_its_library(monkeypatch):
    monkeypatch.setattr(products, "uses_cpu", lambda: False)
    convolve, *_ = make("same")
    assert differentiate_by_products(convolve) is convolve


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("batch_size", [None, 4])
def test_a_run_goes_on_where_convolutions_are_the_librarys_and_back(batch_size, monkeypatch):
    """On another device, or by the version before: the state is the same."""
    rng = np.random.default_rng(0)
    train = Split(rng.normal(size=(12, 6, 6, 1)), np.arange(12) % 3)
    model = CNN(4, 1, 3)

    def train_to(step, state=None):
        loss, init = LOSSES["mse"], lambda key: model.init(key, train.inputs[:1])
        trainer = Trainer(init, model.apply, loss, optax.adam, batch_size)  # another one: traced anew
        (state,) = run_states(trainer, state or initialise(trainer, [0, 1], 1e-2), train, np.array([step]))
        return state

    stay, begun = train_to(9), train_to(3)
    with monkeypatch.context() as patch:
        patch.setattr(ensemble, "differentiate_by_products", lambda apply: apply)
        patch.setattr(ensemble, "uses_cpu", lambda: False)
        moved = train_to(6, begun)
    back = train_to(9, moved)
    assert jax.tree.structure(back) == jax.tree.structure(stay)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10), back.params, stay.params)
