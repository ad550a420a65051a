import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cases import CASES, MLP, build_flax, draw
from ntklens.ntk import structured
from ntklens.ntk.layers import as_function
from ntklens.ntk.linearity import analyse_program
from ntklens.ntk.program import trace_program
from references import compute_layer_kernels

pytestmark = pytest.mark.usefixtures("x64")
LONG = {"attention block", "gru in a scan"}  # to compile
# Of these the kernel is compared at every change, the kernels of two batches and of stacked parameters before a commit.
BESIDE = LONG | {
    "readouts that samples change", "a filter used twice", "residual sums before a mean", "filters made of leaves",
    "twelve layers", "grouped and dilated convolution", "strided convolution, channels first", "language model",
    "convolution in three dimensions", "mlp depth 1 with bias", "mlp depth 1 without bias", "mlp depth 3 with bias",
    "mlp depth 3 without bias", "mlp depth 4 with bias", "mlp depth 4 without bias",
}  # fmt: skip
assert {case.name for case in CASES} >= BESIDE


def parametrise(slow):
    cases = [pytest.param(case, marks=pytest.mark.slow if case.name in slow else (), id=case.name) for case in CASES]
    return pytest.mark.parametrize("case", cases)


each_case, each_case_beside = parametrise(LONG), parametrise(BESIDE)


def assert_close(actual, expected, scale=None, tolerance=1e-12):
    assert actual.shape == np.shape(expected)
    assert np.abs(actual - expected).max() <= tolerance * (np.abs(expected).max() if scale is None else scale)


def get_plain_leaves(f, params, x):
    paths = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
    ]
    leaves = jax.tree.leaves(params)
    differentiated = tuple(k for k, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating))
    plain = analyse_program(trace_program(as_function(f), params, x), differentiated).plain
    return tuple(paths[k] for k in plain)


@each_case
def test_layer_kernels_and_traces_equal_those_of_the_full_jacobian(case):
    f, params, x = case.make()
    expected = compute_layer_kernels(as_function(f), params, x)
    theta = sum(expected.values())
    layers = structured.layer_kernels(f, params, x)
    assert set(layers) == set(expected)
    for layer, share in layers.items():
        assert_close(share, expected[layer], np.abs(theta).max())
    traces = structured.layer_traces(f, params, x)
    assert list(traces) == list(layers)
    for layer, trace in traces.items():
        assert_close(trace, np.einsum("icic->", expected[layer]), np.einsum("icic->", theta))


@each_case_beside
def test_cross_kernel_equals_that_of_the_full_jacobian(case):
    f, params, x = case.make()
    x2 = x[::-1][:2] if x.dtype == int else jnp.concatenate([x[:1], 1.5 * x + 0.25])
    expected = compute_layer_kernels(as_function(f), params, x, x2)
    theta = sum(expected.values())
    assert_close(structured.ntk(f, params, x, x2), theta)
    for layer, share in structured.ntk_by_layer(f, params, x, x2).items():
        assert_close(share, expected[layer], np.abs(theta).max())
    size = min(len(x), len(x2))
    paired = np.einsum("icic->", theta[:size, :, :size])
    assert_close(structured.ntk_trace(f, params, x[:size], x2[:size]), paired, np.abs(theta).max() * theta[0].size)


@each_case_beside
def test_kernels_and_traces_of_stacked_parameters_inside_jit(case):
    f, params, x = case.make()
    x = x[:2]
    stack = jax.tree.map(lambda a: jnp.stack([a, (a * 1.25).astype(a.dtype)]), params)

    def measure(params):
        return structured.layer_kernels(f, params, x), structured.layer_traces(f, params, x)

    kernels, traces = jax.jit(jax.vmap(measure))(stack)
    for k in range(2):
        expected = compute_layer_kernels(as_function(f), jax.tree.map(lambda a, k=k: a[k], stack), x)
        scale = np.abs(sum(expected.values())).max()
        for layer in expected:
            assert_close(kernels[layer][k], expected[layer], scale)
            assert_close(traces[layer][k], np.einsum("icic->", expected[layer]), scale * expected[layer].size)


