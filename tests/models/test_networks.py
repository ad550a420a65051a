"""Convolutional networks and transformers: one network at the base width, and scaled with the width by the table."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ntklens.errors import InputError
from ntklens.models.causal_transformer import CausalTransformer
from ntklens.models.cnn import CNN
from ntklens.models.parameterization import READOUT, TABLE, Rule
from ntklens.models.resnet import ResNet
from ntklens.models.transformer import Transformer
from ntklens.ntk.structured import layer_traces
from ntklens.training.scaled import scale_leaves

IMAGES, TOKENS = (4, 4, 1), (4,)
MODELS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "cnn": (CNN(8, 2, 3), IMAGES),
    "resnet": (ResNet(8, 1, 3, groups=4), IMAGES),
    "transformer": (Transformer(8, 1, 3, heads=2, patch_size=2, mlp_ratio=2), IMAGES),
    "causal_transformer": (CausalTransformer(8, 1, 3, heads=2, mlp_ratio=2), TOKENS),
}
FIRST = {"conv_0", "stem", "patches", "positions", "tokens"}


def make(name, width, parameterization="standard", base=8):
    return dataclasses.replace(MODELS[name][0], width=width, parameterization=parameterization, base_width=base)


def draw_inputs(name, count, seed=0):
    shape, generator = (count, *MODELS[name][1]), np.random.default_rng(seed)
    if name == "causal_transformer":
        return jnp.asarray(generator.integers(0, 4, shape), jnp.int32)
    return jnp.asarray(generator.random(shape), jnp.float32)


def flatten(params):
    return {f"{layer}.{kind}": leaf for layer, kinds in params["params"].items() for kind, leaf in kinds.items()}


def nest(leaves):
    nested: dict[str, dict[str, Any]] = {}
    for leaf, value in leaves.items():
        layer, _, kind = leaf.partition(".")
        nested.setdefault(layer, {})[kind] = value
    return {"params": nested}


@pytest.mark.parametrize(
    "name", [name if name == "causal_transformer" else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]
)
def test_all_are_one_at_the_base_width_to_the_bit(name):
    x = draw_inputs(name, 2)
    standard = make(name, 8)
    key = jax.random.key(0)
    params = jax.jit(standard.init)(key, x)
    draw = str(jax.make_jaxpr(standard.init)(key, x))
    program = str(jax.make_jaxpr(standard.apply)(params, x))
    for parameterization in ("ntk", "mup"):
        network = make(name, 8, parameterization)
        assert str(jax.make_jaxpr(network.init)(key, x)) == draw
        assert str(jax.make_jaxpr(network.apply)(params, x)) == program
        assert set(jax.tree.leaves(network.list_adam_factors(params))) == {1.0}
        assert str(jax.make_jaxpr(make(name, 8, parameterization, base=4).apply)(params, x)) != program


# Exponents of r, by kind of leaf: variance at the start, multiplier, Adam's rate.
EXPONENTS = {
    "ntk": {"first": (0, 0, -0.5), "hidden": (1, -0.5, -1), "readout": (1, -0.5, -0.5), "vector": (0, 0, -0.5)},
    "mup": {"first": (-1, 0.5, -0.5), "hidden": (0, 0, -1), "readout": (0, -0.5, -0.5), "vector": (0, 0.5, -0.5)},
}


def get_exponents(parameterization, leaf):
    layer, _, kind = leaf.partition(".")
    if leaf == "readout.bias":
        return 0, 0, 0
    kinds = {"readout": "readout"} | dict.fromkeys(FIRST, "first")
    return EXPONENTS[parameterization][kinds.get(layer, "hidden") if kind == "kernel" else "vector"]


@pytest.mark.slow
@pytest.mark.parametrize("parameterization", EXPONENTS)
@pytest.mark.parametrize("name", MODELS)
def test_leaves_are_drawn_multiplied_and_traced_one_by_one(name, parameterization):
    """Tr Θ_0 of each leaf is multiplier² times that of the effective weights; attention's scale counts with queries."""
    ratio, x = 4.0, draw_inputs(name, 3)
    plain, network = make(name, 16), make(name, 16, parameterization, base=4)
    standard, drawn = (flatten(model.init(jax.random.key(0), x)) for model in (plain, network))
    exponents = {leaf: get_exponents(parameterization, leaf) for leaf in drawn}
    powers = {leaf: multiplier for leaf, (_, multiplier, _) in exponents.items()}
    for leaf in powers:
        if "query" in leaf:
            powers[leaf] += {"ntk": 0, "mup": -0.5}[parameterization]
    effective = {leaf: ratio ** powers[leaf] * value for leaf, value in drawn.items()}
    traces = [
        layer_traces(lambda leaves, x, model=model: model.apply(nest(leaves), x), leaves, x)
        for model, leaves in ((network, drawn), (plain, effective))
    ]
    factors = flatten(network.list_adam_factors(nest(drawn)))
    for leaf, (variance, multiplier, adam) in exponents.items():
        power = -multiplier if leaf.endswith("scale") else variance / 2
        np.testing.assert_allclose(drawn[leaf], ratio**power * standard[leaf], rtol=1e-5)
        np.testing.assert_allclose(traces[0][leaf], ratio ** (2 * powers[leaf]) * traces[1][leaf], rtol=1e-3, atol=1e-9)
        assert factors[leaf] == pytest.approx(ratio**adam)


# ---- Slopes over widths ----------------------------------------------------------------------------------------------

WIDTHS, SEEDS, STEPS, RATES = (32, 96, 288), 6, 3, {"sgd": 0.05, "adam": 1e-4}
LAST = {"cnn": "conv_1", "resnet": "norm", "transformer": "norm", "causal_transformer": "norm"}


