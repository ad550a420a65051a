"""Layers stand in the order in which the network computes them, whatever they are called."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from flax import linen as nn

import ntklens
from ntklens.models.causal_transformer import CausalTransformer
from ntklens.models.cnn import CNN
from ntklens.models.mlp import MLP
from ntklens.models.resnet import ResNet
from ntklens.models.transformer import Transformer
from ntklens.ntk.layers import name_layers
from ntklens.ntk.order import order_layers
from ntklens.store.layers import LAYER_ORDER, merge_orders, order_names, order_own_layers
from ntklens.store.trajectory import read_attributes

IMAGES = jax.ShapeDtypeStruct((2, 8, 8, 1), np.float32)
TOKENS = jax.ShapeDtypeStruct((2, 4), np.int32)
NETWORKS = {
    "mlp": (MLP(8, 3, 3), jax.ShapeDtypeStruct((2, 5), np.float32)),
    "cnn": (CNN(8, 2, 3), IMAGES),
    "resnet": (ResNet(8, 2, 3), IMAGES),
    "transformer": (Transformer(8, 2, 3), IMAGES),
    "causal_transformer": (CausalTransformer(8, 2, 3), TOKENS),
}


def make_params(network, x):
    shapes = jax.eval_shape(network.init, jax.random.key(0), x)
    return jax.tree.map(lambda one: np.zeros(one.shape, one.dtype), shapes)


@pytest.mark.parametrize("name", NETWORKS)
def test_names_of_the_packages_networks_give_the_order_of_computation(name):
    """So results without the recorded order are shown in it, too."""
    network, x = NETWORKS[name]
    params = make_params(network, x)
    computed = order_layers(network, params, x)
    assert order_names(list(name_layers(network, params))) == computed
    assert computed[-1] == "readout"
    if "transformer" in name:
        parts = ("norm_0", "query", "key", "value", "out", "norm_1", "mlp_0", "mlp_1")
        assert [layer for layer in computed if layer.startswith("block_1_")] == [f"block_1_{part}" for part in parts]


class Mixed(nn.Module):
    """Flax's own names, whose order is not that of computation."""

    @nn.compact
    def __call__(self, x):
        h = nn.Dense(4)(nn.LayerNorm()(nn.Conv(4, (3, 3))(x)))
        return nn.Dense(3)(nn.Conv(4, (3, 3))(h).mean((1, 2)))


def test_the_order_of_any_function_is_read_from_its_program():
    params = make_params(Mixed(), IMAGES)
    assert order_layers(Mixed(), params, IMAGES) == ["Conv_0", "LayerNorm_0", "Dense_0", "Conv_1", "Dense_1"]
    leaves = {"b": np.ones((3, 2), np.float32), "a": np.ones((2, 4), np.float32), "unread": np.ones(1, np.float32)}
    x = jax.ShapeDtypeStruct((2, 3), np.float32)
    assert order_layers(lambda p, x: x @ p["b"] @ p["a"], leaves, x) == ["b", "a", "unread"]


def test_the_recorded_order_goes_before_names():
    recorded = {LAYER_ORDER: json.dumps(["norm", "stem", "b", "a"])}
    assert order_own_layers(["a", "b", "norm", "stem"], recorded) == ["norm", "stem", "b", "a"]
    assert order_own_layers(["a", "b", "norm", "stem"], {}) == ["stem", "a", "b", "norm"]
    assert order_own_layers(["a", "b"], recorded) == ["a", "b"]  # of another network


def test_layers_of_several_networks_keep_the_order_of_each():
    deep, shallow = ["hidden_0", "hidden_1", "readout"], ["hidden_0", "readout"]
    assert merge_orders([shallow, deep]) == deep
    assert merge_orders([deep, ["conv_0", "readout"]]) == ["conv_0", "hidden_0", "hidden_1", "readout"]


def test_a_trajectory_records_its_order_and_load_follows_it(tmp_path):
    params = {"a": jnp.ones((2, 4)), "b": jnp.arange(6.0).reshape(3, 2)}
    inputs = jnp.linspace(-1, 1, 12).reshape(4, 3)
    recorder = ntklens.Recorder(lambda p, x: x @ p["b"] @ p["a"], params, probe=inputs)
    for step, loss in enumerate((1.0, 0.5, 0.7)):
        recorder(step, params, train_loss=loss, test_loss=loss)
    path = recorder.save(tmp_path)
    assert json.loads(read_attributes(path)[LAYER_ORDER]) == ["b", "a"]
    together = ntklens.load(tmp_path)
    assert list(together.layer.values) == ["b", "a"]
    with xr.open_dataset(path, engine="h5netcdf") as alone:
        assert list(alone.layer.values) == ["a", "b"]
        for layer in "ab":  # numbers go with their names
            expected = float(alone["trace_layer"].sel(layer=layer)[0])
            assert float(together["trace_layer"].isel(run=0, seed=0, record=0).sel(layer=layer)) == expected
            assert np.isfinite(expected)