def test_kernels_inside_a_loop_over_parameters():
    f, params, x = build_flax(MLP(6, 2), 4, 5)
    stack = jax.tree.map(lambda a: jnp.stack([a, 1.25 * a]), params)
    kernels = jax.lax.map(lambda p: structured.kernel(f, p, x), stack)
    for k in range(2):
        assert_close(kernels[k], sum(compute_layer_kernels(f, jax.tree.map(lambda a, k=k: a[k], stack), x).values()))


@each_case
def test_only_leaves_of_unknown_use_take_the_whole_jacobian(case):
    assert get_plain_leaves(*case.make()) == case.plain


def test_layers_are_in_natural_order():
    f, params, x = next(case for case in CASES if case.name == "twelve layers").make()
    assert list(structured.layer_kernels(f, params, x)) == [f"Dense_{k}" for k in range(12)]


def test_layers_of_a_list_are_numbered_and_integers_are_no_layer():
    by_name = {case.name: case for case in CASES}
    assert list(structured.layer_traces(*by_name["list of weights and biases"].make())) == ["0", "1", "2"]
    assert list(structured.layer_traces(*by_name["integer leaf"].make())) == ["w"]


def test_a_bare_array_is_a_layer():
    w, x = draw(1, 5, 3), draw(0, 4, 5)
    kernels = structured.layer_kernels(lambda w, x: x @ w, w, x)
    assert_close(kernels["params"], np.einsum("ij,cd->icjd", x @ x.T, np.eye(3)))


class Normalised(nn.Module):
    """Batch normalisation with running averages: its statistics are no parameters."""

    running: bool = True

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(4, param_dtype=jnp.float64)(x)
        x = nn.BatchNorm(self.running, param_dtype=jnp.float64, force_float32_reductions=False)(x)
        return nn.Dense(3, param_dtype=jnp.float64)(nn.tanh(x))


def test_other_collections_of_a_module_are_no_parameters():
    module = Normalised()
    _, variables, x = build_flax(module, 4, 5)
    variables = {"params": variables["params"], "batch_stats": jax.tree.map(jnp.square, variables["batch_stats"])}
    expected = compute_layer_kernels(lambda p, x: module.apply({**variables, "params": p}, x), variables["params"], x)
    actual = structured.layer_kernels(module, variables, x)
    assert list(actual) == ["BatchNorm_0", "Dense_0", "Dense_1"]
    for layer, share in actual.items():
        assert_close(share, expected[layer])


def test_a_function_that_mixes_samples_is_refused():
    def f(p, x):
        y = x @ p["w"]
        return (y - y.mean(0, keepdims=True)) @ p["v"]

    params, x = {"w": draw(1, 5, 4), "v": draw(2, 4, 3)}, draw(0, 6, 5)
    for compute in (structured.kernel, structured.layer_kernels, structured.layer_traces):
        with pytest.raises(ValueError, match="mixes samples"):
            compute(f, params, x)


def test_samples_that_interact_are_refused_where_one_alone_gives_nan():
    """A norm over the batch: the sample of zeros alone is 0 / 0, and hid the others."""

    def divide(axis):
        def f(p, x):
            y = x @ p["w"]
            return y / jnp.linalg.norm(y, axis=axis, keepdims=True) @ p["v"]

        return f

    params, x = {"w": draw(1, 5, 4), "v": draw(2, 4, 3)}, draw(0, 6, 5).at[2].set(0)
    with pytest.raises(ValueError, match="mixes samples"):
        structured.kernel(divide(None), params, x)
    alone = structured.kernel(divide(1), params, x)  # each sample by its own: NaN with others, too
    assert jnp.isnan(alone[2]).all()
    assert jnp.isfinite(alone[0][:, 0]).all()


def normalise(y):
    return (y - y.mean(0, keepdims=True)) / y.std(0, keepdims=True)  # of one sample 0 / 0


def test_samples_that_interact_are_refused_where_each_alone_gives_nan():
    params, x = {"w": draw(1, 5, 4), "v": draw(2, 4, 3)}, draw(0, 6, 5)
    assert jnp.isfinite(normalise(x @ params["w"])).all()
    for compute in (structured.kernel, structured.ntk_trace, structured.check_function):
        with pytest.raises(ValueError, match=r"mixes samples .* not for each sample alone"):
            compute(lambda p, x: normalise(x @ p["w"]) @ p["v"], params, x)