def measure(name, parameterization, optimizer, width):
    """Root mean squares over a probe of f at the start, and of the change of f and of the last hidden layer."""
    model = dataclasses.replace(make(name, width, parameterization, base=32), classes=10)
    x, probe = draw_inputs(name, 12), draw_inputs(name, 6, seed=1)
    y = jnp.where(jnp.arange(12) < 9, 0, 1)  # unequal, so that all outputs move alike from seed to seed

    @jax.jit
    def run(seed):
        params = model.init(jax.random.key(seed), x)
        factors = model.list_adam_factors(params)
        rule = optax.sgd(RATES[optimizer])
        if optimizer == "adam":
            scaled = scale_leaves([1.0] * len(jax.tree.leaves(params)) if factors is None else jax.tree.leaves(factors))
            rule = optax.chain(optax.scale_by_adam(), scaled, optax.scale(-RATES[optimizer]))

        def look(params):
            def is_last(module, _method):
                return module.name == LAST[name]

            logits, state = model.apply(params, probe, capture_intermediates=is_last, mutable=["intermediates"])
            return {"f": logits, "h": state["intermediates"][LAST[name]]["__call__"][0]}

        def update(params, state):
            loss = lambda p: optax.softmax_cross_entropy_with_integer_labels(model.apply(p, x), y).mean()  # noqa: E731
            updates, state = rule.update(jax.grad(loss)(params), state, params)
            return optax.apply_updates(params, updates), state

        first, state = look(params), rule.init(params)
        for _ in range(STEPS):  # XLA's convolutions within a loop are slow on a CPU
            params, state = update(params, state)
        last = look(params)
        moved = {f"Δ{key}": last[key] - first[key] for key in first}
        return {key: jnp.mean(jnp.square(value)) for key, value in ({"f_0": first["f"]} | moved).items()}

    rows = [run(jnp.uint32(seed)) for seed in range(SEEDS)]
    return {key: float(np.sqrt(np.mean([row[key] for row in rows]))) for key in rows[0]}


def fit_slopes(name, parameterization, optimizer):
    rows = [measure(name, parameterization, optimizer, width) for width in WIDTHS]
    return {key: np.polyfit(np.log(WIDTHS), np.log([row[key] for row in rows]), 1)[0] for key in rows[0]}


EXPECTED = {"ntk": {"f_0": 0, "Δf": 0, "Δh": -0.5}, "mup": {"f_0": -0.5, "Δf": 0, "Δh": 0}}
TOLERANCE = 0.15


def find_failing(name, parameterization, optimizer):
    found = fit_slopes(name, parameterization, optimizer)
    print(name, parameterization, optimizer, {key: round(float(value), 3) for key, value in found.items()})
    expected = EXPECTED[parameterization]
    return {key for key in expected if abs(found[key] - expected[key]) > TOLERANCE}


@pytest.mark.slow
@pytest.mark.parametrize("parameterization", EXPECTED)
def test_quantities_scale_with_the_width_as_the_table_says(parameterization):
    """Of a convolutional network; the exponents of single leaves are tested above, of every network."""
    assert not find_failing("cnn", parameterization, "sgd")


@pytest.mark.slow
def test_a_wrong_table_fails(monkeypatch):
    """A twin: mup whose readout is drawn as that of ntk."""
    monkeypatch.setitem(TABLE, "mup", TABLE["mup"] | {READOUT: Rule(1.0, -0.5, -0.5)})
    assert "f_0" in find_failing("cnn", "mup", "sgd")


# ---- Refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "shape", "dtype", "text"),
    [
        (CNN(8, 2, 3), (2, 16), float, "takes images"),
        (ResNet(8, 1, 3), (2, 16), float, "takes images"),
        (ResNet(12, 1, 3), (2, 8, 8, 1), float, "model.width=12: must be a multiple of model.groups=8"),
        (CNN(8, 3, 3), (2, 4, 4, 1), float, "type model.depth=2, or model.pooling=none"),
        (CNN(8, 2, 3, pooling="sum"), (2, 4, 4, 1), float, "model.pooling=sum: must be one of average, max, none"),
        (Transformer(8, 1, 3, patch_size=3), (2, 8, 8, 1), float, "model.patch_size=3: must divide"),
        (Transformer(6, 1, 3), (2, 8, 8, 1), float, "model.width=6: must be a multiple of model.heads=4"),
        (CausalTransformer(8, 1, 3), (2, 8, 8, 1), float, "takes tokens"),
        (CausalTransformer(8, 1, 3), (2, 8), float, "takes tokens"),
    ],
)
def test_inputs_that_a_model_cannot_take_are_refused(model, shape, dtype, text):
    with pytest.raises((InputError, ValueError), match=text.replace(".", r"\.")):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape, dtype))


def test_what_is_no_token_shows():
    model = make("causal_transformer", 8)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 4), jnp.int32))
    logits = jax.jit(model.apply)(params, jnp.asarray([[0, 1, 3, 2], [0, 1, 4, 2], [0, -1, 0, 0]]))
    assert np.isfinite(logits).all(axis=1).tolist() == [True, False, False]


def test_attention_reads_the_past_alone():
    """The logits of the last position depend on every token; those of a block at a position on none behind it."""
    model = make("causal_transformer", 8)
    x = jnp.asarray([[0, 1, 2, 3], [0, 1, 3, 2]])
    params = model.init(jax.random.key(0), x)
    _, state = model.apply(params, x, capture_intermediates=True, mutable=["intermediates"])
    outputs = np.asarray(state["intermediates"]["norm"]["__call__"][0])
    np.testing.assert_array_equal(outputs[0, :2], outputs[1, :2])
    assert np.abs(outputs[0, 2:] - outputs[1, 2:]).max() > 1e-3
