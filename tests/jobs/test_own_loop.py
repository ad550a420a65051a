import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ntklens
from ntklens.errors import InputError
from ntklens.jobs.own_loop import GIVEN
from ntklens.recording.measure import Measurer, put_on_device
from ntklens.recording.quantities import VARIABLES
from ntklens.recording.recorder import EnsembleRecorder
from ntklens.recording.spectra import SpectrumWorkers
from ntklens.training.ensemble import initialise, run_states
from ntklens.training.schedule import choose_sparse, make_geometric_steps

X = jnp.linspace(-1, 1, 12).reshape(4, 3)
START = {"w": jnp.ones((3, 2))}


def apply(params, x):
    return x @ params["w"]


def shift(params, step):
    return jax.tree.map(lambda leaf: leaf + 0.1 * step, params)


def record(recorder, losses, **more):
    """Call a recorder at 0, 1, … with test losses, the train loss falling."""
    for step, loss in enumerate(losses):
        recorder(step, shift(START, step), train_loss=2 / (step + 1), test_loss=loss, **more)
    return recorder


@pytest.mark.slow
def test_what_is_recorded_is_that_of_our_own_runs(mlp_problem, tmp_path):
    trainer, data = mlp_problem
    steps = make_geometric_steps(60, 1.08)
    start = initialise(trainer, [5], 1e-2)
    measurer = Measurer(trainer.apply, trainer.loss)
    splits, workers = put_on_device(data), SpectrumWorkers()
    own = EnsembleRecorder(measurer, splits, start.params, steps, choose_sparse(steps, 3.0), 1, None, workers)
    recorder = ntklens.Recorder(
        trainer.apply,
        jax.tree.map(lambda leaf: leaf[0], start.params),
        probe=splits.probe,
        config={"seed": 5, "model.width": 16},
    )
    index = 0
    for step, state in enumerate(run_states(trainer, start, data.train, np.arange(61))):
        params = jax.tree.map(lambda leaf: leaf[0], state.params)
        if step == steps[index]:
            values = own.record(index, state.params)
            index += 1
        recorder(step, params, **{name: values[name] for name in GIVEN})  # in between it looks at none
    expected = own.finish()[0]
    workers.close()
    recorder.save(tmp_path)
    data = ntklens.load(tmp_path).isel(run=0).sel(seed=5)
    assert data["step"].values.tolist() == steps.tolist()
    for prefix, values in zip(("", "minimum_", "crossing_"), expected, strict=True):
        for name in VARIABLES:
            found = data[prefix + name].values
            # Where training ends is known to our own runs, which leave out the spectrum before the last one.
            places = np.isfinite(values[name]) if not prefix else ...
            np.testing.assert_allclose(found[places], values[name][places], 1e-4, 1e-5, err_msg=prefix + name)
    assert np.isfinite(expected[2]["step"]).any()
    assert len(ntklens.measure_observables(ntklens.load(tmp_path)).data_vars) > 10


def test_saved_networks_of_one_folder_are_a_sweep(tmp_path):
    for width in (8, 16):
        for seed in (0, 3):
            recorder = ntklens.Recorder(
                apply, START, probe=X, config={"model": {"width": width}, "seed": np.int64(seed)}
            )
            path = record(recorder, (1.0, 0.5, 0.7, 0.9)).save(tmp_path / "mine")
            assert path.parent.name == f"seed={seed}"
    data = ntklens.load(tmp_path / "mine")
    assert data.sizes["run"] == 2
    assert data["model.width"].values.tolist() == [8, 16]
    assert data["seed"].values.tolist() == [0, 3]
    assert (data["state"] == "done").all()
    assert (data["minimum_step"] == 1).all()
    assert (data["minimum_selection_loss"] == 0.5).all()
    assert np.isnan(data["train_accuracy"]).all()
    assert "a loop of its own" in json.loads(data.attrs["provenance"])["training"][0]
    study = ntklens.analyse(data)
    assert [group.axis for group in study.groups] == ["model.width"]
    status = json.loads((path.parent / "status.json").read_text())
    assert status["state"] == "done"
    assert status["observables"]["minimum_loss"] == 0.5


