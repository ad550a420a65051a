"""A function is what it computes now: what it closes over, holds or refers to may change between calls."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntklens.ntk import structured
from references import compute_layer_kernels

COMPILED: list[float] = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **_: COMPILED.append(seconds) if event.endswith("backend_compile_duration") else None
)


def draw(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


W, X = draw(1, 5, 3), draw(0, 4, 5)
P = {"w": W}


def assert_right(f, params=P, x=X, oracle=None):
    """f's kernel is that of a new function that computes the same."""
    expected = sum(compute_layer_kernels(oracle or (lambda p, x: f(p, x)), params, x).values())
    theta = structured.kernel(f, params, x)
    np.testing.assert_allclose(theta, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


class Stack(nn.Module):
    widths: list[int]

    @nn.compact
    def __call__(self, x):
        for width in self.widths[:-1]:
            x = nn.tanh(nn.Dense(width)(x))
        return nn.Dense(self.widths[-1])(x)


@pytest.mark.parametrize(
    "module", [nn.Sequential([nn.Dense(8), nn.tanh, nn.Dense(3)]), Stack([8, 6, 3])], ids=["sequential", "list field"]
)
def test_a_module_need_not_be_hashable(module):
    with pytest.raises(TypeError):
        hash(module)
    variables = module.init(jax.random.key(0), X)
    for f in (module, module.apply):
        assert_right(f, variables, oracle=lambda p, x: module.apply(p, x))
    layers = list(structured.layer_traces(module, variables, X))
    assert layers == sorted(variables["params"])


def rebind_array():
    state = draw(2, 3)
    yield lambda p, x: (x @ p["w"]) ** 2 * state[None]
    state = draw(3, 3)
    yield None


def rebind_number():
    scale = 2.0
    yield lambda p, x: jnp.tanh(scale * (x @ p["w"]))
    scale = 3.0
    yield None


def mutate_list():
    shifts = [draw(2, 3)]
    yield lambda p, x: jnp.tanh(x @ p["w"] + shifts[0][None])
    shifts[0] = draw(3, 3)
    yield None


def mutate_numpy():
    shift = np.array(draw(2, 3))
    yield lambda p, x: jnp.tanh(x @ p["w"] + shift[None])
    shift[:] = 0.5
    yield None


def mutate_attribute():
    class Holder:
        power = 2

        def __call__(self, p, x):
            return (x @ p["w"]) ** self.power

    holder = Holder()
    yield holder
    holder.power = 3
    yield None


def rebind_rule():
    slope = 1.0

    @jax.custom_jvp
    def act(x):
        return x**2

    @act.defjvp
    def _(primals, tangents):
        (x,), (t,) = primals, tangents
        return x**2, slope * t

    yield lambda p, x: act(x @ p["w"])
    slope = 5.0
    yield None


def rebind_rule_of_a_compiled_function():
    slope = 1.0
    act = jax.custom_jvp(jax.nn.silu)
    act.defjvps(lambda t, y, x: slope * t)
    yield lambda p, x: act(x @ p["w"])
    slope = 5.0
    yield None


def rebind_rule_of_vjp():
    slope = 1.0

    @jax.custom_vjp
    def act(x):
        return x**2

    act.defvjp(lambda x: (x**2, None), lambda _, g: (slope * g,))
    yield lambda p, x: act(x @ p["w"])
    slope = 5.0
    yield None


def rebind_inside_scan():
    shift = draw(2, 3)

    def f(p, x):
        return jax.lax.scan(lambda y, _: (jnp.tanh(y + shift[None]), None), x @ p["w"], None, 3)[0]

    yield f
    shift = draw(3, 3)
    yield None


@pytest.mark.parametrize(
    "make",
    [
        rebind_array,
        rebind_number,
        mutate_list,
        mutate_numpy,
        mutate_attribute,
        rebind_rule,
        rebind_rule_of_a_compiled_function,
        rebind_rule_of_vjp,
        rebind_inside_scan,
    ],
)
def test_what_a_function_closes_over_may_change(make):
    steps = make()
    f = next(steps)
    before = structured.kernel(f, P, X)
    structured.kernel(f, P, X)
    next(steps)
    assert_right(f)
    assert_right(f)
    assert float(jnp.abs(structured.kernel(f, P, X) - before).max()) > 1e-3


def test_a_function_that_begins_to_mix_samples_is_refused():
    mixes = False

    def f(p, x):
        y = x @ p["w"]
        return y - y.mean(0, keepdims=True) if mixes else y

    structured.kernel(f, P, X)
    mixes = True
    with pytest.raises(ValueError, match="mixes samples"):
        structured.kernel(f, P, X)


def count_compilations(calls):
    calls()  # what JAX compiles for the caller's own arrays
    before = len(COMPILED)
    calls()
    return len(COMPILED) - before


def test_what_computes_the_same_is_compiled_once():
    arrays = [draw(seed, 3) for seed in range(6)]

    def measure_new_functions():
        for array in arrays:
            structured.kernel(lambda p, x, array=array: jax.nn.relu(x @ p["w"]) * array[None], P, X)

    structured.kernel(lambda p, x: jax.nn.relu(x @ p["w"]) * arrays[0][None], P, X)
    assert count_compilations(measure_new_functions) == 0
    module = Stack([8, 6, 3])
    variables = module.init(jax.random.key(0), X)
    assert count_compilations(lambda: structured.kernel(Stack([8, 6, 3]).apply, variables, X)) == 0


def test_programs_that_differ_are_not_confused():
    for power in (2, 3):
        for dtype in (jnp.float32, jnp.bfloat16):
            assert_right(lambda p, x, k=power, d=dtype: ((x @ p["w"]) ** k) + jnp.zeros((1, 3), d).astype(jnp.float32))
    for limit in (0.25, 0.75):
        assert_right(lambda p, x, k=limit: jnp.where(x @ p["w"] > k, x @ p["w"], 0.5 * (x @ p["w"])))
    for axis in (0, 1):
        w = {"w": draw(4, 5, 5)}
        assert_right(lambda p, x, a=axis: jax.lax.dot_general(x, p["w"], (((1,), (a,)), ((), ()))), w)


@pytest.mark.slow
def test_compiled_programs_do_not_pile_up():
    for k in range(structured.KEPT + 6):
        structured.layer_traces(lambda p, x, k=k: x * p * float(k + 1), jnp.ones(()), jnp.ones((1, 1)))
    assert structured._compile.cache_info().currsize <= structured.KEPT
    assert max(len(kept.values) for kept in (structured._LATEST, structured._CHECKED)) <= structured.KEPT


def test_rules_of_one_primal_in_one_program_are_told_apart():
    def make(slope):
        act = jax.custom_jvp(jax.nn.silu)
        act.defjvps(lambda t, y, x: slope * t)
        return act

    one, two = make(1.0), make(3.0)
    for first, second in ((one, two), (two, one), (one, one), (two, two)):
        assert_right(lambda p, x, f=first, g=second: g(f(x @ p["w"])))


def test_inside_the_callers_transformations():
    state = draw(2, 3)
    f = lambda p, x: jnp.tanh(x @ p["w"]) * state[None]  # noqa: E731
    stack = {"w": jnp.stack([W, 2 * W])}
    for map_kernels in (jax.vmap, lambda g: jax.jit(jax.vmap(g)), lambda g: lambda s: jax.lax.map(g, s)):
        thetas = map_kernels(lambda p: structured.kernel(f, p, X))(stack)
        for theta, params in zip(thetas, stack["w"], strict=True):
            np.testing.assert_allclose(theta, structured.kernel(f, {"w": params}, X), rtol=1e-5, atol=1e-5)


def test_a_function_that_closes_over_what_the_caller_traces():
    def measure(scale):
        return structured.kernel(lambda p, x: scale * jnp.tanh(x @ p["w"]), P, X)

    expected = 4 * structured.kernel(lambda p, x: jnp.tanh(x @ p["w"]), P, X)
    np.testing.assert_allclose(jax.jit(measure)(2.0), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.vmap(measure)(jnp.array([2.0]))[0], expected, rtol=1e-5, atol=1e-6)
    inside = jax.jit(lambda: structured.kernel(lambda p, x: jnp.tanh(x @ p["w"]), P, X))()
    np.testing.assert_allclose(inside, expected / 4, rtol=1e-5, atol=1e-6)