def test_samples_that_interact_are_refused_between_one_sample_and_others():
    params, x = {"w": draw(1, 5, 4), "v": draw(2, 4, 3)}, draw(0, 6, 5)
    with pytest.raises(ValueError, match="mixes samples"):
        structured.kernel(lambda p, x: (y := x @ p["w"]) @ p["v"] - y.mean(0, keepdims=True) @ p["v"], params, x[:1], x)


def test_no_samples_and_shapes_are_refused_in_one_line():
    params, x = {"w": draw(1, 5, 4)}, draw(0, 6, 5)
    for inputs in ((x[:0],), (x, x[:0]), ({"a": x[:0]},)):
        with pytest.raises(ValueError, match="holds no samples"):
            structured.kernel(lambda p, x: jax.tree.leaves(x)[0] @ p["w"], params, *inputs)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
    with pytest.raises(ValueError, match="explain_ntk takes shapes"):
        structured.kernel(lambda p, x: x @ p["w"], shapes, x)


def test_a_batch_norm_in_training_mode_is_refused():
    module = Normalised(running=False)
    x = draw(0, 6, 5)
    variables = module.init(jax.random.key(0), x)

    def apply(variables, x):
        return module.apply(variables, x, mutable=["batch_stats"])[0]

    with pytest.raises(ValueError, match="mixes samples"):
        structured.kernel(apply, variables, x)


@pytest.mark.parametrize("f", [lambda p, x: (x @ p)[:, 0], lambda p, x: (x @ p, x), lambda p, x: (x @ p).astype(int)])
def test_outputs_other_than_one_real_matrix_are_refused(f):
    with pytest.raises(ValueError, match=r"must return"):
        structured.kernel(f, draw(1, 5, 3), draw(0, 4, 5))


def test_arguments_that_do_not_fit_are_refused():
    w, x = draw(1, 5, 3), draw(0, 4, 5)
    with pytest.raises(ValueError, match="x2 holds samples"):
        structured.kernel(lambda p, x: x @ p[: x.shape[1]], w, x, x[:, :4])
    with pytest.raises(ValueError, match="no floating-point array"):
        structured.kernel(lambda p, x: x, {"count": jnp.asarray(3)}, x)


def test_python_numbers_are_parameters():
    x = draw(0, 4, 5)
    theta = structured.kernel(lambda p, x: x * p["scale"], {"scale": 2.0}, x)
    assert_close(theta, np.einsum("ic,jd->icjd", x, x))


def test_results_are_symmetric_and_positive():
    f, params, x = build_flax(MLP(6, 2), 5, 4)
    theta = np.asarray(structured.kernel(f, params, x)).reshape(15, 15)
    assert_close(theta, theta.T)
    assert np.linalg.eigvalsh(theta).min() >= -1e-12 * theta.trace()


def test_single_precision_is_kept_and_half_precision_raised():
    f, params, x = build_flax(MLP(6, 2), 4, 5)
    expected = sum(compute_layer_kernels(f, params, x).values())
    low, x = jax.tree.map(lambda a: a.astype(jnp.float32), (params, x))
    for dtype, tolerance in ((None, 1e-6), (jnp.bfloat16, 0.05)):
        theta = structured.kernel(MixedMLP(dtype), low, x)
        assert theta.dtype == jnp.float32
        assert_close(np.asarray(theta, np.float64), expected, tolerance=tolerance)


class MixedMLP(nn.Module):
    """The MLP of the test above with computations in another precision than its float32 parameters."""

    dtype: object

    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            x = nn.relu(nn.Dense(6, dtype=self.dtype)(x))
        return nn.Dense(3, dtype=self.dtype)(x)


@pytest.mark.parametrize("result", [None, jnp.float32])
def test_convolutions_in_half_precision(result):
    def f(p, x, dtype=jnp.bfloat16):
        for w in (p["w"], p["v"]):
            x = jnp.tanh(
                jax.lax.conv_general_dilated(
                    x.astype(dtype),
                    w.astype(dtype),
                    (2, 1),
                    "SAME",
                    dimension_numbers=("NHWC", "HWIO", "NHWC"),
                    preferred_element_type=result,
                )
            )
        return x.mean((1, 2)).astype(p["d"].dtype) @ p["d"]

    params = {"w": draw(1, 3, 3, 2, 4), "v": draw(2, 3, 3, 4, 4), "d": draw(3, 4, 3)}
    params, x = jax.tree.map(lambda a: a.astype(jnp.float32), (params, draw(0, 2, 6, 6, 2)))
    exact = structured.kernel(lambda p, x: f(p, x, jnp.float32), params, x)
    assert_close(structured.kernel(f, params, x), exact, tolerance=0.05)


