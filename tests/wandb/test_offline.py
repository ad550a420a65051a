"""Runs written to this disk, read back from W&B's transaction logs."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from commands import NETWORKS, TOY, call_ntklens, isolate, list_files, start_ntklens
from ntklens.recording.observables import compute_observables
from ntklens.recording.quantities import VARIABLES
from ntklens.store.checkpoint import find_checkpoint_step
from ntklens.store.trajectory import encode_trajectory, read_trajectory
from ntklens.wandb.names import SPECTRUM, name_metric
from transactions import read_run

SMALL = [word for word in TOY if "width" not in word and "ensemble" not in word]
SWEEP = ("-m", "scaling=width", "model.width=3,5", *SMALL, "ensemble=2", "launch.workers=1")
NAME = "synthetic_width"


def find_runs(folder, name=NAME):
    return {run.run.run_id: run for run in map(read_run, (folder / "multirun" / name / "wandb").glob("*run-*"))}


def find_trajectories(folder, name=NAME):
    return sorted((folder / "multirun" / name).glob("*/seed=*/trajectory.nc"))


def expect_equal(run, path):
    """Every record of a trajectory is in a run, and nothing else."""
    trajectory = read_trajectory(path)
    layers = trajectory.layer.values.tolist()
    assert [row["_step"] for row in run.history] == trajectory.step.values.tolist()
    for index, row in enumerate(run.history):
        known = {"_step", "_runtime", "_timestamp", "log_train_loss", "path/trace"}
        for name, (dims, _) in VARIABLES.items():
            values = trajectory[name].values[index]
            if dims == ("mode",):
                measured = np.isfinite(values).any()
                assert (f"{SPECTRUM}/values" in row) == measured
                if measured:
                    assert sum(row[f"{SPECTRUM}/values"]) == (values > 0).sum()
                continue
            keys = [name_metric(name, layer) for layer in layers] if dims else [name_metric(name)]
            logged = np.array([row.get(key, np.nan) for key in keys])
            np.testing.assert_array_equal(logged.astype(values.dtype), np.atleast_1d(values), err_msg=name)
            known |= set(keys)
        extra = {key for key in row if key not in known and not key.startswith((SPECTRUM, "figure/"))}
        assert not extra
        if row["loss/train"] > 0:
            assert row["log_train_loss"] == pytest.approx(np.log(row["loss/train"]))
            assert row["path/trace"] == row["ntk/trace"]
        else:
            assert not {"log_train_loss", "path/trace"} & set(row)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("offline") / "here"
    folder.mkdir()
    result = call_ntklens(*SWEEP, cwd=folder, **isolate(folder))
    assert result.returncode == 0, result.stderr
    return folder, result


@pytest.fixture
def copy(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "here")
    return tmp_path / "here"


def test_a_sweep_leaves_one_run_per_seed_with_every_record(finished):
    folder, _ = finished
    runs = find_runs(folder)
    paths = find_trajectories(folder)
    assert len(paths) == len(runs) == 4
    for path in paths:
        attrs = read_trajectory(path).attrs
        expect_equal(runs[f"{NAME}-{attrs['run_key']}-{attrs['seed']}"], path)


def test_runs_say_what_they_are(finished):
    folder, _ = finished
    runs = find_runs(folder)
    for path in find_trajectories(folder):
        trajectory = read_trajectory(path)
        attrs = trajectory.attrs
        run = runs[f"{NAME}-{attrs['run_key']}-{attrs['seed']}"]
        assert (run.run.run_group, run.run.job_type, run.run.project) == (path.parents[1].name, "train", "ntklens")
        assert set(run.run.tags) == {NAME, "synthetic", "mlp", "model.width"}
        config = json.loads(attrs["config"])
        assert {**run.config, "seed": 0} | {} == {
            **config,
            **{k: run.config[k] for k in ("_wandb", "derived")},
            "seed": 0,
        }
        assert run.config["seed"] == attrs["seed"]
        derived = run.config["derived"]
        assert derived["key"] == attrs["run_key"]
        assert derived["parameters"] == attrs["parameters"]
        assert derived["layers"] == trajectory.layer.values.tolist()
        assert "${" not in json.dumps(run.config)
        for name, value in compute_observables(trajectory).items():
            assert run.summary.get(name, np.nan) == pytest.approx(value, nan_ok=True), name
        assert run.summary["loss/test"]["min"] == trajectory.test_loss.values.min()
        assert run.summary["ntk/trace"]["max"] == trajectory.trace.values.max()
        assert run.metrics["*"].step_metric == "epoch"
        assert run.metrics["path/trace"].step_metric == "log_train_loss"
        assert run.exit_code == 0


def test_runs_hold_figure_and_lineage(finished):
    folder, _ = finished
    paths = set(map(str, find_trajectories(folder)))
    for run in find_runs(folder).values():
        assert run.history[-1]["figure/_type"] == "image-file"
        data, trajectory = run.artifacts
        assert (data.type, trajectory.type) == ("dataset", "trajectory")
        assert data.use_after_commit
        assert not trajectory.use_after_commit
        assert run.config["derived"]["data_checksum"][:12] in data.name
        (file,) = trajectory.manifest.contents
        assert file.local_path in paths
        paths.remove(file.local_path)
        assert json.loads(Path(data.manifest.contents[0].local_path).read_text())["name"] == "synthetic"
    assert not paths


def test_nothing_is_asked_and_nothing_is_written_elsewhere(finished):
    folder, result = finished
    assert result.stderr == ""
    lines = [line for line in result.stdout.splitlines() if "wandb" in line]
    assert lines == [
        f"wandb    no credentials: runs are kept in multirun/{NAME}/wandb for a later upload (or tracking=none)",
        f"wandb    4 runs are on this disk only; to upload: wandb sync multirun/{NAME}/wandb",
    ]
    assert result.stdout.startswith(lines[0])  # before anything is computed
    assert list_files(folder.parent / "home") == []
    assert {path.name for path in folder.iterdir()} == {"multirun"}


def test_wandb_itself_finds_the_runs(finished):
    folder, _ = finished
    environment = os.environ | isolate(folder) | {"WANDB_DIR": str(folder)}
    command = [Path(sys.executable).with_name("wandb"), "sync", "--dry-run", f"multirun/{NAME}/wandb"]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    assert "Would sync 4 run(s)" in result.stderr + result.stdout


def test_status_counts_what_is_not_synced(copy):
    log = next((copy / "multirun" / NAME / "wandb").glob("offline-run-*/run-*.wandb"))
    log.with_name(f"{log.name}.synced").touch()  # as `wandb sync` does
    assert (
        "on this disk only" not in call_ntklens("task=status", f"name={NAME}", cwd=copy).stdout
    )  # it was printed once
    (log.parents[1] / "noted").unlink()
    assert "3 runs are on this disk only" in call_ntklens("task=status", f"name={NAME}", cwd=copy).stdout
    described = json.loads(call_ntklens("task=status", f"name={NAME}", "task.format=json", cwd=copy).stdout)
    assert len(described["unsynced"]) == 3


@pytest.mark.slow
def test_what_was_not_logged_is_logged_by_the_next_launch(copy):
    """What was moved is written anew first: wandb sync would not find its files."""
    wandb = copy / "multirun" / NAME / "wandb"
    (wandb / "noted").unlink()
    result = call_ntklens("task=status", f"name={NAME}", cwd=copy)
    assert f"4 runs are on this disk only; to upload: python -m ntklens.run task=sync name={NAME}\n" in result.stdout
    (wandb / "noted").unlink()
    result = call_ntklens(*SWEEP, cwd=copy, **isolate(copy))
    assert f"4 runs are on this disk only; to upload: wandb sync multirun/{NAME}/wandb" in result.stdout
    whole, halved = sorted(wandb.glob("offline-run-*"))[:2]
    shutil.rmtree(whole)
    (halved / "logged.json").unlink()  # as if killed while writing
    before = {path.name for path in wandb.glob("offline-run-*")}
    result = call_ntklens(*SWEEP, cwd=copy, **isolate(copy))
    assert (result.returncode, result.stderr) == (0, "")
    after = {path.name for path in wandb.glob("offline-run-*")}
    assert len(after) == 4
    assert before - after == {halved.name}
    runs = find_runs(copy)
    for path in find_trajectories(copy):
        attrs = read_trajectory(path).attrs
        expect_equal(runs[f"{NAME}-{attrs['run_key']}-{attrs['seed']}"], path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [pytest.param("images", marks=pytest.mark.release), "tokens"])
def test_every_network_is_killed_and_continued_as_one_run(tmp_path, kind):
    words = (*NETWORKS[kind], "name=networks", "launch.workers=1", "checkpoint.minutes=0.0005", "tracking.mode=offline")
    launch = start_ntklens(*words, cwd=tmp_path, **isolate(tmp_path / "here"))
    deadline = time.monotonic() + 300
    while not any(find_checkpoint_step(seed) for seed in tmp_path.glob("multirun/*/*/seed=*")):
        assert time.monotonic() < deadline
        assert launch.poll() is None
        time.sleep(0.02)
    first = psutil.Process(launch.pid)
    for process in (first, *first.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    launch.communicate()
    result = call_ntklens(*words, cwd=tmp_path, **isolate(tmp_path / "here"))
    assert (result.returncode, result.stderr) == (0, "")
    runs, paths = find_runs(tmp_path, "networks"), find_trajectories(tmp_path, "networks")
    assert len(runs) == len(paths) == {"images": 3, "tokens": 2}[kind]
    attributes = [read_trajectory(path).attrs for path in paths]
    assert any(attrs["continued_from_step"] > 0 for attrs in attributes)
    for path, attrs in zip(paths, attributes, strict=True):
        expect_equal(runs[f"networks-{attrs['run_key']}-{attrs['seed']}"], path)


@pytest.mark.slow
def test_a_killed_and_continued_job_is_one_run(tmp_path):
    words = (*TOY, "training.epochs=20000", "checkpoint.minutes=0.002", "tracking.mode=offline")
    process = start_ntklens(*words, cwd=tmp_path, **isolate(tmp_path / "here"))
    deadline = time.monotonic() + 120
    while not any(find_checkpoint_step(seed) for seed in tmp_path.glob("multirun/*/*/seed=1")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not list(tmp_path.glob("multirun/*/*/seed=*/trajectory.nc"))
    result = call_ntklens(*words, cwd=tmp_path, **isolate(tmp_path / "here"))
    assert (result.returncode, result.stderr) == (0, "")
    runs = find_runs(tmp_path, "synthetic")
    paths = find_trajectories(tmp_path, "synthetic")
    assert len(list((tmp_path / "multirun" / "synthetic" / "wandb").glob("*run-*"))) == len(runs) == len(paths) == 2
    for path in paths:
        attrs = read_trajectory(path).attrs
        assert attrs["continued_from_step"] > 0
        expect_equal(runs[f"synthetic-{attrs['run_key']}-{attrs['seed']}"], path)


@pytest.mark.slow
def test_a_replaced_result_replaces_its_run(tmp_path):
    environment = isolate(tmp_path / "here")
    assert call_ntklens(*TOY, cwd=tmp_path, **environment).returncode == 0
    before = {path.name for path in tmp_path.glob("multirun/synthetic/wandb/offline-run-*")}
    assert call_ntklens(*TOY, "replace=true", cwd=tmp_path, **environment).returncode == 0
    after = {path.name for path in tmp_path.glob("multirun/synthetic/wandb/offline-run-*")}
    assert len(after) == 2
    assert not after & before


def alter(path):
    """Give a trajectory another end, as another machine or another release may."""
    trajectory = read_trajectory(path)
    trajectory.trace.values[-1] *= 2
    path.write_bytes(encode_trajectory(trajectory))


def mark_synced(folder, name=NAME):
    """As `wandb sync` does."""
    for log in (folder / "multirun" / name / "wandb").glob("offline-run-*/run-*.wandb"):
        log.with_name(f"{log.name}.synced").touch()


@pytest.mark.slow
def test_a_run_that_the_server_has_is_written_again_only_as_another(copy):
    """The folder was copied, so nothing lies where it lay; one result then changes."""
    mark_synced(copy)
    wandb = copy / "multirun" / NAME / "wandb"
    before = {path.name for path in wandb.glob("offline-run-*")}
    result = call_ntklens(*SWEEP, cwd=copy, **isolate(copy))
    assert (result.returncode, result.stderr) == (0, "")
    assert "wandb sync" not in result.stdout
    assert {path.name for path in wandb.glob("offline-run-*")} == before
    path = find_trajectories(copy)[0]
    alter(path)
    for _ in range(2):
        (wandb / "noted").unlink(missing_ok=True)
        result = call_ntklens(*SWEEP, cwd=copy, **isolate(copy))
        assert (result.returncode, result.stderr) == (0, "")
        assert "1 run is on this disk only" in result.stdout
        after = {path.name for path in wandb.glob("offline-run-*")}
        assert before < after
        (new,) = after - before
    attrs = read_trajectory(path).attrs
    first = f"{NAME}-{attrs['run_key']}-{attrs['seed']}"
    assert new.endswith(f"{first}-v2")
    runs = find_runs(copy)
    expect_equal(runs[f"{first}-v2"], path)
    assert runs[f"{first}-v2"].run.display_name == f"{runs[first].run.display_name} v2"
    assert runs[f"{first}-v2"].history[-1]["ntk/trace"] == 2 * runs[first].history[-1]["ntk/trace"]


@pytest.mark.slow
def test_any_name_of_a_sweep_will_do(tmp_path):
    name = "Überprüfung der Breite, κ=2 " + 170 * "x"
    environment = isolate(tmp_path / "here")
    result = call_ntklens(*TOY, f"name='{name}'", cwd=tmp_path, **environment)
    assert (result.returncode, result.stderr) == (0, "")
    assert "2 runs are on this disk only" in result.stdout
    result = call_ntklens("task=report", f"name='{name}'", cwd=tmp_path, **environment)
    assert (result.returncode, result.stderr) == (0, "")
    runs = find_runs(tmp_path, name)
    assert len(runs) == 3
    for run_id, run in runs.items():
        assert re.fullmatch(r"[A-Za-z0-9_.-]{1,128}", run_id)
        assert all(0 < len(tag) <= 64 for tag in run.run.tags)
        assert max(len(run.run.display_name), len(run.run.run_group)) <= 128
        assert all(re.fullmatch(r"[A-Za-z0-9_.-]{1,128}", artifact.name) for artifact in run.artifacts)
    assert call_ntklens("task=dashboard", f"name='{name}'", cwd=tmp_path, **environment).returncode == 0


@pytest.mark.parametrize("sweeps", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_where_wandb_does_not_work_one_line_says_so(tmp_path, sweeps):
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "__init__.py").write_text("raise ImportError('wandb is broken\\nhere')")
    words = ("-m", "model.width=3,5", *SMALL, "ensemble=1", "launch.workers=2") if sweeps else TOY
    result = call_ntklens(*words, cwd=tmp_path, **isolate(tmp_path / "here"), PYTHONPATH=str(tmp_path))
    assert result.returncode == 0
    assert result.stderr.splitlines() == [
        "wandb: ImportError: wandb is broken here; results are untouched, the same line writes the runs once "
        "that is repaired"
    ]
    assert not list(tmp_path.glob("multirun/*/wandb/*run-*"))


@pytest.mark.slow
def test_the_environment_does_not_change_what_a_run_is(tmp_path):
    asked = dict.fromkeys(("RUN_ID", "NAME", "RUN_GROUP", "RUN_NOTES", "TAGS", "DIR", "SWEEP_ID"), "else")
    asked |= {"RESUME_FROM": "else?_step=1", "FORK_FROM": "else?_step=1", "RESUME": "must", "BASE_URL": "notaurl"}
    asked |= {"CONSOLE": "nonsense", "START_METHOD": "nonsense", "DISABLE_GIT": "nonsense", "INIT_TIMEOUT": "nonsense"}
    environment = isolate(tmp_path / "here") | {f"WANDB_{name}": value for name, value in asked.items()}
    result = call_ntklens(*TOY, cwd=tmp_path, **environment)
    assert (result.returncode, result.stderr) == (0, "")
    runs = find_runs(tmp_path, "synthetic")
    for path in find_trajectories(tmp_path, "synthetic"):
        attrs = read_trajectory(path).attrs
        run = runs[f"synthetic-{attrs['run_key']}-{attrs['seed']}"]
        expect_equal(run, path)
        assert "else" not in str(run.run)
