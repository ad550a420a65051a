import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ntklens.ntk.structured import KernelError
from ntklens.recording import measure, spectra
from ntklens.recording.measure import Measurer, evaluate_split, put_on_device
from ntklens.recording.quantities import VARIABLES
from ntklens.recording.recorder import EnsembleRecorder
from ntklens.recording.spectra import SpectrumWorkers
from ntklens.store.trajectory import LEVELS
from ntklens.training.ensemble import initialise, run_states
from ntklens.training.schedule import choose_sparse, make_geometric_steps
from problems import make_problem
from references import compute_effective_rank, compute_layer_kernels

WORKERS = SpectrumWorkers()


def record(trainer, data, seeds=(0, 1), epochs=60, stop_after=None, engine="structured", rate=1e-2):
    """Train and record; returns the recorder and the parameters at every record."""
    per_epoch = trainer.count_steps_per_epoch(len(data.train))
    steps = make_geometric_steps(epochs * per_epoch, 1.08)
    start = initialise(trainer, seeds, rate)
    measurer = Measurer(trainer.apply, trainer.loss, engine)
    recorder = EnsembleRecorder(
        measurer, put_on_device(data), start.params, steps, choose_sparse(steps, 2.0), per_epoch, stop_after, WORKERS
    )
    params = []
    for index, state in enumerate(run_states(trainer, start, data.train, steps)):
        params.append(jax.tree.map(np.array, state.params))
        recorder.record(index, state.params)
        if not recorder.active.any():
            break
    return recorder, params


def select(params, member):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[member]), params)


def compute_theta(trainer, data, params):
    """Θ as a float64 matrix."""
    shares = compute_layer_kernels(trainer.apply, params, data.probe.inputs)
    size = len(data.probe) * data.classes
    return sum(np.asarray(share, np.float64) for share in shares.values()).reshape(size, size)


def test_a_record_is_what_its_definitions_say(mlp_problem):
    trainer, data = mlp_problem
    recorder, params = record(trainer, data)
    for member in range(2):
        records, minimum, _ = recorder.finish()[member]
        best = int(np.argmin(records["selection_loss"]))
        for index in (0, 7, best):
            theta = compute_theta(trainer, data, select(params[index], member))
            assert records["trace"][index] == pytest.approx(np.trace(theta), rel=1e-5)
            assert records["trace_layer"][index].sum() == pytest.approx(np.trace(theta), rel=1e-5)
            logits = trainer.apply(select(params[index], member), data.test.inputs)
            assert records["test_loss"][index] == pytest.approx(
                float(trainer.loss(logits, data.test.labels).mean()), rel=1e-5
            )
            assert records["test_accuracy"][index] == pytest.approx(np.mean(np.argmax(logits, 1) == data.test.labels))
            probe = np.asarray(trainer.apply(select(params[index], member), data.probe.inputs))
            assert records["logit_norm"][index] == pytest.approx(np.sqrt((probe**2).sum(1).mean()), rel=1e-5)
        assert minimum["step"] == records["step"][best]
        assert minimum["selection_loss"] == records["selection_loss"].min()
        assert minimum["effective_rank"] == pytest.approx(compute_effective_rank(theta), rel=1e-4)
        np.testing.assert_allclose(minimum["eigenvalues"], np.linalg.eigvalsh(theta)[::-1], rtol=1e-3, atol=1e-3)
        traced = theta.reshape(12, 3, 12, 3).trace(axis1=1, axis2=3)
        assert minimum["effective_rank_traced"] == pytest.approx(compute_effective_rank(traced), rel=1e-4)
        centring = np.kron(np.eye(12) - 1 / 12, np.eye(3))
        assert minimum["effective_rank_centred"] == pytest.approx(
            compute_effective_rank(centring @ theta @ centring), rel=1e-4
        )


def test_spectra_lie_on_the_sparse_schedule_and_at_the_snapshots(mlp_problem):
    recorder, _ = record(*mlp_problem)
    records, minimum, crossings = recorder.finish()[0]
    sparse = recorder.spectra[: len(records["step"])]
    assert np.isfinite(records["effective_rank"][sparse]).all()
    assert 2 < np.isfinite(records["effective_rank"]).sum() <= sparse.sum() + len(LEVELS)
    assert np.isfinite(records["effective_rank_layer"][0]).all()
    assert np.isfinite(minimum["effective_rank_layer"]).all()
    for number, level in enumerate(LEVELS):
        before, after = (records["train_loss"] > level), records["train_loss"] <= level
        if before[0] and after.any():
            first = int(np.argmax(after))
            assert crossings["step"][number] == records["step"][first]
            assert crossings["train_loss"][number] <= level
            assert np.isfinite(crossings["effective_rank_layer"][number]).all()
        else:
            assert np.isnan(crossings["step"][number])
    assert np.isfinite(crossings["step"][0])


