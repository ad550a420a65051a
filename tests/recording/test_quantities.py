"""The table is what is measured, stored, tracked and documented; the optional quantities equal their formulas."""

import itertools
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from ntklens.errors import InputError
from ntklens.ntk.metrics import kernel_distance, target_alignment
from ntklens.recording import quantities
from ntklens.recording.measure import Measurer, put_on_device
from ntklens.recording.quantities import (
    DUE,
    QUANTITIES,
    RECORD,
    VARIABLES,
    Quantity,
    check_metrics,
    format_table,
    list_optional,
    name_metric,
)
from ntklens.recording.recorder import NEEDED, EnsembleRecorder
from ntklens.recording.spectra import SpectrumWorkers
from ntklens.recording.trajectory import build_trajectory
from ntklens.store.trajectory import PREFIXES
from ntklens.training.ensemble import initialise, run_states
from ntklens.training.schedule import choose_sparse, make_geometric_steps
from ntklens.wandb.names import make_row
from problems import make_problem
from references import compute_layer_kernels

DOCS = Path(__file__).parents[2] / "docs"


def record(trainer, data, metrics=(), epochs=40, member=0):
    """Train two members; returns what one of them left, and its float64 layer kernels at every record."""
    steps = make_geometric_steps(epochs, 1.08)
    start = initialise(trainer, (0, 1), 1e-2)
    measurer = Measurer(trainer.apply, trainer.loss, metrics=tuple(metrics))
    recorder = EnsembleRecorder(
        measurer, put_on_device(data), start.params, steps, choose_sparse(steps, 3.0), 1, None, SpectrumWorkers()
    )
    params = []
    for index, state in enumerate(run_states(trainer, start, data.train, steps)):
        params.append(jax.tree.map(lambda leaf: np.array(leaf[member]), state.params))
        recorder.record(index, state.params)
    return recorder, recorder.finish()[member], params


@pytest.fixture(scope="module")
def measured():
    problem = make_problem()
    recorder, finished, params = record(*problem, list_optional())
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


def test_optional_quantities_change_none_of_the_others(measured):
    _, with_them, _, problem = measured
    _, without, _ = record(*problem)
    for some, other in zip(with_them, without, strict=True):
        assert set(some) - set(other) == set(list_optional())
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
        assert one.dims in ((), ("layer",), ("mode",))
        assert one.measure or name in ("step", "epoch")
    assert set(NEEDED) & set(QUANTITIES) <= set(VARIABLES)


@pytest.mark.parametrize(
    ("metrics", "line"),
    [
        (["aligment"], "metrics=[aligment]: must list none or some of participation_ratio, kernel_distance"),
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
