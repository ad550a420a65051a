"""Parameterisations are one network at the base width, and scale with the width as their theory says."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from contract import OWN, configure
from ntklens.data import digits
from ntklens.errors import InputError
from ntklens.jobs.build import build
from ntklens.models.mlp import MLP
from ntklens.models.parameterization import HIDDEN, HIDDEN_BIAS, INPUT, READOUT, TABLE, Rule
from ntklens.ntk.structured import layer_traces
from ntklens.training.ensemble import initialise, run_states

OPTIMIZERS = ("sgd", "momentum", "adam", "adamw")
SMALL = ("dataset=digits", "dataset.train_size=20", "dataset.test_size=20", "dataset.probe_size=8", "tracking=none")
TOLERANCE = 0.1


def train(*words, steps=5):
    """The parameters after some updates, and the logits on the probe."""
    cfg = configure(*SMALL, *words)
    built = build(cfg)
    (state,) = run_states(
        built.trainer,
        initialise(built.trainer, [3], cfg.optimizer.learning_rate),
        built.dataset.train,
        np.array([steps]),
    )
    params = jax.tree.map(lambda leaf: leaf[0], state.params)
    return built.trainer, state, np.asarray(built.trainer.apply(params, jnp.asarray(built.dataset.probe.inputs)))


def test_standard_is_the_program_of_flax():
    class Plain(nn.Module):
        @nn.compact
        def __call__(self, x):
            h = x.reshape(x.shape[0], -1)
            for layer in range(2):
                h = nn.relu(nn.Dense(16, name=f"hidden_{layer}")(h))
            return nn.Dense(3, name="readout")(h)

    x = jnp.ones((4, 5))
    ours, plain = MLP(16, 2, 3), Plain()
    params = plain.init(jax.random.key(7), x)
    jax.tree.map(np.testing.assert_array_equal, ours.init(jax.random.key(7), x), params)
    assert str(jax.make_jaxpr(ours.apply)(params, x)) == str(jax.make_jaxpr(plain.apply)(params, x))


@pytest.mark.parametrize(
    "optimizer", [name if name == "adam" else pytest.param(name, marks=pytest.mark.slow) for name in OPTIMIZERS]
)
def test_all_are_one_at_the_base_width_to_the_bit(optimizer):
    words = ("model.width=24", "model.base_width=24", f"optimizer={optimizer}")
    _, state, standard = train(*words)
    for name in ("ntk", "mup"):
        _, other, logits = train(*words, f"model.parameterization={name}")
        np.testing.assert_array_equal(logits, standard)
        jax.tree.map(np.testing.assert_array_equal, other.params, state.params)


@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
@pytest.mark.parametrize("name", ["ntk", "mup"])
def test_multipliers_are_per_layer_rates(name, optimizer):
    """With W = s w as parameters, rates s² under SGD and s · factor under Adam, the function is the same."""
    width, base = 32, 8
    words = (f"model.width={width}", f"model.base_width={base}", f"model.parameterization={name}", "precision=float64")
    words += (f"optimizer={optimizer}",)
    if optimizer.startswith("adam"):
        words += ("optimizer.eps=1e-30",)  # else rates of gradients that differ by s differ by eps
    trainer, _, logits = train(*words)
    cfg = configure(*SMALL, *words)
    data = build(cfg).dataset
    kinds = {
        "hidden_0": (INPUT, HIDDEN_BIAS), "hidden_1": (HIDDEN, HIDDEN_BIAS), "readout": (READOUT, "readout bias"),
    }  # fmt: skip
    ratio = width / base

    def spread(power):
        return {
            "params": {
                layer: {"kernel": ratio ** power(TABLE[name][kernel]), "bias": ratio ** power(TABLE[name][bias])}
                for layer, (kernel, bias) in kinds.items()
            }
        }

    plain = MLP(width, 2, data.classes)
    drawn = initialise(trainer, [3], 1.0).params
    params = jax.tree.map(lambda leaf, s: leaf[0] * s, drawn, spread(lambda rule: rule.multiplier))
    adaptive = optimizer.startswith("adam")
    rates = spread(lambda rule: rule.multiplier + rule.adam if adaptive else 2 * rule.multiplier)
    moments = jax.tree.map(lambda leaf: (0 * leaf, 0 * leaf), params)
    x, y = jnp.asarray(data.train.inputs, float), jnp.asarray(data.train.labels)

    def loss(params):
        return jnp.mean(trainer.loss(plain.apply(params, x), y))

    rate, decay = cfg.optimizer.learning_rate, cfg.optimizer.get("weight_decay", 0.0)
    gradient = jax.jit(jax.grad(loss))
    for count in range(1, 6):

        def step(leaf, moment, gradient, factor, count=count):
            if adaptive:
                first = 0.9 * moment[0] + 0.1 * gradient
                second = 0.999 * moment[1] + 0.001 * gradient**2
                size = jnp.sqrt(second / (1 - 0.999**count))
                direction = factor * first / (1 - 0.9**count) / jnp.where(size == 0, 1, size) + decay * leaf
            else:
                first = cfg.optimizer.get("momentum", 0.0) * moment[0] + gradient
                second, direction = moment[1], factor * first
            return leaf - rate * direction, (first, second)

        moved = jax.tree.map(
            step, params, moments, gradient(params), rates, is_leaf=lambda node: isinstance(node, tuple)
        )
        pairs = jax.tree.structure(params).flatten_up_to(moved)
        params = jax.tree.unflatten(jax.tree.structure(params), [pair[0] for pair in pairs])
        moments = jax.tree.unflatten(jax.tree.structure(params), [pair[1] for pair in pairs])
    np.testing.assert_allclose(plain.apply(params, jnp.asarray(data.probe.inputs, float)), logits, rtol=1e-9, atol=1e-9)


# Exponents of r: of the variance at the start, of the multiplier; (0, 0) where none is given.
DRAWN = {
    "standard": {},
    "ntk": {"hidden_1.kernel": (1, -0.5), "readout.kernel": (1, -0.5)},
    "mup": {
        "hidden_0.kernel": (-1, 0.5),
        "hidden_0.bias": (0, 0.5),
        "hidden_1.bias": (0, 0.5),
        "readout.kernel": (0, -0.5),
    },
}
ADAM = {"hidden_0.kernel": -0.5, "hidden_1.kernel": -1, "readout.kernel": -0.5, "hidden_0.bias": -0.5,
        "hidden_1.bias": -0.5, "readout.bias": 0}  # fmt: skip


def flatten(params):
    return {f"{layer}.{kind}": leaf for layer, kinds in params["params"].items() for kind, leaf in kinds.items()}


@pytest.mark.parametrize("name", TABLE)
def test_leaves_are_drawn_multiplied_and_traced_one_by_one(name):
    """Tr Θ_0 of each leaf, kernels and biases apart, is multiplier² times that of the effective weights."""
    ratio, x = 4.0, jax.random.normal(jax.random.key(1), (5, 7))
    plain, network = MLP(16, 2, 3), MLP(16, 2, 3, parameterization=name, base_width=4)
    standard, drawn = (flatten(model.init(jax.random.key(0), x)) for model in (plain, network))
    exponents = {leaf: DRAWN[name].get(leaf, (0, 0)) for leaf in drawn}
    effective = {leaf: ratio ** exponents[leaf][1] * value for leaf, value in drawn.items()}
    traces = []
    for model, leaves in ((network, drawn), (plain, effective)):

        def apply(leaves, x, model=model):
            nested = {}
            for leaf, value in leaves.items():
                layer, _, kind = leaf.partition(".")
                nested.setdefault(layer, {})[kind] = value
            return model.apply({"params": nested}, x)

        traces.append(layer_traces(apply, leaves, x))
    for leaf, (variance, multiplier) in exponents.items():
        np.testing.assert_allclose(drawn[leaf], ratio ** (variance / 2) * standard[leaf], rtol=1e-6)
        np.testing.assert_allclose(traces[0][leaf], ratio ** (2 * multiplier) * traces[1][leaf], rtol=1e-5)
    factors = network.list_adam_factors(network.init(jax.random.key(0), x))
    if name == "standard":
        assert factors is None
    else:
        assert flatten(factors) == {leaf: pytest.approx(ratio**power) for leaf, power in ADAM.items()}


def test_an_optimizer_without_a_rule_is_refused(monkeypatch):
    monkeypatch.syspath_prepend(str(OWN))
    for optimizer, name in (("lion", "mup"), ("clipped_sgd", "ntk")):
        with pytest.raises(InputError, match=re.escape(f"model.parameterization={name}: has no rule")):
            train(f"optimizer={optimizer}", f"model.parameterization={name}")
    train("optimizer=lion", "model.base_width=64")


# ---- Slopes over widths ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slopes():
    """benchmarks/parameterization.py, which prints the whole table."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        import parameterization

    return parameterization


