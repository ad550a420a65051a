"""Inputs of another dimension: padded, the network is the unpadded one with another first layer, to the bit."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contract import configure
from ntklens.data import digits
from ntklens.data.dataset import Split
from ntklens.data.dimension import change_dimension
from ntklens.errors import InputError
from ntklens.jobs.build import build
from ntklens.ntk.structured import layer_traces
from ntklens.training.ensemble import initialise, run_states

SMALL = ("dataset=digits", "dataset.train_size=24", "dataset.test_size=20", "dataset.probe_size=16", "tracking=none")
INPUTS = np.random.default_rng(0).normal(size=(5, 3, 4, 2)).astype(np.float32)


def change(dim, inputs=INPUTS):
    return change_dimension(Split(inputs, np.zeros(len(inputs), np.int32)), dim).inputs


def test_padding_appends_zeros_and_scales():
    padded = change(96)
    assert padded.dtype == np.float32
    np.testing.assert_array_equal(padded[:, :24], 2 * INPUTS.reshape(5, 24))
    assert not padded[:, 24:].any()
    np.testing.assert_array_equal(change(24), INPUTS.reshape(5, 24))


def test_a_projection_keeps_inner_products_in_the_mean_and_scales():
    """Over many pairs of inputs: E⟨x', y'⟩ = (d'/d) ⟨x, y⟩; each input enters one output."""
    inputs = np.random.default_rng(1).normal(size=(600, 60)).astype(np.float32)
    projected = change(20, inputs)
    squares = np.sum(projected.astype(float) ** 2, axis=1) / np.sum(inputs.astype(float) ** 2, axis=1)
    assert np.mean(squares) == pytest.approx(20 / 60, rel=0.03)
    matrix = change(20, np.eye(60, dtype=np.float32))
    assert (np.count_nonzero(matrix, axis=1) == 1).all()
    assert (np.count_nonzero(matrix, axis=0) == 3).all()
    np.testing.assert_allclose(projected, inputs @ matrix, rtol=1e-5, atol=1e-5)
    assert not np.array_equal(matrix, np.abs(matrix))


@pytest.mark.parametrize("optimizer", [pytest.param("sgd", marks=pytest.mark.slow), "adam"])
def test_a_padded_network_is_the_scaled_one_to_the_bit(optimizer):
    """Inputs 2x, first layer as drawn for 4d inputs (its variance 1/(4d)): the same logits after updates."""
    found = []
    for dim in (256, None):
        cfg = configure(*SMALL, f"optimizer={optimizer}", f"dataset.input_dim={'null' if dim is None else dim}")
        built = build(cfg)
        state = initialise(built.trainer, [3], cfg.optimizer.learning_rate)
        train, probe = built.dataset.train, jnp.asarray(built.dataset.probe.inputs).reshape(16, -1)
        if dim is None:
            drawn = jax.tree.map(jnp.array, found[0][0])  # of the padded network
            drawn["params"]["hidden_0"]["kernel"] = drawn["params"]["hidden_0"]["kernel"][:, :64]
            state = state._replace(params=drawn)
            train, probe = Split(2 * train.inputs, train.labels), 2 * probe
        start = jax.tree.map(jnp.array, state.params)
        (state,) = run_states(built.trainer, state, train, np.array([20]))
        rows = []
        for params in (start, state.params):
            params = jax.tree.map(lambda leaf: leaf[0], params)
            traces = layer_traces(built.trainer.apply, params, probe)
            rows.append((built.trainer.apply(params, probe), list(traces.values())))
        found.append((start, rows))
    for (logits, traces), (wanted, expected) in zip(found[1][1], found[0][1], strict=True):
        np.testing.assert_array_equal(logits, wanted)
        np.testing.assert_allclose(traces, expected, rtol=1e-6)  # sums of other lengths, of the same numbers and zeros
    assert not np.array_equal(found[0][1][0][0], found[0][1][1][0])  # it has learnt


@pytest.mark.parametrize("value", [0, -3, 2.5, True])
def test_what_is_no_dimension_is_refused(value):
    with pytest.raises(InputError, match=re.escape(f"dataset.input_dim={value}: must be a positive integer")):
        digits.load(input_dim=value)


def test_the_dimension_is_part_of_the_data():
    plain, same, other = (digits.load(train_size=9, input_dim=dim) for dim in (None, 64, 128))
    assert "input_dim" not in plain.provenance
    assert other.provenance["input_dim"] == 128
    assert len({data.provenance["checksum"] for data in (plain, same, other)}) == 3
    assert plain.probe.inputs.shape[1:] == (8, 8, 1)
    assert other.probe.inputs.shape == (128, 128)