def test_advice_names_no_setting_that_a_loop_of_ones_own_lacks(tmp_path):
    for width in (8, 16, 32, 64):
        recorder = ntklens.Recorder(apply, START, probe=X, config={"model.width": width})
        record(recorder, (1.0, 0.9, 0.8) if width < 64 else (1.0, 0.9, 1.1)).save(tmp_path / "mine")
    study = ntklens.analyse(ntklens.load(tmp_path / "mine"))
    claims = [claim.advice for claim in study.claims]
    text = "\n".join([*study.summary, *(f"{one.sentence} {one.advice}" for one in study.diagnoses), *claims])
    assert "Train for more epochs in your loop before reading them." in study.summary[1]
    assert "Record more networks, each with a seed of its own." in text
    assert "Take smaller steps in your loop, and more of them." in text
    assert "(open): training ended" in text
    assert "(model.width=8; model.width=16; model.width=32)" in text  # no folder's name
    for setting in ("training.", "ensemble=", "protocol", "optimizer.", "replace=", "precision=", "probe_size"):
        assert setting not in text


def test_the_minimum_is_that_of_the_selection_loss_where_it_is_given(tmp_path):
    recorder = ntklens.Recorder(apply, START, probe=X)
    for step, (selection, test) in enumerate([(1.0, 0.9), (0.8, 0.3), (0.6, 0.5), (0.7, 0.4)]):
        recorder(step, shift(START, step), train_loss=1.0, test_loss=test, selection_loss=selection, test_accuracy=0.5)
    recorder.save(tmp_path)
    data = ntklens.load(tmp_path).isel(run=0, seed=0)
    assert data["minimum_step"] == 2
    assert data["minimum_test_loss"] == 0.5
    assert data["minimum_test_accuracy"] == 0.5
    assert "minimum of selection_loss" in json.loads(ntklens.load(tmp_path).attrs["provenance"])["training"][0]


def test_a_call_that_is_not_due_looks_at_nothing_and_the_last_one_counts(tmp_path):
    recorder = ntklens.Recorder(apply, START, probe=X, record_ratio=2.0)
    for step in range(12):
        due = step in (0, 1, 2, 4, 8)
        assert recorder.is_due(step) == due
        loss = 1.0 if due or step == 11 else "not looked at"
        recorder(step, shift(START, step), train_loss=loss, test_loss=loss)
    recorder.save(tmp_path)
    data = ntklens.load(tmp_path).isel(run=0, seed=0)
    assert data["step"].values.tolist() == [0, 1, 2, 4, 8, 11]
    assert np.isfinite(data["effective_rank"].values[[0, 1, 3, 5]]).all()
    expected = ntklens.ntk_trace(apply, shift(START, 11), X)
    assert float(data["trace"][-1]) == pytest.approx(float(expected))


@pytest.mark.parametrize("name", ["train_loss", "test_loss"])
@pytest.mark.parametrize("end", [0, 2])
def test_a_loss_that_is_not_finite_is_a_result(tmp_path, name, end):
    recorder = ntklens.Recorder(apply, START, probe=X)
    for step in range(5):
        losses = {"train_loss": 1.0, "test_loss": 1.0} | ({name: jnp.nan} if step >= end else {})
        recorder(step, shift(START, step), **losses)
    assert recorder.diverged
    assert not recorder.is_due(100)
    recorder.save(tmp_path)
    data = ntklens.load(tmp_path).isel(run=0, seed=0)
    assert data["state"] == "diverged"
    assert data["diverged_step"] == end
    assert data.sizes["record"] == max(end, 1)


def test_saving_again_replaces_what_the_recorder_saved_and_nothing_else(tmp_path):
    recorder = record(ntklens.Recorder(apply, START, probe=X), (1.0, 0.9))
    path = recorder.save(tmp_path)
    recorder(2, shift(START, 2), train_loss=0.5, test_loss=0.8)
    assert recorder.save(tmp_path) == path
    assert ntklens.load(tmp_path)["step"].values.ravel().tolist() == [0, 1, 2]
    other = record(ntklens.Recorder(apply, START, probe=X), (1.0,))
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"another trajectory with these labels.*'seed': 1.*replace=True"):
        other.save(tmp_path)
    assert path.read_bytes() == before
    other.save(tmp_path, replace=True)
    assert ntklens.load(tmp_path)["step"].values.ravel().tolist() == [0]
    with pytest.raises(InputError, match="another trajectory"):
        recorder.save(tmp_path)
    assert [entry.name for entry in path.parent.iterdir() if entry.name[0] == "."] == []


