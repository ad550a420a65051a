"""The table is what is measured, stored, tracked and documented; the optional quantities equal their formulas."""

import dataclasses
import functools
import itertools
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ntklens.errors import InputError
from ntklens.ntk.metrics import kernel_distance, target_alignment
from ntklens.recording import quantities
from ntklens.recording.measure import Measurer, measure_records, put_on_device
from ntklens.recording.quantities import (
    DUE,
    HESSIAN,
    LIMIT,
    QUANTITIES,
    RECORD,
    REGRESSION,
    TWIN,
    VARIABLES,
    Quantity,
    check_metrics,
    format_table,
    list_metrics,
    list_optional,
    name_metric,
)
from ntklens.recording.recorder import NEEDED, EnsembleRecorder
from ntklens.recording.spectra import SpectrumWorkers
from ntklens.recording.trajectory import build_trajectory
from ntklens.store.trajectory import PREFIXES
from ntklens.training.ensemble import initialise, run_states
from ntklens.training.scaled import PRECONDITIONERS
from ntklens.training.schedule import choose_sparse, make_geometric_steps
from ntklens.wandb.names import make_row
from problems import make_problem
from references import compute_effective_rank, compute_jacobians, compute_layer_kernels

# Of any network, and quick to compile.
APART = {TWIN, HESSIAN, LIMIT, REGRESSION}  # tested elsewhere
PLAIN = tuple(name for name in list_optional() if not APART & set(QUANTITIES[name].needs))
DOCS = Path(__file__).parents[2] / "docs"


def record(trainer, data, metrics=(), epochs=40, member=0, rate=1e-2):
    """Train two members; returns what one of them left, and its parameters at every record."""
    steps = make_geometric_steps(epochs, 1.08)
    start = initialise(trainer, (0, 1), rate)
    measurer = Measurer.of(trainer, "structured", tuple(metrics))
    recorder = EnsembleRecorder(
        measurer, put_on_device(data), start.params, steps, choose_sparse(steps, 3.0), 1, None, SpectrumWorkers(),
        learning_rates=np.full(2, rate),
    )  # fmt: skip
    params = []
    for index, state in enumerate(run_states(trainer, start, data.train, steps)):
        params.append(jax.tree.map(lambda leaf: np.array(leaf[member]), state.params))
        recorder.record(index, state.params, opt_state=state.opt_state)
    return recorder, recorder.finish()[member], params


def test_estimated_traces_are_those_of_the_kernel_to_their_standard_error():
    trainer, data = make_problem()
    device, start = put_on_device(data), initialise(trainer, range(40), 1e-2).params
    exact = measure_records(start, start, device, measurer=Measurer.of(trainer, "structured", ()))
    metrics = list_metrics((), 1, estimated=True)
    assert metrics == ("trace_error",)
    found = measure_records(start, start, device, measurer=Measurer.of(trainer, "structured", metrics, 16))
    errors = (found["trace"] - exact["trace"]) / found["trace_error"]
    assert abs(errors.mean()) < 4 * errors.std() / math.sqrt(40)  # without bias, and of another sign in every member
    assert 0.5 < errors.std() < 2
    np.testing.assert_allclose(found["trace_layer"].sum(1), found["trace"], rtol=1e-5)
    np.testing.assert_allclose(found["trace_layer"], exact["trace_layer"], rtol=0.5)
    again = measure_records(start, start, device, measurer=Measurer.of(trainer, "structured", metrics, 16))
    np.testing.assert_array_equal(found["trace"], again["trace"])


@pytest.fixture(scope="module")
def measured():
    problem = make_problem()
    recorder, finished, params = record(*problem, PLAIN)
    return recorder, finished, params, problem


def compute_shares(problem, params):
    """{layer: its share of Θ as a float64 matrix}."""
    trainer, data = problem
    shares = compute_layer_kernels(trainer.apply, params, data.probe.inputs)
    size = len(data.probe) * data.classes
    return {layer: np.asarray(share, np.float64).reshape(size, size) for layer, share in shares.items()}