def test_weight_change_is_relative_to_the_start(mlp_problem):
    recorder, params = record(*mlp_problem, epochs=5)
    records, _, _ = recorder.finish()[1]
    assert np.all(records["weight_change"][0] == 0)
    start, end = (select(p, 1)["params"]["readout"] for p in (params[0], params[-1]))
    change = np.sqrt(sum(np.sum((np.asarray(end[k]) - start[k]) ** 2) for k in start))
    size = np.sqrt(sum(np.sum(np.asarray(leaf) ** 2) for leaf in start.values()))
    assert records["weight_change"][-1, 2] == pytest.approx(change / size, rel=1e-5)


@pytest.mark.slow
def test_both_engines_measure_the_same(mlp_problem):
    ours, theirs = (record(*mlp_problem, epochs=4, engine=engine)[0].finish()[0] for engine in measure.ENGINES)
    for own, other in zip(ours, theirs, strict=True):
        for name in VARIABLES:
            np.testing.assert_allclose(own[name], other[name], rtol=2e-3, atol=2e-4, err_msg=name)


def test_members_with_filters_are_measured_one_after_another_as_alone(mlp_problem):
    trainer, data = mlp_problem
    data, generator = put_on_device(data), np.random.default_rng(0)

    def apply(params, x):
        filters, readout = params["hidden"]["kernel"], params["readout"]["kernel"]
        x = jax.lax.conv_general_dilated(
            x.reshape(-1, 3, 3, 1), filters, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return jnp.tanh(x).mean((1, 2)) @ readout

    def draw(*shape):
        return {"kernel": jnp.asarray(generator.normal(size=(2, *shape)), jnp.float32)}

    params = {"hidden": draw(2, 2, 1, 4), "readout": draw(4, 3)}
    measurer = Measurer(apply, trainer.loss)
    lowered = measure.measure_records.lower(params, params, data, measurer=measurer)
    assert "feature_group_count = 2" not in lowered.as_text()
    together = measure.measure_records(params, params, data, measurer=measurer)
    for k in range(2):
        own = jax.tree.map(lambda leaf, k=k: leaf[k : k + 1], params)
        for name, value in measure.measure_records(own, own, data, measurer=measurer).items():
            np.testing.assert_allclose(together[name][k], value[0], rtol=1e-5, atol=1e-7, err_msg=name)


def test_a_wrong_kernel_ends_the_run_at_its_start(mlp_problem, monkeypatch):
    compute = spectra.compute_member_kernels

    def compute_wrongly(*arguments, **options):
        kernels = compute(*arguments, **options)
        return kernels | {"readout": 1.01 * kernels["readout"]}

    monkeypatch.setattr("ntklens.recording.recorder.compute_member_kernels", compute_wrongly)
    with pytest.raises(KernelError, match="readout/kernel"):
        record(*mlp_problem, epochs=1)


@pytest.mark.parametrize("batch", [1, 7, 16, 40, 64])
def test_evaluation_batches_do_not_change_the_mean(mlp_problem, monkeypatch, batch):
    trainer, data = mlp_problem
    monkeypatch.setattr(measure, "EVALUATION_BATCH", batch)
    params = trainer.init(jax.random.key(0))
    split = jnp.asarray(data.train.inputs), jnp.asarray(data.train.labels)
    loss, accuracy = evaluate_split(Measurer(trainer.apply, trainer.loss), params, split)
    logits = trainer.apply(params, split[0])
    assert float(loss) == pytest.approx(float(trainer.loss(logits, split[1]).mean()), rel=1e-5)
    assert float(accuracy) == pytest.approx(float((jnp.argmax(logits, 1) == split[1]).mean()), rel=1e-6)


@pytest.mark.slow
def test_a_seed_stops_the_asked_epochs_after_its_minimum_and_its_later_records_are_dropped():
    trainer, data = make_problem(width=32, train_size=16)
    recorder, _ = record(trainer, data, seeds=(0, 1, 2, 3), epochs=400, stop_after=40, rate=3e-2)
    free, _ = record(trainer, data, seeds=(0, 1, 2, 3), epochs=400, rate=3e-2)
    lengths = set()
    for member in range(4):
        stopped, minimum, _ = recorder.finish()[member]
        whole, _, _ = free.finish()[member]
        end = stopped["epoch"][-1]
        assert end < 400
        assert end - minimum["epoch"] >= 40
        assert stopped["epoch"][-2] - minimum["epoch"] < 40
        np.testing.assert_array_equal(stopped["test_loss"], whole["test_loss"][: len(stopped["test_loss"])])
        lengths.add(len(stopped["epoch"]))
    assert len(lengths) > 1  # or else dropping was not tested


def test_a_diverged_seed_keeps_its_records_so_far_and_the_others_go_on():
    trainer, data = make_problem(loss="mse", optimizer=optax.sgd)
    recorder, _ = record(trainer, data, epochs=100, rate=5.0)
    records, minimum, _ = recorder.finish()[0]
    assert recorder.diverged_step[0] is not None
    assert records["step"][-1] < recorder.diverged_step[0]
    assert np.isfinite(records["train_loss"]).all()
    assert np.isfinite(minimum["trace"])


def test_only_the_diverged_member_ends(mlp_problem):
    trainer, data = mlp_problem
    steps = np.arange(4)
    state = initialise(trainer, [0, 1], 1e-2)
    recorder = EnsembleRecorder(
        Measurer(trainer.apply, trainer.loss), put_on_device(data), state.params, steps, steps == 0, 1, None, WORKERS
    )
    recorder.record(0, state.params)
    recorder.record(1, jax.tree.map(lambda leaf: leaf.at[1].set(jnp.nan), state.params))
    assert recorder.active.tolist() == [True, False]
    assert recorder.diverged_step == [None, 1]
    assert [len(rows) for rows in recorder.records] == [2, 1]


def test_a_member_that_never_was_finite_has_one_empty_record(mlp_problem):
    trainer, data = mlp_problem
    state = initialise(trainer, [0], 1e-2)
    params = jax.tree.map(lambda leaf: leaf * jnp.nan, state.params)
    recorder = EnsembleRecorder(
        Measurer(trainer.apply, trainer.loss),
        put_on_device(data),
        params,
        np.arange(2),
        np.ones(2, bool),
        1,
        None,
        WORKERS,
    )
    recorder.record(0, params)
    records, minimum, _ = recorder.finish()[0]
    assert records["step"].tolist() == [0]
    assert np.isnan(records["trace"]).all()
    assert np.isnan(minimum["effective_rank"])


def test_dead_networks_are_recognised(mlp_problem):
    trainer, data = mlp_problem
    state = initialise(trainer, [0, 1], 1e-2)
    params = jax.tree.map(lambda leaf: leaf.at[0].set(-jnp.abs(leaf[0])), state.params)
    params["params"]["hidden_0"]["bias"] = params["params"]["hidden_0"]["bias"].at[0].set(-100.0)
    recorder = EnsembleRecorder(
        Measurer(trainer.apply, trainer.loss),
        put_on_device(data),
        params,
        np.arange(1),
        np.ones(1, bool),
        1,
        None,
        WORKERS,
    )
    recorder.record(0, params)
    assert [recorder.is_constant(member) for member in range(2)] == [True, False]


@pytest.mark.slow
def test_layers_keep_their_order_beyond_ten():
    trainer, data = make_problem(width=4, depth=11)
    recorder, params = record(trainer, data, seeds=(0,), epochs=1)
    assert recorder.layers == [*(f"hidden_{layer}" for layer in range(11)), "readout"]
    records, _, _ = recorder.finish()[0]
    shares = compute_layer_kernels(trainer.apply, select(params[0], 0), data.probe.inputs)
    expected = [compute_effective_rank(shares[layer].reshape(36, 36)) for layer in recorder.layers]
    np.testing.assert_allclose(records["effective_rank_layer"][0], expected, rtol=1e-3)


@pytest.mark.slow
def test_nothing_is_compiled_per_record_or_per_seed():
    trainer, data = make_problem(width=11)
    functions = (measure.measure_records, spectra.compute_member_kernels, spectra.compute_member_kernel)
    before = [function._cache_size() for function in functions]
    recorder, _ = record(trainer, data, seeds=range(5), epochs=30)
    for member in range(5):
        recorder.finish()[member]
    assert [function._cache_size() - old for function, old in zip(functions, before, strict=True)] == [1, 1, 1]


def test_matrix_products_of_a_record_are_not_left_to_the_accelerator(mlp_problem):
    trainer, data = mlp_problem
    params = initialise(trainer, [0, 1], 1e-2).params
    measurer = Measurer(trainer.apply, trainer.loss)
    lowered = measure.measure_records.lower(params, params, put_on_device(data), measurer=measurer)
    products = [line for line in lowered.as_text().splitlines() if "dot_general" in line]
    assert products
    assert all("HIGHEST" in line for line in products)
