import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ntklens.training import ensemble
from ntklens.training.ensemble import initialise, run_states
from problems import make_problem


def train(trainer, data, seeds, steps, rate=1e-2):
    state = initialise(trainer, seeds, rate)
    return [jax.tree.map(np.array, state.params) for state in run_states(trainer, state, data.train, np.array(steps))]


def assert_trees_equal(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


def select(params, member):
    return jax.tree.map(lambda leaf: leaf[member], params)


def run_plain_loop(trainer, data, seed, steps, rate):
    """The obvious loop: one seed, no members, and of the loop only a step is compiled."""
    params = trainer.init(jax.random.split(jax.random.key(seed))[0])
    optimizer = trainer.optimizer(rate)
    state = optimizer.init(params)
    inputs, labels = jnp.asarray(data.train.inputs), jnp.asarray(data.train.labels)

    @jax.jit
    def step(params, state):
        gradient = jax.grad(lambda p: trainer.loss(trainer.apply(p, inputs), labels).mean())(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(steps):
        params, state = step(params, state)
    return params


def test_initial_parameters_do_not_depend_on_the_packing_to_the_bit(mlp_problem):
    trainer, _ = mlp_problem
    together = initialise(trainer, range(8), 1e-2).params
    for seed in range(8):
        assert_trees_equal(select(together, seed), select(initialise(trainer, [seed], 1e-2).params, 0))
    assert_trees_equal(select(together, 5), select(initialise(trainer, [5, 6, 7], 1e-2).params, 0))


def test_seeds_differ(mlp_problem):
    trainer, _ = mlp_problem
    kernel = initialise(trainer, [0, 1, 2**32 - 1], 1e-2).params["params"]["hidden_0"]["kernel"]
    assert len({array.tobytes() for array in np.asarray(kernel)}) == 3


@pytest.mark.parametrize(
    ("optimizer", "rate"),
    [(optax.adam, 1e-2), (optax.adamw, 1e-2), (optax.sgd, 0.1), (partial(optax.sgd, momentum=0.9), 0.1)],
)
def test_equals_the_obvious_loop(optimizer, rate):
    trainer, data = make_problem(optimizer=optimizer)
    (params,) = train(trainer, data, [3, 4], [20], rate)
    for member, seed in enumerate([3, 4]):
        expected = run_plain_loop(trainer, data, seed, 20, rate)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), select(params, member), expected
        )


@pytest.mark.parametrize("batch_size", [None, 5, 32])
def test_pieces_do_not_change_the_result_to_the_bit(batch_size, monkeypatch):
    trainer, data = make_problem(batch_size=batch_size)
    *_, at_once = train(trainer, data, [0, 1], [40])
    *_, in_pieces = train(trainer, data, [0, 1], [0, 1, 2, 3, 11, 26, 27, 40])
    assert_trees_equal(at_once, in_pieces)
    monkeypatch.setattr(ensemble, "PIECE_SECONDS", 1e-9)
    *_, one_by_one = train(trainer, data, [0, 1], [40])
    assert_trees_equal(at_once, one_by_one)