@pytest.fixture(scope="module")
def data():
    return digits.load(train_size=100)


def list_failing(slopes, found, name, optimizer):
    """Return the quantities whose slope is not the expected one."""
    expected = slopes.get_expected(name, optimizer)
    return {quantity for quantity, power in expected.items() if abs(found[quantity] - power) > TOLERANCE}


def find_failing(slopes, data, name, optimizer, widths=(128, 512, 2048)):
    return list_failing(slopes, slopes.fit_slopes(name, optimizer, widths, data), name, optimizer)


CASES = [(name, optimizer) for name in TABLE for optimizer in ("sgd", "adam")]  # benchmarks/parameterization.py: all


@pytest.mark.slow
@pytest.mark.parametrize(("name", "optimizer"), [*CASES, ("mup", "momentum"), ("mup", "adamw")])
def test_quantities_scale_with_the_width_as_the_table_says(slopes, data, name, optimizer):
    assert not find_failing(slopes, data, name, optimizer)


HIDDEN_TRACES = {"Tr hidden_0.kernel", "Tr hidden_1.kernel"}
HIDDEN_BIASES = {"Tr hidden_0.bias", "Tr hidden_1.bias"}
# A wrong table, its optimizer → the quantities that must fail, at least; all widths.
TWINS = [
    ("mup", READOUT, Rule(1.0, -0.5, -0.5), "sgd", {"f_0", "Δf, 1", *HIDDEN_TRACES}),
    ("mup", INPUT, Rule(0.0, 0.0, 0.0), "sgd", {"Δh_1, 1", "Δf, 1", "Tr hidden_0.kernel"}),
    ("mup", READOUT, Rule(-1.0, 0.0, 0.0), "sgd", {"Δf, 1", "Tr readout.kernel"}),
    ("mup", HIDDEN_BIAS, Rule(), "sgd", HIDDEN_BIASES),
    ("mup", HIDDEN, Rule(), "adam", {"Δf, 1", "Δh_2, 1"}),
    ("ntk", HIDDEN, Rule(0.0, 0.0, -1.0), "sgd", {"Tr hidden_1.kernel", "Δf, 1", "Δh_2, 1"}),
    ("ntk", INPUT, Rule(0.0, 0.0, 0.0), "adam", {"Δh_1, 1"}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind", "rule", "optimizer", "expected"), TWINS)
def test_a_wrong_table_fails(slopes, data, monkeypatch, name, kind, rule, optimizer, expected):
    monkeypatch.setitem(TABLE, name, TABLE[name] | {kind: rule})
    failing = find_failing(slopes, data, name, optimizer)
    assert expected <= failing
    if kind == HIDDEN_BIAS:  # activations hardly notice
        assert {quantity for quantity in failing if quantity.startswith("Tr")} == expected


@pytest.mark.slow
def test_a_wrong_rate_of_hidden_layers_shows_at_large_widths(slopes, data, monkeypatch):
    """ntk with Adam's hidden rate ∝ r^(−1/2), as where updates do not align with the readout."""
    widths = (512, 1024, 2048)
    assert "Δf, 1" not in find_failing(slopes, data, "ntk", "adam", widths)
    monkeypatch.setitem(TABLE, "ntk", TABLE["ntk"] | {HIDDEN: Rule(1.0, -0.5, -0.5)})
    assert "Δf, 1" in find_failing(slopes, data, "ntk", "adam", widths)


@pytest.mark.slow
def test_traces_of_leaves_at_the_start(slopes, data, monkeypatch):
    """What no training shows."""
    monkeypatch.setattr(slopes, "UPDATES", ())
    widths = (64, 256, 1024)
    for name in TABLE:
        assert not find_failing(slopes, data, name, "sgd", widths)
    monkeypatch.setitem(TABLE, "mup", TABLE["mup"] | {HIDDEN_BIAS: Rule()})
    assert find_failing(slopes, data, "mup", "sgd", widths) == HIDDEN_BIASES
