"""α (f − f_0) and the linearised twin, beside what they are by definition, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from contract import configure
from ntklens.errors import InputError
from ntklens.jobs.build import build
from ntklens.jobs.pack import count_parameters
from ntklens.ntk.layers import name_layers
from ntklens.recording.measure import Measurer, measure_records, put_on_device
from ntklens.training.ensemble import initialise, run_states

SMALL = (
    *("dataset=digits", "dataset.train_size=20", "dataset.test_size=20", "dataset.probe_size=8", "tracking=none"),
    *("model.width=16", "precision=float64"),
)
METRICS = ("linearised_distance", "linearised_train_loss", "trace_weighted")


@pytest.fixture(autouse=True)
def double():
    before = jax.config.values["jax_enable_x64"]
    yield
    jax.config.update("jax_enable_x64", before)


def run(*words, steps=(0, 5)):
    """The built configuration, the last state, and what was measured at each of some updates, of one member."""
    cfg = configure(*SMALL, *words)
    built = build(cfg)
    start = initialise(built.trainer, [3], cfg.optimizer.learning_rate)
    data = put_on_device(built.dataset)
    metrics = tuple(name for name in METRICS if built.trainer.twin or not name.startswith("linearised"))
    measurer, rows = Measurer.of(built.trainer, "structured", metrics), []
    initial = jax.tree.map(jnp.copy, start.params)
    for state in run_states(built.trainer, start, built.dataset.train, np.array(steps)):
        measured = measure_records(state.params, initial, data, measurer=measurer)
        rows.append({name: np.asarray(value)[0] for name, value in measured.items()})
    return built, state, rows


def select(params, *names):
    tree = params
    for name in names:
        tree = tree[name]
    return {"params": jax.tree.map(lambda leaf: leaf[0], tree)}


@pytest.mark.slow
def test_the_twin_is_the_expansion_at_the_start_under_the_same_optimizer():
    """Adam on f(θ_0) + J (φ − θ_0), J the whole Jacobian; the network beside it is trained as without a twin."""
    built, state, rows = run("model.linearised=true", "optimizer=adam", "optimizer.eps=1e-4", steps=(0, 7))
    plain, alone, _ = run("optimizer=adam", "optimizer.eps=1e-4", steps=(0, 7))
    for one, other in zip(jax.tree.leaves(select(state.params, "params")),
                          jax.tree.leaves(select(alone.params, "params")), strict=True):  # fmt: skip
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)
    f, data = plain.trainer.apply, built.dataset
    start = select(initialise(plain.trainer, [3], 1.0).params, "params")
    flat, unravel = jax.flatten_util.ravel_pytree(start)
    x, y = jnp.asarray(data.train.inputs, float), jnp.asarray(data.train.labels)

    def expand(inputs):
        jacobian = jax.jacrev(lambda flat: f(unravel(flat), inputs))(flat)
        return lambda theta: f(start, inputs) + jacobian @ (theta - flat)

    twin, optimizer = expand(x), optax.adam(1e-3, eps=1e-4)
    theta, opt_state = flat, optimizer.init(flat)
    for _ in range(7):
        gradient = jax.grad(lambda theta: plain.trainer.loss(twin(theta), y).mean())(theta)
        updates, opt_state = optimizer.update(gradient, opt_state)
        theta = theta + updates
    found = select(state.params, "state", "linearised")
    np.testing.assert_allclose(jax.flatten_util.ravel_pytree(found)[0], theta, rtol=1e-8, atol=1e-10)
    assert rows[1]["linearised_train_loss"] == pytest.approx(float(plain.trainer.loss(twin(theta), y).mean()), rel=1e-9)
    probe = jnp.asarray(data.probe.inputs, float)
    moved = f(select(state.params, "params"), probe) - expand(probe)(theta)
    distance = np.sqrt(np.mean(np.sum(np.square(moved), axis=1)))
    assert rows[1]["linearised_distance"] == pytest.approx(distance, rel=1e-8)
    assert rows[0]["linearised_distance"] == 0


@pytest.mark.slow
def test_the_start_is_held_and_is_no_parameter():
    """Neither AdamW's decay moves it, nor does it enter the kernel or the number of parameters."""
    words = ("model.linearised=true", "model.output_scale=2", "optimizer=adamw", "optimizer.weight_decay=1")
    built, state, _ = run(*words)
    plain, alone, _ = run("optimizer=adamw")
    first = initialise(plain.trainer, [3], 1.0).params
    jax.tree.map(np.testing.assert_array_equal, state.params["state"]["initial"], first["params"])
    assert list(name_layers(built.trainer.apply, state.params)) == ["hidden_0", "hidden_1", "readout"]
    assert count_parameters(built.trainer.apply, state.params) == count_parameters(plain.trainer.apply, alone.params)
    assert count_parameters(plain.trainer.apply, alone.params) == sum(leaf[0].size for leaf in jax.tree.leaves(first))


@pytest.mark.parametrize("scale", [pytest.param(0.25, marks=pytest.mark.slow), 8.0])
def test_the_scaled_function_and_its_kernel(scale):
    """F = α (f − f_0) is zero at the start, its kernel α² Θ; with the step 1/α² the weighted kernel is Θ."""
    built, state, rows = run(f"model.output_scale={scale}", "optimizer=sgd")
    plain, _, others = run("optimizer=sgd")
    assert rows[0]["logit_norm"] == 0
    assert rows[0]["trace"] == pytest.approx(scale**2 * others[0]["trace"], rel=1e-12)
    assert rows[0]["trace_weighted"] == pytest.approx(others[0]["trace"], rel=1e-12)
    probe = jnp.asarray(built.dataset.probe.inputs, float)
    start = initialise(plain.trainer, [3], 1.0).params
    f, now = plain.trainer.apply, select(state.params, "params")
    expected = scale * (f(now, probe) - f(select(start, "params"), probe))
    params = jax.tree.map(lambda leaf: leaf[0], state.params)
    np.testing.assert_allclose(built.trainer.apply(params, probe), expected, rtol=1e-12)


@pytest.mark.slow
def test_a_step_under_adam_is_scaled_by_one_over_alpha():
    _, state, _ = run("model.output_scale=4", "optimizer=adam", "optimizer.eps=1e-30", steps=(0, 1))
    start = select(state.params, "state", "initial")
    moves = jax.tree.map(lambda new, old: np.abs(new - old).max(), select(state.params, "params"), start)
    np.testing.assert_allclose(jax.tree.leaves(moves), 1e-3 / 4, rtol=1e-6)


@pytest.mark.slow
def test_the_network_comes_to_its_twin_as_the_scale_grows():
    """At a pace in function space that is the same for all α, |F − F_lin| falls as 1/α; at α = 1 it is large."""
    found = []
    for scale in (1, 30, 300):
        _, _, rows = run(f"model.output_scale={scale}", "model.linearised=true", "optimizer=sgd", steps=(0, 60))
        assert rows[1]["train_loss"] < 0.9 * rows[0]["train_loss"]
        found.append(rows[1]["linearised_distance"] / rows[1]["logit_norm"])
    assert found[0] > 0.1
    assert np.log(found[1] / found[2]) / np.log(10) == pytest.approx(1, abs=0.15)


def test_what_has_no_rule_is_refused():
    with pytest.raises(InputError, match=r"model\.output_scale=2\.0: has no rule .*optimizer=lion; type optimizer=sgd"):
        run("model.output_scale=2", "optimizer=lion")
    with pytest.raises(InputError, match=r"metrics=\[linearised_distance\].*model\.linearised=true"):
        build(configure(*SMALL, "metrics=[linearised_distance]"))