def test_mini_batches_visit_every_sample_once_per_epoch():
    """With loss = f and SGD, each update subtracts the mean gradient of its batch: an epoch sums over all samples."""
    trainer, data = make_problem(depth=1, batch_size=8, optimizer=optax.sgd, train_size=32)
    linear = ensemble.Trainer(
        init=lambda key: {"w": jnp.zeros(data.train.inputs.shape[1])},
        apply=lambda params, x: x @ params["w"][:, None],
        loss=lambda logits, _labels: logits[:, 0],
        optimizer=trainer.optimizer,
        batch_size=8,
    )
    first, second, third = (train(linear, data, [0], [step], 1.0)[0]["w"][0] for step in (1, 4, 8))
    mean = data.train.inputs.mean(axis=0)
    np.testing.assert_allclose(second, -4 * mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(third, -8 * mean, rtol=1e-4, atol=1e-5)
    assert not np.allclose(first, -mean, atol=1e-3)


def test_mini_batch_order_belongs_to_the_seed():
    trainer, data = make_problem(batch_size=4)
    (together,) = train(trainer, data, [0, 1, 2], [8])
    (alone,) = train(trainer, data, [1], [8])
    np.testing.assert_allclose(
        together["params"]["readout"]["kernel"][1], alone["params"]["readout"]["kernel"][0], rtol=1e-4, atol=1e-6
    )


def test_a_diverging_member_leaves_its_neighbours_alone(mlp_problem):
    trainer, data = mlp_problem
    state = initialise(trainer, [0, 1], 1e-2)
    poisoned = jax.tree.map(lambda leaf: leaf.at[0].set(jnp.nan), state.params)
    *_, last = run_states(trainer, state._replace(params=poisoned), data.train, np.array([10]))
    (expected,) = train(trainer, data, [0, 1], [10])
    assert np.isnan(last.params["params"]["readout"]["kernel"][0]).all()
    np.testing.assert_array_equal(
        last.params["params"]["readout"]["kernel"][1], expected["params"]["readout"]["kernel"][1]
    )


def test_nothing_is_compiled_per_record_or_per_seed(mlp_problem):
    trainer, data = mlp_problem
    before = ensemble.advance._cache_size(), ensemble.start_member._cache_size()
    train(trainer, data, range(6), [0, 1, 2, 5, 9, 30])
    train(trainer, data, range(6, 12), [0, 3, 7])
    assert ensemble.advance._cache_size() == before[0] + 1
    assert ensemble.start_member._cache_size() == before[1] + 1


def test_nothing_is_compiled_per_learning_rate(mlp_problem):
    trainer, data = mlp_problem
    (first,) = train(trainer, data, [0], [5], 1e-2)
    before = ensemble.advance._cache_size()
    (second,) = train(trainer, data, [0], [5], 3e-2)
    assert ensemble.advance._cache_size() == before
    kernels = [np.asarray(params["params"]["readout"]["kernel"]) for params in (first, second)]
    assert not np.array_equal(*kernels)


def test_progress_counts_every_update(mlp_problem):
    trainer, data = mlp_problem
    done = []
    start, steps = initialise(trainer, [0], 1e-2), np.array([0, 7, 30])
    list(run_states(trainer, start, data.train, steps, lambda _, count: done.append(count)))
    assert sum(done) == 30


def test_only_large_members_train_alone():
    for width, alone in ((64, False), (512, True)):
        trainer, _ = make_problem(width=width, dim=784)
        shapes = jax.eval_shape(trainer.init, jax.random.key(0))
        assert ensemble.trains_faster_alone(shapes) == alone


def test_members_with_filters_go_one_after_another_on_a_cpu(monkeypatch):
    filters = {"kernel": jax.ShapeDtypeStruct((3, 3, 1, 4), jnp.float32)}
    heads = {"kernel": jax.ShapeDtypeStruct((8, 2, 4), jnp.float32)}
    assert ensemble.trains_faster_alone(filters)
    assert not ensemble.trains_faster_alone(heads)
    rng = np.random.default_rng(0)
    images, kernels = (
        jnp.asarray(rng.normal(size=(2, 5, 5, 1)), jnp.float32),
        jnp.asarray(rng.normal(size=(4, 3, 3, 1, 4)), jnp.float32),
    )

    def convolve_all(kernels):
        def convolve(weight):
            dims = ("NHWC", "HWIO", "NHWC")
            return jax.lax.conv_general_dilated(images, weight, (1, 1), "SAME", dimension_numbers=dims)

        return ensemble.map_members(convolve)(kernels)

    assert "scan" in str(jax.make_jaxpr(convolve_all)(kernels))
    one_by_one = convolve_all(kernels)
    monkeypatch.setattr(ensemble, "uses_cpu", lambda: False)
    assert not ensemble.trains_faster_alone(filters)
    np.testing.assert_allclose(convolve_all(kernels), one_by_one, rtol=1e-5, atol=1e-6)
    assert "scan" not in str(jax.make_jaxpr(lambda kernels: convolve_all(kernels))(kernels))


def test_matrix_products_are_not_left_to_the_accelerator(mlp_problem):
    """On a GPU JAX's own choice is TensorFloat-32: three digits of a gradient."""
    trainer, data = mlp_problem
    state = initialise(trainer, [0, 1], 1e-2)
    count, inputs, labels = jnp.int32(1), jnp.asarray(data.train.inputs), jnp.asarray(data.train.labels)
    lowered = ensemble.advance.lower(
        state.params,
        state.opt_state,
        state.order_key,
        state.learning_rate,
        count,
        count,
        inputs,
        labels,
        trainer=trainer,
    )
    products = [line for line in lowered.as_text().splitlines() if "dot_general" in line]
    assert products
    assert all("HIGHEST" in line for line in products)


SHARDED = """
import jax
import numpy as np

from ntklens.training.ensemble import initialise, run_states
from problems import make_problem

trainer, data = make_problem()
for members, devices in ((4, 4), (6, 3), (5, 1)):
    state = initialise(trainer, range(members), 1e-2)
    assert len(jax.local_devices()) == 4
    (state,) = run_states(trainer, state, data.train, np.array([20]))
    for leaf in jax.tree.leaves((state.params, state.opt_state)):
        assert len(leaf.sharding.device_set) == devices, (members, leaf.sharding)
        assert devices == 1 or leaf.addressable_shards[0].data.shape[0] == members // devices
    print(*(float(value).hex() for leaf in jax.tree.leaves(state.params) for value in np.asarray(leaf).ravel()))
"""


@pytest.mark.slow
def test_members_spread_over_local_devices_end_as_on_one(mlp_problem):
    folder = Path(__file__).parents[1]
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(folder)}
    result = subprocess.run(
        [sys.executable, "-c", SHARDED], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    trainer, data = mlp_problem
    for line, members in zip(result.stdout.splitlines(), (4, 6, 5), strict=True):
        leaves = jax.tree.leaves(train(trainer, data, range(members), [20])[-1])
        expected = np.concatenate([np.asarray(leaf).ravel() for leaf in leaves])
        found = np.array([float.fromhex(word) for word in line.split()])
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