def align(theta, labels, classes):
    """Centred kernel–target alignment as Cristianini et al. write it: ⟨K_c, Y Yᵀ⟩ / (‖K_c‖ ‖Y Yᵀ‖)."""
    centring = np.kron(np.eye(len(labels)) - 1 / len(labels), np.eye(classes))
    target = (centring @ np.eye(classes)[labels].ravel())[:, None]
    centred, ideal = centring @ theta @ centring, target @ target.T
    return np.sum(centred * ideal) / np.linalg.norm(centred) / np.linalg.norm(ideal)


def compare(theta, other):
    return 1 - np.sum(theta * other) / np.linalg.norm(theta) / np.linalg.norm(other)


def test_optional_quantities_are_what_their_formulas_say(measured):
    _, (records, minimum, _), params, problem = measured
    _, data = problem
    labels = np.asarray(data.probe.labels)
    shares = {index: compute_shares(problem, params[index]) for index in range(len(params))}
    theta = {index: sum(shares[index].values()) for index in shares}
    looked = [index for index in theta if np.isfinite(records["effective_rank"][index])]
    assert len(looked) > 3
    for index in looked:
        values = {name: records[name][index] for name in records}
        eigenvalues = np.linalg.eigvalsh(theta[index])
        assert values["participation_ratio"] == pytest.approx(eigenvalues.sum() ** 2 / (eigenvalues**2).sum(), rel=1e-4)
        assert values["kernel_distance"] == pytest.approx(compare(theta[index], theta[0]), rel=1e-3, abs=1e-9)
        assert values["alignment"] == pytest.approx(align(theta[index], labels, data.classes), rel=1e-4)
    size = len(labels) * data.classes
    for name, part in (("half", size // 2), ("quarter", size // 4)):
        expected = compute_effective_rank(theta[0][:part, :part])
        assert records[f"effective_rank_{name}"][0] == pytest.approx(expected, rel=1e-4)
    assert records["effective_rank_probe"].shape == (len(records["step"]), 1)
    assert records["effective_rank_probe"][0, 0] == records["effective_rank"][0]
    for before, index in itertools.pairwise(looked):
        lapse = records["epoch"][index] - records["epoch"][before]
        expected = compare(theta[index], theta[before]) / lapse
        assert records["kernel_velocity"][index] == pytest.approx(expected, rel=1e-3)
    assert np.isnan(records["kernel_velocity"][0])
    best = int(np.argmin(records["selection_loss"]))
    assert minimum["kernel_distance"] == pytest.approx(compare(theta[best], theta[0]), rel=1e-3, abs=1e-9)
    for index, values in ((0, records["alignment_layer"][0]), (best, minimum["alignment_layer"])):
        expected = [align(share, labels, data.classes) for share in shares[index].values()]
        np.testing.assert_allclose(values, expected, rtol=1e-4)


def test_weighted_quantities_are_those_of_the_kernel_with_rates(monkeypatch):
    """Σ_ℓ η_ℓ Θ_ℓ over arrays, biases and kernels of one layer apart; where all rates are one, the kernel itself."""
    trainer, data = make_problem()
    rates = (0.0, 0.5, 2.0, 0.25, 1.0, 3.0)
    weighted = dataclasses.replace(trainer, rates=rates)
    metrics = ["trace_weighted", "effective_rank_weighted"]
    _, (records, minimum, _), params = record(weighted, data, metrics, epochs=9)
    best = int(np.argmin(records["selection_loss"]))
    for index in (0, 3, best):
        jacobians = compute_jacobians(trainer.apply, params[index], data.probe.inputs).values()
        flat = [np.asarray(jacobian, np.float64).reshape(-1, jacobian.shape[-1]) for jacobian in jacobians]
        theta = sum(rate * leaf @ leaf.T for rate, leaf in zip(rates, flat, strict=True))
        assert records["trace_weighted"][index] == pytest.approx(np.trace(theta), rel=1e-5)
        rank = minimum["effective_rank_weighted"] if index == best else records["effective_rank_weighted"][index]
        assert rank == pytest.approx(compute_effective_rank(theta), rel=1e-4)
    _, (records, _, _), _ = record(trainer, data, metrics, epochs=9)
    np.testing.assert_array_equal(records["trace_weighted"], records["trace"])
    np.testing.assert_array_equal(records["effective_rank_weighted"], records["effective_rank"])


@pytest.mark.slow
def test_the_preconditioned_trace_is_that_of_adams_steps():
    """Beside the float64 Jacobian; a dark pixel that is lit on the probe counts nothing."""
    trainer, data = make_problem()
    data.train.inputs[:, 2] = 0
    rates = (1.0, 0.5, 2.0, 0.25, 1.0, 3.0)
    adam = PRECONDITIONERS["optax.adam"]({"eps": 1e-3, "b2": 0.9})
    trainer = dataclasses.replace(
        trainer, optimizer=functools.partial(optax.adam, eps=1e-3, b2=0.9), rates=rates, precondition=adam
    )
    _, (records, _, _), params = record(trainer, data, ["trace_preconditioned"], epochs=9)
    inputs, labels = jnp.asarray(data.train.inputs), jnp.asarray(data.train.labels)
    gradient = jax.jit(jax.grad(lambda p: trainer.loss(trainer.apply(p, inputs), labels).mean()))
    moments = [np.zeros(leaf.shape) for leaf in jax.tree.leaves(params[0])]
    assert np.isnan(records["trace_preconditioned"][0])
    for index in range(1, len(params)):
        found = jax.tree.leaves(gradient(params[index - 1]))
        moments = [0.9 * old + 0.1 * np.asarray(new, np.float64) ** 2 for old, new in zip(moments, found, strict=True)]
        expected = 0.0
        jacobians = compute_jacobians(trainer.apply, params[index], data.probe.inputs).values()
        for rate, moment, jacobian in zip(rates, moments, jacobians, strict=True):
            weight = np.where(moment > 0, 1 / (np.sqrt(moment / (1 - 0.9**index)) + 1e-3), 0)
            expected += rate * np.sum(np.asarray(jacobian, np.float64) ** 2 * weight.ravel())
        assert records["trace_preconditioned"][index] == pytest.approx(expected, rel=1e-4)
    # The twin that must differ: 1/ε where nothing has ever moved.
    literal = sum(
        rate * np.sum(np.asarray(jacobian, np.float64) ** 2 / (np.sqrt(moment.ravel() / (1 - 0.9**index)) + 1e-3))
        for rate, moment, jacobian in zip(rates, moments, jacobians, strict=True)
    )
    assert literal > 1.05 * expected


@pytest.mark.slow
def test_sharpness_is_the_largest_eigenvalue_of_the_hessian():
    trainer, data = make_problem(width=4, depth=1, optimizer=optax.sgd)
    _, (records, minimum, _), params = record(trainer, data, ["sharpness", "step_sharpness"], epochs=9, rate=0.1)
    inputs, labels = jnp.asarray(data.train.inputs), jnp.asarray(data.train.labels)
    best = int(np.argmin(records["selection_loss"]))
    for index in (0, 3, best):
        flat, unravel = jax.flatten_util.ravel_pytree(params[index])
        hessian = jax.hessian(lambda flat: trainer.loss(trainer.apply(unravel(flat), inputs), labels).mean())(flat)  # noqa: B023
        expected = np.linalg.eigvalsh(np.asarray(hessian, np.float64))[-1]
        found = minimum["sharpness"] if index == best else records["sharpness"][index]
        assert found == pytest.approx(expected, rel=3e-3)
        step = minimum["step_sharpness"] if index == best else records["step_sharpness"][index]
        assert step == pytest.approx(0.1 * found, rel=1e-5)


def test_without_adam_there_is_no_preconditioned_trace():
    trainer, data = make_problem(optimizer=optax.sgd)
    _, (records, _, _), _ = record(trainer, data, ["trace_preconditioned"], epochs=2)
    assert np.isnan(records["trace_preconditioned"]).all()


def test_optional_quantities_change_none_of_the_others(measured):
    _, with_them, _, problem = measured
    _, without, _ = record(*problem)
    for some, other in zip(with_them, without, strict=True):
        assert set(some) - set(other) == set(PLAIN)
        for name in VARIABLES:
            np.testing.assert_array_equal(some[name], other[name], err_msg=name)


def test_a_trajectory_holds_what_was_switched_on(mlp_problem):
    recorder, finished, _ = record(*mlp_problem, ["alignment"], epochs=3)
    trajectory = build_trajectory(*finished, recorder.layers, {})
    assert set(trajectory.data_vars) == {prefix + name for prefix in PREFIXES for name in (*VARIABLES, "alignment")}
    assert trajectory["minimum_alignment"].attrs["long_name"] == QUANTITIES["alignment"].definition


def test_one_entry_is_enough(mlp_problem, monkeypatch):
    """It is measured, stored, exported to a checkpoint, tracked, documented, and may be asked for."""
    entry = Quantity(
        "logit_mean", "mean of f(x) over probe and outputs", RECORD, lambda view: view.logits.mean(), optional=True
    )
    monkeypatch.setitem(quantities.QUANTITIES, entry.name, entry)
    check_metrics(["logit_mean"])
    recorder, finished, params = record(*mlp_problem, ["logit_mean"], epochs=3)
    trainer, data = mlp_problem
    logits = np.asarray(trainer.apply(params[2], data.probe.inputs))
    assert finished[0]["logit_mean"][2] == pytest.approx(logits.mean(), rel=1e-4)
    assert recorder.export_member(0)["logit_mean"].shape == finished[0]["step"].shape
    assert "logit_mean" in build_trajectory(*finished, recorder.layers, {})
    assert make_row({"logit_mean": 2.0}, [])["ntk/logit_mean"] == 2
    row = "| `logit_mean` | mean of f(x) over probe and outputs | every record; `metrics=[logit_mean]` |"
    assert row in format_table()


def test_the_documented_table_is_the_table():
    """`python -m ntklens.recording.quantities` prints it."""
    assert format_table() in (DOCS / "measurements.md").read_text(encoding="utf-8")


def test_entries_are_complete():
    metrics = [name_metric(name, "l" if one.dims == ("layer",) else None) for name, one in QUANTITIES.items()]
    assert len(set(metrics)) == len(metrics)
    for name, one in QUANTITIES.items():
        assert re.fullmatch("[a-z][a-z_]*", name)
        assert one.when == RECORD or one.when in DUE["end"]
        assert one.dims in ((), ("layer",), ("mode",), ("probe",))
        assert one.measure or name in ("step", "epoch")
    assert set(NEEDED) & set(QUANTITIES) <= set(VARIABLES)


@pytest.mark.parametrize(
    ("metrics", "line"),
    [
        (["aligment"], "metrics=[aligment]: there is no quantity aligment; type metrics=[alignment]"),
        (["loss"], "metrics=[loss]: must list none or some of participation_ratio, kernel_distance"),
        (["trace"], "metrics=[trace]: trace is always recorded"),
    ],
)
def test_names_that_there_are_not_are_refused(metrics, line):
    with pytest.raises(InputError, match=re.escape(line)):
        check_metrics(metrics)


def test_distance_and_alignment_of_known_kernels():
    generator = np.random.default_rng(0)
    labels = np.array([0, 1, 1, 2, 0])
    targets = np.eye(3)[labels] - np.eye(3)[labels].mean(0)
    ideal = np.einsum("ic,jd->icjd", targets, targets)
    assert target_alignment(ideal, labels) == pytest.approx(1, abs=1e-12)
    assert target_alignment(7 * ideal + 3, labels) == pytest.approx(1, abs=1e-12)  # neither scale nor mean counts
    kernel = generator.normal(size=(5, 3, 5, 3))
    assert kernel_distance(kernel, 4 * kernel) == 0
    close = kernel * (1 + 1e-9 * generator.normal(size=kernel.shape))
    exact = np.sum((close / np.linalg.norm(close.ravel()) - kernel / np.linalg.norm(kernel.ravel())) ** 2) / 2
    assert kernel_distance(kernel, close) == pytest.approx(exact, rel=1e-6)  # 1 − cos would be 0 or 1e-16
    assert 0 < kernel_distance(kernel, close) < 1e-17
    assert np.isnan(kernel_distance(kernel, 0 * kernel))
    assert np.isnan(target_alignment(kernel, np.zeros(5, int)))
    with pytest.raises(ValueError, match="same shape"):
        kernel_distance(kernel, kernel[:4])
