"""What a parameter is, and what a library keeps beside them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import ntklens
from ntklens.errors import InputError
from ntklens.ntk import structured
from ntklens.ntk.layers import find_parameters, mark_parameters
from references import compute_layer_kernels


class Normalised(nn.Module):
    """Batch normalisation, whose statistics are no parameters, and a collection of its own name."""

    train: bool | None = False
    rate: float = 0.0

    @nn.compact
    def __call__(self, x):
        shift = self.variable("shifts", "shift", lambda: jnp.full((4,), 0.5)).value
        average = None if self.train is None else not self.train
        x = nn.BatchNorm(use_running_average=average)(nn.Dense(4)(x) + shift[None])
        if self.rate:
            x = nn.Dropout(self.rate, deterministic=False)(x)
        return nn.Dense(3)(nn.tanh(x))


def make_variables(n=4):
    x = jax.random.normal(jax.random.key(0), (n, 5))
    variables = Normalised().init(jax.random.key(1), x)
    moved = jax.tree.map(lambda a: a + 0.3, variables["batch_stats"])
    return {**variables, "batch_stats": moved}, x


def assert_close(actual, expected):
    assert list(actual) == list(expected)
    for layer, share in expected.items():
        np.testing.assert_allclose(actual[layer], share, rtol=1e-4, atol=1e-4 * np.abs(share).max())


@pytest.mark.parametrize("kind", ["module", "apply", "partial", "jit"])
def test_a_module_has_no_parameters_but_its_collection_params(kind):
    module = Normalised()
    variables, x = make_variables()
    f = {
        "module": module,
        "apply": module.apply,
        "partial": jax.tree_util.Partial(module.apply, mutable=False),
        "jit": jax.jit(module.apply),
    }[kind]
    expected = compute_layer_kernels(lambda p, x: module.apply({**variables, "params": p}, x), variables["params"], x)
    assert_close(structured.layer_kernels(f, variables, x), dict(sorted(expected.items())))


def test_known_collections_of_any_function_are_held_fixed():
    def f(variables, x):
        y = x @ variables["params"]["Dense_0"]["kernel"]
        return (y - variables["batch_stats"]["mean"][None]) * variables["params"]["Dense_0"]["scale"][None]

    params = {"Dense_0": {"kernel": jnp.ones((5, 3)), "scale": jnp.full(3, 2.0)}}
    variables, x = {"batch_stats": {"mean": jnp.ones(3)}, "params": params}, jnp.ones((2, 5))
    assert list(structured.layer_traces(f, variables, x)) == ["Dense_0"]
    assert mark_parameters(f, variables) == {
        "batch_stats": {"mean": False},
        "params": {"Dense_0": {"kernel": True, "scale": True}},
    }


def test_an_unknown_collection_is_held_fixed_and_said():
    variables = {"params": {"a": {"w": jnp.ones(2)}}, "head": {"b": {"w": jnp.ones(2)}}}
    with pytest.warns(UserWarning, match="head beside 'params' is taken for a collection of flax"):
        assert set(find_parameters(lambda v, x: x, variables).values()) == {"a"}


def test_an_array_beside_params_is_a_parameter():
    tree = {"params": {"a": jnp.ones(2)}, "scale": jnp.ones(())}
    assert set(find_parameters(lambda v, x: x, tree).values()) == {"a", "scale"}


class Net(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.layers = nnx.List([nnx.Linear(5, 4, rngs=rngs) for _ in range(1)])
        self.norm = nnx.BatchNorm(4, rngs=rngs, use_running_average=True)
        self.dropout = nnx.Dropout(0.5, deterministic=True, rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(self.dropout(self.norm(jnp.tanh(self.layers[0](x)))))


def test_nnx_state_that_is_no_param_is_held_fixed_and_its_layers_are_modules():
    graph, params, rest = nnx.split(Net(), nnx.Param, ...)
    _, state = nnx.split(Net())
    x = jax.random.normal(jax.random.key(0), (4, 5))
    whole = structured.layer_kernels(lambda s, x: nnx.merge(graph, s)(x), state, x)
    assert list(whole) == ["head", "layers/0", "norm"]
    leaves, tree = jax.tree.flatten(params)
    expected = compute_layer_kernels(
        lambda p, x: nnx.merge(graph, jax.tree.unflatten(tree, p["all"]), rest)(x), {"all": leaves}, x
    )
    np.testing.assert_allclose(sum(whole.values()), expected["all"], rtol=1e-4, atol=1e-4)


def test_boxes_of_linen_are_no_layers():
    init = nn.with_partitioning(nn.initializers.lecun_normal(), ("in", "out"))
    module = nn.Sequential([nn.Dense(4, kernel_init=init), nn.tanh, nn.Dense(2, kernel_init=init)])
    x = jnp.ones((3, 5))
    variables = module.init(jax.random.key(0), x)
    assert list(structured.layer_traces(module, variables, x)) == ["layers_0", "layers_2"]


def test_complex_parameters_are_refused_by_name():
    params, x = {"mix": {"w": jnp.ones((5, 3), jnp.complex64)}}, jnp.ones((2, 5))
    with pytest.raises(ValueError, match="mix/w is complex64"):
        structured.kernel(lambda p, x: jnp.real(x.astype(complex) @ p["mix"]["w"]), params, x)


def test_real_parameters_of_a_complex_computation_are_exact():
    params = {"real": jax.random.normal(jax.random.key(1), (5, 3)), "imag": jnp.ones((5, 3))}
    x = jax.random.normal(jax.random.key(0), (4, 5))

    def f(p, x):
        z = jnp.fft.fft(x) @ jax.lax.complex(p["real"], p["imag"])
        return jnp.square(jnp.abs(z))

    expected = compute_layer_kernels(f, params, x)
    assert_close(structured.layer_kernels(f, params, x), dict(sorted(expected.items())))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Normalised(rate=0.5), r"Dropout_0 needs PRNG.*deterministic=True"),
        (Normalised(train=True), r"collection \"batch_stats\" is immutable.*use_running_average=True"),
        (Normalised(train=None), r"use_running_average=True"),
    ],
)
def test_what_flax_refuses_is_one_line_that_says_what_to_pass(module, message):
    variables, x = make_variables()
    for call in (structured.kernel, structured.layer_traces, structured.check_function):
        with pytest.raises(ValueError, match=message) as caught:
            call(module, variables, x)
        assert "\n" not in str(caught.value)
        assert caught.value.__suppress_context__


def test_dropout_of_nnx_without_a_key_is_one_line():
    graph, state = nnx.split(nnx.Sequential(nnx.Linear(5, 3, rngs=nnx.Rngs(0)), nnx.Dropout(0.5)))
    with pytest.raises(ValueError, match=r"no `rngs` argument.*model\.eval\(\)") as caught:
        structured.kernel(lambda s, x: nnx.merge(graph, s)(x), state, jnp.ones((2, 5)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("call", [structured.kernel, structured.layer_traces, structured.check_function])
def test_a_function_that_fails_for_one_sample_is_shown_what_it_was_given(call):
    w, x = jnp.ones((5, 2)), jnp.ones((6, 5))
    variables, inputs = make_variables()
    one = r"; f is traced for one sample, x of shape \({}\): .*\(one sample alone: x\[None\]\)"
    for f, params, given, words in (
        (lambda p, x: x.reshape(6, -1) @ p, w, x, r"fails \(TypeError: .*" + one.format("1, 5")),
        (lambda p, x: (x @ p) * (1 / (len(x) - 1)), w, x, r"fails \(ZeroDivisionError: .*" + one.format("1, 5")),
        (Normalised(), variables, inputs[0], r"fails in flax \(.*" + one.format("1,")),
        (lambda p, x: x @ p, w, x[0], r"fails \(.*" + one.format("1,")),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=rf"^f\(params, x\) {words}") as caught:
            call(f, params, given)
        assert "\n" not in str(caught.value)


def test_outputs_of_another_shape_are_answered_with_what_f_was_given():
    w, x = jnp.ones((5, 2)), jnp.ones((6, 5))
    with pytest.raises(ValueError, match=r"x of shape \(1, 5\), it returned \(1,\); add \[:, None\]"):
        structured.kernel(lambda p, x: (x @ p).sum(1), w, x)
    with pytest.raises(ValueError, match=r"x of shape \(1, 5\), it returned \(5, 2\)"):
        structured.kernel(lambda p, x: x.reshape(5, -1) * p, w, x)


def test_arguments_in_another_order_and_a_class_are_named():
    variables, x = make_variables()
    for params in (variables, list(jax.tree.leaves(variables))):
        with pytest.raises(ValueError, match=r"x must be one array .*params and x swapped\? The order is f, params, x"):
            structured.kernel(Normalised(), x, params)
    with pytest.raises(ValueError, match=r"^f\(params, x\) fails .*params and x swapped\? The order is f, params, x"):
        structured.kernel(lambda p, x: x @ p["w"], x, {"w": jnp.ones((5, 3))})
    with pytest.raises(ValueError, match=r"^f is the class Normalised: pass an instance of it, Normalised\(\.\.\.\)"):
        structured.kernel(Normalised, variables, x)


TAKE_A_FUNCTION = ("ntk", "kernel", "ntk_by_layer", "layer_kernels", "ntk_trace", "layer_traces", "explain_ntk")


@pytest.mark.parametrize("name", TAKE_A_FUNCTION)
def test_a_function_in_another_place_is_answered_with_the_order(name):
    call, params, x = getattr(ntklens, name), {"w": jnp.ones((5, 3))}, jnp.ones((2, 5))
    for f in (lambda p, x: x @ p["w"], nn.Dense(3)):
        kind = type(f).__name__
        for place, given in (("params", (params, f, x)), ("params", (x, f, params)), ("x", (params, x, f))):
            with pytest.raises(ValueError, match=rf"^{place} is of type {kind}, .*the order is f, params, x$"):
                call(*given)
    with pytest.raises(ValueError, match=r"^f is of type dict, not a function .*the order is f, params, x$"):
        call(params, x, params)


def test_a_recorder_names_the_order_too():
    with pytest.raises(InputError, match=r"^Recorder\(apply, params, probe=…\): params is of type function"):
        ntklens.Recorder({"w": jnp.ones((5, 3))}, lambda p, x: x @ p["w"], probe=jnp.ones((2, 5)), config={})


def test_arguments_of_another_kind_are_named():
    variables, x = make_variables()
    with pytest.raises(ValueError, match=r"takes what its init returns"):
        structured.kernel(Normalised(), variables["params"], x)
    with pytest.raises(ValueError, match=r"activation is of type str"):
        structured.kernel(lambda p, x: x @ p["w"], {"w": jnp.ones((5, 2)), "activation": "relu"}, x)
    with pytest.raises(
        ValueError,
        match=r"x must be one array .*, or a tree of arrays with one N, not of image \[4, 5\] and mask \[3, 5\]",
    ):
        structured.kernel(lambda p, x: x["image"] @ p, jnp.ones((5, 2)), {"image": x, "mask": x[1:]})


def test_inputs_may_be_a_tree_of_arrays():
    keys = jax.random.split(jax.random.key(3), 5)
    params = {
        "image": {"kernel": jax.random.normal(keys[0], (5, 8))},
        "out": {"kernel": jax.random.normal(keys[1], (8, 3))},
    }
    inputs = {"image": jax.random.normal(keys[2], (6, 5)), "mask": jax.random.bernoulli(keys[3], 0.5, (6, 8))}

    def f(params, x):
        return jnp.where(x["mask"], jnp.tanh(x["image"] @ params["image"]["kernel"]), 0) @ params["out"]["kernel"]

    def whole(params, x):  # the same of one array
        return f(params, {"image": x[:, :5], "mask": x[:, 5:] > 0.5})

    x = jnp.concatenate([inputs["image"], inputs["mask"].astype(jnp.float32)], axis=1)
    first, second = (jax.tree.map(lambda leaf, part=part: leaf[part], inputs) for part in (slice(4), slice(2, 6)))
    for found, expected in (
        (structured.ntk_by_layer(f, params, inputs), structured.ntk_by_layer(whole, params, x)),
        (structured.ntk_by_layer(f, params, first, second), structured.ntk_by_layer(whole, params, x[:4], x[2:])),
        (structured.layer_traces(f, params, inputs), structured.layer_traces(whole, params, x)),
        (
            jax.jit(lambda p, x: structured.ntk_by_layer(f, p, x))(params, inputs),
            structured.ntk_by_layer(whole, params, x),
        ),
    ):
        assert_close(found, expected)
    np.testing.assert_allclose(
        structured.ntk_trace(f, params, first, second), structured.ntk_trace(whole, params, x[:4], x[2:]), rtol=1e-5
    )
    assert structured.plan_ntk(f, params, inputs).names == {0: "image/kernel", 1: "out/kernel"}
    with pytest.raises(ValueError, match="mixes samples"):
        structured.kernel(lambda p, x: f(p, x) - f(p, x).mean(0, keepdims=True), params, inputs)
    with pytest.raises(ValueError, match="x2 holds samples"):
        structured.kernel(f, params, inputs, {"image": inputs["image"], "mask": x})


def test_a_module_may_take_a_tree():
    class Masked(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(3)(nn.BatchNorm(use_running_average=True)(x["image"]) * x["mask"])

    inputs = {"image": jnp.ones((4, 5)), "mask": jnp.arange(4.0)[:, None]}
    variables = Masked().init(jax.random.key(0), inputs)
    found = structured.ntk_by_layer(Masked(), variables, inputs)
    assert list(found) == ["BatchNorm_0", "Dense_0"]
    x = jnp.concatenate(list(inputs.values()), axis=1)
    whole = structured.ntk_by_layer(
        lambda params, x: Masked().apply(params, {"image": x[:, :5], "mask": x[:, 5:]}), variables, x
    )
    assert_close(found, whole)
