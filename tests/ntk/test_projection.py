"""Kernels of projected outputs, against the projection of the Jacobian."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

import ntklens
from ntklens.ntk.layers import name_layers
from ntklens.ntk.metrics import target_alignment
from ntklens.ntk.projection import Projected, draw_projection
from ntklens.ntk.structured import layer_kernels, layer_traces
from ntklens.store.trajectory import read_attributes
from references import compute_layer_kernels

N, C, K = 2, 132, 128


def f(params, x):
    return jnp.tanh(x @ params["a"]) @ params["b"] + params["c"][None]


def draw_problem():
    rng = np.random.default_rng(2)
    shapes = {"a": (4, 6), "b": (6, C), "c": (C,)}
    return {name: jnp.asarray(rng.standard_normal(shape)) for name, shape in shapes.items()}, jnp.asarray(
        rng.standard_normal((N, 4))
    )


@pytest.mark.usefixtures("x64")
def test_the_kernel_is_that_of_the_projected_jacobian():
    params, x = draw_problem()
    assert x.dtype == jnp.float64
    full = compute_layer_kernels(f, params, x)
    projection = draw_projection(C)
    projected, traces = layer_kernels(Projected(f), params, x), layer_traces(Projected(f), params, x)
    assert list(name_layers(Projected(f), params)) == list(full)
    for layer, share in full.items():
        expected = np.einsum("icjd,ck,dl->ikjl", share, projection, projection)
        np.testing.assert_allclose(projected[layer], expected, rtol=1e-12, atol=1e-12 * np.abs(expected).max())
        np.testing.assert_allclose(traces[layer], np.einsum("icic->", expected), rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_the_trace_is_unbiased():
    params, x = draw_problem()
    theta = sum(compute_layer_kernels(f, params, x).values())
    blocks = np.einsum("icid->cd", theta)  # Σ_i Θ_ii
    draws = [draw_projection.__wrapped__(C, 16, seed) for seed in range(400)]
    traces = np.array([np.einsum("ck,cd,dk->", one, blocks, one) for one in draws])
    error = traces.std() / np.sqrt(len(traces))
    assert abs(traces.mean() - np.trace(blocks)) < 3 * error
    assert error < 0.02 * np.trace(blocks)
    assert abs(16 / C * traces.mean() - np.trace(blocks)) > 30 * error  # without the scale
    for one in draws[:3]:
        np.testing.assert_allclose(one.T @ one, C / 16 * np.eye(16), atol=1e-12)
        np.testing.assert_allclose(np.einsum("ck,ck->", one, one), C)  # exact for multiples of 1


def test_the_projection_is_one_for_all_runs():
    assert draw_projection(C) is draw_projection(C)
    np.testing.assert_array_equal(draw_projection(C), draw_projection.__wrapped__(C))
    assert not np.allclose(draw_projection(C), draw_projection(C, seed=1))


def test_the_alignment_is_with_projected_labels():
    labels, projection = np.array([130, 3, 130]), draw_projection(C)
    targets = projection[labels] - projection[labels].mean(0)
    assert target_alignment(np.einsum("ic,jd->icjd", targets, targets), labels, projection) == pytest.approx(1)


@pytest.mark.slow
def test_a_run_with_a_large_vocabulary_states_it(tmp_path):
    words = ["model=causal_transformer", "dataset=markov", "dataset.vocabulary=132", "dataset.length=2",
             "model.width=4", "model.depth=1", "model.mlp_ratio=1", "dataset.train_size=8", "dataset.test_size=4",
             "dataset.probe_size=3", "training.epochs=2", "ensemble=1", "optimizer=sgd",
             "metrics=[alignment]", f"paths.results={tmp_path}", "name=large"]  # fmt: skip
    data = ntklens.train(words)
    assert (data.sizes["mode"], data["C"].item(), data["projected_outputs"].item()) == (3 * K, C, K)
    (path,) = tmp_path.rglob("trajectory.nc")
    attrs = read_attributes(path)
    assert json.loads(attrs["projection"])["onto"] == K
    np.testing.assert_allclose(data["eigenvalues"].isel(record=0).sum(), data["trace"].isel(record=0), rtol=1e-4)
    assert 0 < data["alignment"].isel(record=0).item() < 1
    assert data["logit_norm"].isel(record=0).item() > 0
