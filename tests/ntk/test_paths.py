"""Every way to a share of the kernel, on networks small enough for the full Jacobian."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import ntklens
from cases import CASES
from ntklens.ntk import gradients, gram, plan, structured
from ntklens.ntk.layers import as_function
from references import compute_layer_kernels

pytestmark = pytest.mark.usefixtures("x64")

BY_NAME = {case.name: case for case in CASES}
NETWORKS = (
    "cnn",
    "a filter used twice",
    pytest.param("attention block", marks=pytest.mark.slow),
    pytest.param("residual sums before a mean", marks=pytest.mark.slow),
)
PATHS = (plan.HEAD, plan.PAIRS, plan.BLOCKS, plan.GRADIENTS)


def prefer(path):
    """The slowness of the paths with which `path` is chosen wherever it can be."""
    return {other: 1e-9 if other == path else 1.0 for other in PATHS}


def set_small_pieces(monkeypatch):
    """Chunks of two samples and a remainder, blocks of three columns, four block rows."""
    monkeypatch.setattr(plan, "choose_chunk", lambda *arguments: 2)
    monkeypatch.setattr("ntklens.ntk.shares.choose_chunk", lambda *arguments: 2)
    monkeypatch.setattr(gram, "CPU_COLUMNS", 3)
    monkeypatch.setattr("ntklens.ntk.shares.CPU_COLUMNS", 30)
    monkeypatch.setattr(gram, "SPLIT_ROWS", ((0, 4),))


def set_gpu(monkeypatch):
    for module in (gram, plan, gradients):
        monkeypatch.setattr(module, "uses_cpu", lambda: False)


SETTINGS = {
    "small pieces": set_small_pieces,
    "as on a GPU": set_gpu,
    **{
        path: lambda monkeypatch, path=path: monkeypatch.setattr(plan, "SLOWNESS", prefer(path))
        for path in (plan.PAIRS, plan.GRADIENTS)
    },
    "gradients in blocks": lambda monkeypatch: monkeypatch.setattr(plan, "forms_in_blocks", lambda *numbers: True),
    "gradients of wide leaves": lambda monkeypatch: monkeypatch.setattr(gradients, "NARROW", 0),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_all_paths_agree_with_the_full_jacobian(monkeypatch, setting, name):
    f, params, x = BY_NAME[name].make()
    SETTINGS[setting](monkeypatch)

    def measure(params):
        return (
            structured.layer_kernels(f, params, x),
            structured.kernel(f, params, x),
            structured.ntk(f, params, x, x[:1]),
            structured.layer_traces(f, params, x),
        )

    layers, theta, cross, traces = jax.jit(measure)(params)
    expected = compute_layer_kernels(as_function(f), params, x)
    whole = sum(expected.values())
    scale = np.abs(whole).max()
    np.testing.assert_allclose(theta, whole, rtol=0, atol=1e-12 * scale)
    np.testing.assert_allclose(cross, whole[:, :, :1], rtol=0, atol=1e-12 * scale)
    for layer, share in expected.items():
        np.testing.assert_allclose(layers[layer], share, rtol=0, atol=1e-12 * scale)
        trace = np.einsum("icic->", share)
        np.testing.assert_allclose(traces[layer], trace, rtol=0, atol=1e-12 * np.einsum("icic->", whole))


@pytest.mark.slow
def test_the_derivative_of_a_trace_is_that_of_the_full_jacobian():
    f, params, x = BY_NAME["strided convolution, channels first"].make()

    def compute_trace(params):
        jacobians = jax.jacrev(lambda params: f(params, x))(params)
        return sum(jnp.square(jacobian).sum() for jacobian in jax.tree.leaves(jacobians))

    actual = jax.jit(jax.grad(lambda params: structured.ntk_trace(f, params, x)))(params)
    for name, expected in jax.grad(compute_trace)(params).items():
        np.testing.assert_allclose(actual[name], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["cnn", "residual sums before a mean"])
def test_the_mean_of_projected_traces_over_all_signs_is_the_trace(name):
    f, params, x = BY_NAME[name].make()
    outputs = f(params, x).shape[1]
    signs = jnp.asarray(list(itertools.product((-1.0, 1.0), repeat=outputs)))[:, None]
    signs = jnp.broadcast_to(signs, (len(signs), len(x), outputs))

    def project(params):
        return structured._projected_traces(structured._take_apart(f, params, x), x, signs)

    means = {layer: values.mean() for layer, values in jax.jit(project)(params).items()}
    traces = structured.layer_traces(f, params, x)
    assert set(means) == set(traces)
    for layer, trace in traces.items():
        np.testing.assert_allclose(means[layer], trace, rtol=1e-12)


def test_the_estimate_of_a_trace_is_within_its_standard_error():
    f, params, x = BY_NAME["mlp depth 2 with bias"].make()
    trace = structured.ntk_trace(f, params, x)
    estimate, error = structured.estimate_trace(f, params, x, jax.random.key(0), 400)
    assert 0 < error < 0.05 * trace
    assert abs(estimate - trace) < 4 * error
    _, more = structured.estimate_trace(f, params, x, jax.random.key(1), 1600)
    assert float(more) == pytest.approx(float(error) / 2, rel=0.2)
    with pytest.raises(ValueError, match="probes=1"):
        structured.estimate_trace(f, params, x, jax.random.key(0), 1)


def get_paths(name):
    f, params, x = BY_NAME[name].make()
    found = structured.plan_ntk(f, params, x)
    return {found.names[share.leaves[0]]: share.path for share in found.shares}


def test_heads_are_found_where_no_sample_changes_the_cotangent():
    def get_heads(name):
        return {leaf for leaf, path in get_paths(name).items() if path == plan.HEAD}

    assert get_heads("residual sums before a mean") == {"t"}
    assert get_heads("attention block") == {"params/Dense_0/kernel", "params/Dense_1/kernel"}
    assert get_heads("readouts that samples change") == set()


ELEMENTWISE = (
    *(nn.celu, nn.elu, nn.gelu, nn.hard_swish, nn.leaky_relu, nn.log_sigmoid, nn.relu, nn.relu6, nn.selu, nn.sigmoid),
    *(nn.silu, nn.soft_sign, nn.softplus, nn.tanh, jnp.arctan, jnp.arcsinh, jnp.cosh, jnp.sin, jnp.sinh, jnp.tan),
    *(jnp.exp2, jnp.expm1, jnp.log1p, jnp.square, jnp.cbrt, jax.lax.erf, jax.lax.lgamma),
)


@pytest.mark.parametrize("act", ELEMENTWISE, ids=lambda act: act.__name__)
def test_a_head_is_found_behind_every_activation(act):
    """Versions of JAX differ in the primitives that derivatives are made of."""

    def f(p, x):
        return jnp.abs(act(x @ p["w"])).mean(1) @ p["v"]

    found = structured.plan_ntk(f, {"w": jnp.ones((9, 8)), "v": jnp.ones((8, 3))}, jnp.ones((4, 7, 9)))
    assert {found.names[share.leaves[0]]: share.path for share in found.shares}["w"] == plan.HEAD


def test_a_plan_covers_every_leaf_once_and_needs_shapes_only():
    f, params, x = BY_NAME["attention block"].make()
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), (params, x))
    found = structured.plan_ntk(f, *shapes)
    assert sorted(leaf for share in found.shares for leaf in share.leaves) == list(range(len(jax.tree.leaves(params))))
    assert found == structured.plan_ntk(f, params, x)
    assert all(share.operations > 0 and share.bytes > 0 for share in found.shares)
    twice = structured.plan_ntk(f, params, jnp.concatenate([x, x]))
    assert 2 * found.operations < twice.operations < 4 * found.operations
    assert found.bytes < twice.bytes


def test_an_explanation_has_a_line_for_every_leaf_and_the_sum(capsys):
    f, params, x = BY_NAME["attention block"].make()
    found = ntklens.explain_ntk(f, params, x)
    header, *lines, passes, total = capsys.readouterr().out.splitlines()
    assert header.split() == ["leaf", "path", "Gflop", "MiB"]
    paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree.leaves_with_path(params)]
    assert sorted(name for line in lines for name in re.split(r"  +", line)[0].split(" + ")) == sorted(paths)
    assert f"{found.chunk} samples at a time" in passes
    assert total.split() == ["sum", "at", "the", "peak", f"{found.operations / 1e9:.3g}", f"{found.bytes / 2**20:.3g}"]


def test_operations_of_a_dense_layer_are_those_of_its_grams():
    n, c, k = 6, 3, 5

    def f(p, x):
        return x @ p["w"]

    found = structured.plan_ntk(f, {"w": jnp.ones((k, c))}, jnp.ones((n, k)))
    (share,) = found.shares
    assert share.path == plan.FACTORS
    assert share.operations == 2 * n * n * (k + c * c * (c + 1))
    assert found.passes_operations == 2 * n * k * c


def test_a_kernel_that_a_jacobian_vector_product_contradicts_is_refused():
    f, params, x = BY_NAME["cnn"].make()
    shares = structured.ntk_by_layer(f, params, x)
    structured.check_row(f, params, x, shares, (2, 1))
    shares["Conv_1"] = 1.01 * shares["Conv_1"]
    with pytest.raises(structured.KernelError, match="params/Conv_1/kernel"):
        structured.check_row(f, params, x, shares, (2, 1))


def test_a_function_without_a_forward_derivative_is_not_checked():
    f, params, x = BY_NAME["custom_vjp downstream"].make()
    structured.check_row(f, params, x, structured.ntk_by_layer(f, params, x), (0, 0))