def test_updates_may_take_the_memory_of_the_parameters(tmp_path):
    update = jax.jit(lambda params: jax.tree.map(lambda leaf: leaf * 0.9, params), donate_argnums=0)
    params = {"w": jnp.ones((3, 2))}
    recorder = ntklens.Recorder(apply, params, probe=X)
    for step in range(4):
        recorder(step, params, train_loss=1.0, test_loss=1.0)
        params = update(params)
    recorder.save(tmp_path)
    weights = ntklens.load(tmp_path)["weight_change"].values.ravel()
    np.testing.assert_allclose(weights, 1 - 0.9 ** np.arange(4), atol=1e-6)


def test_other_initial_parameters_than_announced_are_taken_and_said(tmp_path):
    recorder = ntklens.Recorder(apply, START, probe=X)
    with pytest.warns(UserWarning, match="other parameters than"):
        recorder(0, shift(START, 1), train_loss=1.0, test_loss=1.0)
    recorder.save(tmp_path)
    assert ntklens.load(tmp_path)["weight_change"].values.ravel().tolist() == [0.0]


def test_a_function_that_changes_is_refused():
    scale = [1.0]
    recorder = ntklens.Recorder(lambda params, x: scale[0] * (x @ params["w"]), START, probe=X)
    recorder(0, START, train_loss=1.0, test_loss=1.0)
    scale[0] = 1.1
    with pytest.raises(InputError, match="closes over; put that into params"):
        recorder(1, START, train_loss=1.0, test_loss=1.0)


def call(step=1, params=START, **losses):
    recorder = record(ntklens.Recorder(apply, START, probe=X), (1.0,))
    recorder(step, params, **{"train_loss": 1.0, "test_loss": 1.0} | losses)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: ntklens.Recorder(lambda p, x: x[:, :2], START, probe=X), "does not depend on params"),
        (lambda: ntklens.Recorder(lambda p, x: (x @ p["w"])[:, 0], START, probe=X), r"must return one array \[N, C\]"),
        (
            lambda: ntklens.Recorder(lambda p, x: x @ p["w"] - (x @ p["w"]).mean(0, keepdims=True), START, probe=X),
            "mixes samples",
        ),
        (lambda: ntklens.Recorder(apply, START, probe=X, config={"seed": -1}), "seed=-1 must be an integer"),
        (lambda: ntklens.Recorder(apply, START, probe=X, config={"a": object()}), "a=<object.*must be a number"),
        (lambda: ntklens.Recorder(apply, START, probe=X, config={"a": 1, "a.b": 2}), "a.b and a cannot both"),
        (lambda: ntklens.Recorder(apply, START, probe=X, config={"name": "b"}), "name is no setting"),
        (lambda: ntklens.Recorder(apply, START, probe=X, record_ratio=0.5), "record_ratio=0.5: must be a number"),
        (lambda: ntklens.Recorder(apply, START, probe=X).save("nowhere"), "nothing was recorded"),
        (lambda: call(0), "updates must increase, and the call before was at 0"),
        (
            lambda: ntklens.Recorder(apply, START, probe=X)(5, START, train_loss=1.0, test_loss=1.0),
            r"recorder\(5, …\): the first call must be before the first update, recorder\(0, params, …\)",
        ),
        (lambda: call(trian_loss=1.0), "there is no trian_loss; did you mean train_loss=…"),
        (lambda: call(error=1.0), "there is no error; there are train_loss, test_loss, selection_loss"),
        (lambda: ntklens.Recorder(apply, START, probe=X)(0, START, test_loss=1.0), "'train_loss'; type recorder"),
        (lambda: call(1.5), "must be an integer"),
        (lambda: call(train_loss=jnp.ones(3)), r"train_loss must be one number, not \[3\]"),
        (lambda: call(test_loss=None), "test_loss must be one number"),
        (lambda: call(selection_loss=1.0), "selection_loss must be given at every call, or never"),
        (lambda: call(params={"w": jnp.ones((4, 2))}), "no tree of the same arrays"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(act, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        act()
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    recorder = record(ntklens.Recorder(apply, START, probe=X), (1.0,))
    with pytest.raises(InputError, match="cannot be written"):
        recorder.save(tmp_path / "file")


def test_one_function_is_compiled_once():
    from ntklens.recording.measure import measure_records

    record(ntklens.Recorder(apply, START, probe=X), (1.0, 0.9))
    before = measure_records._cache_size()
    record(ntklens.Recorder(apply, START, probe=X, config={"seed": 1}), (1.0, 0.9))
    assert measure_records._cache_size() == before
