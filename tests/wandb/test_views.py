"""What is shown of a whole sweep: one run per configuration, the report, the dashboard; and what stays unimported."""

import json
import subprocess
import sys

import numpy as np
import pytest

from commands import TOY, call_ntklens, isolate, list_files
from ntklens.recording.observables import OBSERVABLES
from ntklens.store.trajectory import read_trajectory
from ntklens.tasks.dashboard import list_numbers
from ntklens.wandb.names import make_id, make_row, read_axes
from ntklens.wandb.runs import choose_mode, describe_tracking, find_partial, list_runs, note_begun
from ntklens.wandb.tracker import WRITER_BYTES
from ntklens.wandb.workspace import SCALARS, build_workspace, list_panels
from transactions import read_run

SMALL = [word for word in TOY if "width" not in word]
SWEEP = ("-m", "scaling=width", "model.width=3,5", *SMALL, "tracking.per_seed=false", "launch.workers=1")
NAME = "synthetic_width"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("views") / "here"
    folder.mkdir()
    result = call_ntklens(*SWEEP, cwd=folder, **isolate(folder))
    assert (result.returncode, result.stderr) == (0, "")
    return folder


@pytest.mark.slow
def test_one_run_per_configuration_holds_mean_and_spread(finished):
    runs = [read_run(run.path) for run in list_runs(finished / "multirun" / NAME)]
    assert len(runs) == 2
    for run in runs:
        paths = sorted((finished / "multirun" / NAME / run.run.run_group).glob("seed=*/trajectory.nc"))
        first, second = map(read_trajectory, paths)
        assert [row["_step"] for row in run.history] == first.step.values.tolist()
        for metric, name in (("loss/test", "test_loss"), ("ntk/trace", "trace")):
            values = np.stack([first[name].values, second[name].values]).astype(float)
            for suffix, wanted in (
                ("", values.mean(0)), ("_min", values.min(0)), ("_max", values.max(0)),
                ("_sem", np.abs(values[0] - values[1]) / 2),
            ):  # fmt: skip
                np.testing.assert_allclose([row[f"{metric}{suffix}"] for row in run.history], wanted, atol=1e-12)
        assert all(row["seeds"] == 2 for row in run.history)
        assert run.config["seeds"] == [0, 1]
        assert run.summary["initial_trace_min"] == min(first.trace[0], second.trace[0])
        assert len([artifact for artifact in run.artifacts if artifact.type == "trajectory"]) == 2


def test_more_seeds_are_another_run():
    assert make_id(NAME, "k", [0, 1]) != make_id(NAME, "k", [0, 1, 2]) != make_id(NAME, "k", [0])
    assert len(make_id("x" * 200, "0" * 16, [7])) <= 120
    assert make_id("a/b", "k", [0]) != make_id("a_b", "k", [0])


@pytest.mark.slow
def test_the_report_is_logged_once(finished):
    for _ in range(2):
        result = call_ntklens("task=report", f"name={NAME}", cwd=finished, **isolate(finished))
        assert (result.returncode, result.stderr) == (0, "")
    (path,) = [run.path for run in list_runs(finished / "multirun" / NAME) if "report" in run.id]
    run = read_run(path)
    assert (run.run.job_type, run.run.run_group) == ("report", NAME)
    assert NAME in run.run.tags
    (row,) = run.history
    assert row["fits/_type"] == row["claims/_type"] == "table-file"
    assert row["page/_type"] == "html-file"
    assert any(key.startswith("figures/") for key in row)
    inputs = [artifact for artifact in run.artifacts if artifact.use_after_commit]
    assert {artifact.type for artifact in inputs} == {"trajectory"}
    assert len(inputs) == 4
    (report,) = [artifact for artifact in run.artifacts if artifact.type == "report"]
    assert {"report.html", "fits.csv"} <= {file.path for file in report.manifest.contents}


@pytest.mark.slow  # as is all that reads the sweep above
def test_the_dashboard_is_written_without_credentials(finished):
    result = call_ntklens("task=dashboard", f"name={NAME}", cwd=finished, **isolate(finished))
    assert (result.returncode, result.stderr) == (0, "")
    assert "without credentials nothing is sent" in result.stdout
    definition = json.loads((finished / "multirun" / NAME / "wandb" / "dashboard.json").read_text())
    panels = list_panels(definition)
    assert ("Feature learning", "Tr Θ against ln L_train") in panels
    assert [panel for section, panel in panels if section == "Against model.width"] == ["L_min", "|β|", "|χ|", "Γ_min"]
    assert "synthetic_width" in json.dumps(definition)
    assert list_files(finished.parent / "home") == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # within wandb-workspaces
def test_every_sweep_has_the_same_dashboard():
    first, second = (
        list_panels(build_workspace(name, "someone", "ntklens", ["model.width"], ["α = 1"]).definition)
        for name in ("one", "two")
    )
    assert first == second
    assert set(SCALARS) <= set(OBSERVABLES)


def test_bad_settings_name_the_override(tmp_path):
    (tmp_path / "here").mkdir()
    for word in (
        "tracking.mode=onlin",
        "tracking.project=a/b",
        "tracking.interval=0",
        "tracking.modes=auto",
        "tracking.entity=a/b",
    ):
        result = call_ntklens(*TOY, word, cwd=tmp_path / "here")
        assert result.returncode == 2
        assert len(result.stderr.splitlines()) == 1
        assert "tracking." in result.stderr
    assert list_files(tmp_path / "here") == []