def test_no_array_of_outputs_times_parameters_exists_for_dense_layers():
    f, params, x = build_flax(MLP(64, 2, outputs=4), 8, 64)
    jaxpr = jax.make_jaxpr(lambda p: structured.layer_kernels(f, p, x))(params)
    largest = max(var.aval.size for eqn in jaxpr.eqns for var in eqn.outvars)
    assert largest <= 64 * 64 < 8 * 4 * 64 * 64


def test_weight_and_bias_share_one_gram_matrix():
    f, params, x = build_flax(MLP(16, 2), 8, 16)
    text = jax.jit(lambda p: structured.kernel(f, p, x)).lower(params).as_text()
    grams = sum("dot_general" in line and "-> tensor<24x24xf64>" in line for line in text.splitlines())
    assert grams == 3


@st.composite
def programs(draw_from):
    """A random chain of products with shared weights, pointwise functions, biases and scalings."""
    width = draw_from(st.integers(1, 4))
    steps = draw_from(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 2)), min_size=1, max_size=8))
    return width, steps, draw_from(st.integers(0, 2**16))


STEPS = (
    "dot",
    "transposed dot",
    "scaled dot",
    "bias",
    "minus bias",
    "scale",
    "tanh",
    "relu",
    "keep",
    "add kept",
    "times kept",
    "norm",
)


def apply_program(steps, params, x):
    kept = x
    for step, k in steps:
        w, b = params[k]["w"], params[k]["b"]
        if step == "dot":
            x = x @ w
        elif step == "transposed dot":
            x = x @ w.T
        elif step == "scaled dot":
            x = x @ (w * 0.5) / (1 + x**2)
        elif step == "bias":
            x = x + b[None]
        elif step == "minus bias":
            x = b[None] - x
        elif step == "scale":
            x = x * b[None]
        elif step in ("tanh", "relu"):
            x = {"tanh": jnp.tanh, "relu": jax.nn.relu}[step](x)
        elif step == "keep":
            kept = x
        elif step == "add kept":
            x = x + kept
        elif step == "times kept":
            x = jnp.tanh(x) * kept
        else:
            x = x @ (w / jnp.linalg.norm(w))
    return x


@pytest.mark.slow
@given(programs())
@settings(max_examples=15, deadline=None, derandomize=True)
def test_random_programs_equal_the_full_jacobian(program):
    width, steps, seed = program
    with jax.enable_x64(True):
        params = [{"w": draw(seed + k, width, width), "b": draw(seed + 9 + k, width)} for k in range(3)]
        x = draw(seed + 99, 3, width)

        def f(params, x):
            return apply_program(steps, params, x)

        expected = compute_layer_kernels(f, params, x)
        theta = sum(expected.values())
        for layer, share in structured.layer_kernels(f, params, x).items():
            assert_close(share, expected[layer], np.abs(theta).max(), tolerance=1e-11)


@pytest.mark.parametrize(
    "hidden", ["by a readout of zeros", "by a large constant", "by a factor that the function closes over"]
)
def test_samples_that_interact_out_of_sight_are_refused(hidden):
    factor, offset = (jnp.ones(()), 1e5 if hidden == "by a large constant" else 0.0)

    def f(p, x):
        y = jnp.tanh(x @ p["w"])
        return (y - factor * y.mean(0, keepdims=True)) @ p["v"] + offset

    params, x = {"w": draw(1, 5, 4), "v": draw(2, 4, 3)}, draw(0, 6, 5)
    if hidden == "by a factor that the function closes over":
        factor = jnp.zeros(())
        structured.kernel(f, params, x)  # samples do not interact
        factor = jnp.ones(())
    elif hidden == "by a readout of zeros":
        with pytest.raises(ValueError, match="mixes samples"):
            structured.kernel(f, params | {"v": jnp.zeros((4, 3))}, x)
    with pytest.raises(ValueError, match="mixes samples"):
        structured.kernel(f, params, x)