def test_online_needs_credentials(tmp_path):
    folder = tmp_path / "here"
    folder.mkdir()
    for words in (TOY, SWEEP):
        result = call_ntklens(*words, "tracking.mode=online", cwd=folder, **isolate(folder))
        assert result.returncode == 2
        (line,) = result.stderr.splitlines()
        assert line.startswith("error: tracking.mode=online: no credentials for https://api.wandb.ai; type wandb login")
    assert list_files(folder) == []


def test_plans_count_what_writes_runs(tmp_path):
    folder = tmp_path / "here"
    folder.mkdir()
    needs = []
    for mode in ("disabled", "offline"):
        words = (*SWEEP, f"tracking.mode={mode}", "task=plan", "task.format=json")
        result = call_ntklens(*words, cwd=folder, **isolate(folder))
        needs.append(json.loads(result.stdout)["estimated_memory_bytes"])
    assert needs[1] - needs[0] == WRITER_BYTES
    result = call_ntklens(*TOY, "ntk.memory_limit=0.6", "tracking.mode=offline", cwd=folder, **isolate(folder))
    assert result.returncode == 2
    assert "tracking=none saves 0.25" in result.stderr


def test_what_is_unfinished_is_not_uploaded_in_part(tmp_path):
    (tmp_path / "wandb").mkdir()
    note_begun(tmp_path, "one", ["run/seed=0/trajectory.nc"])
    note_begun(tmp_path, "two", ["run/seed=1/trajectory.nc"])
    (tmp_path / "run" / "seed=1").mkdir(parents=True)
    (tmp_path / "run" / "seed=1" / "trajectory.nc").touch()
    assert find_partial(tmp_path) == ["two"]
    (line,) = describe_tracking(tmp_path)
    assert line.startswith("wandb    1 run is uploaded in part, which wandb sync would double; to go on: python")


def test_the_mode_follows_what_is_there(monkeypatch, tmp_path):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert choose_mode("auto") == "offline"
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user")
    assert choose_mode("auto") == "offline"
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password 0123")
    assert choose_mode("auto") == "online"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert choose_mode("auto") == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "0123")
    assert choose_mode("auto") == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert choose_mode("auto") == "disabled"
    assert choose_mode("offline") == "offline"


@pytest.mark.parametrize("module", ["ntklens", "ntklens.wandb.tracker", "ntklens.tasks.train", "ntklens.tasks.sweep"])
def test_wandb_is_imported_only_where_runs_are_written(module):
    code = f"import sys, {module}; print([name for name in ('wandb', 'wandb_workspaces') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.slow
def test_an_ensemble_that_grows_is_one_run(tmp_path):
    folder = tmp_path / "here"
    folder.mkdir()
    words = [word for word in TOY if "ensemble" not in word]
    for ensemble in (2, 4):
        result = call_ntklens(*words, f"ensemble={ensemble}", "tracking.per_seed=false", cwd=folder, **isolate(folder))
        assert (result.returncode, result.stderr) == (0, "")
        (run,) = [read_run(run.path) for run in list_runs(folder / "multirun" / "synthetic")]
        assert run.config["seeds"] == list(range(ensemble))
        assert run.history[0]["seeds"] == ensemble


def test_a_loss_of_zero_has_no_place_on_the_path():
    record = {"step": 1, "epoch": 1.0, "train_loss": 0.0, "trace": 5.0}
    row = make_row(record, [])
    assert row == {"step": 1.0, "epoch": 1.0, "loss/train": 0.0, "ntk/trace": 5.0}
    assert make_row(record | {"train_loss": 1.0}, [])["path/trace"] == 5


@pytest.mark.slow
def test_diverged_seeds_do_not_enter_the_mean(tmp_path):
    folder = tmp_path / "here"
    folder.mkdir()
    words = ("optimizer=sgd", "training.loss=mse", "training.epochs=300", "tracking.per_seed=false")
    for rate in (0.5, 4):
        result = call_ntklens(*TOY, *words, f"optimizer.learning_rate={rate}", cwd=folder, **isolate(folder))
        assert (result.returncode, result.stderr) == (0, "")
    for run in [read_run(run.path) for run in list_runs(folder / "multirun" / "synthetic")]:
        diverged = run.config["optimizer"]["learning_rate"] == 4
        assert (run.summary["state"], run.summary["diverged"]) == (("diverged", 2) if diverged else ("done", 0))
        assert ("minimum_loss" in run.summary) != diverged


def test_scalars_are_drawn_against_positive_numbers_that_are_swept(tmp_path):
    axes = {
        "model.width": (3, 5),
        "model.activation": ("relu", "tanh"),
        "dataset.data_seed": (1, 2),
        "dataset.noise": (0, 1),
        "training.epochs": (9, 9),
    }
    plan = {"configurations": [{"axes": {name: values[n] for name, values in axes.items()}} for n in range(2)]}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    assert list_numbers(tmp_path) == ["model.width"]
    assert "training.epochs" not in read_axes(tmp_path)
