"""The main job from end to end, as a person types it."""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import ntklens
from commands import ALONE, TOY, call_ntklens, list_files, run_ntklens, start_ntklens
from ntklens.config.identity import SCHEMA_VERSION
from ntklens.jobs.compute import Outcome
from ntklens.jobs.watcher import Watcher
from ntklens.report import run_summary
from ntklens.signals import Stop
from ntklens.store.trajectory import read_trajectory


def find_run(folder, name="synthetic"):
    (run,) = [path for path in (folder / "multirun" / name).iterdir() if path.is_dir()]
    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished toy run: (folder, what the command printed)."""
    folder = tmp_path_factory.mktemp("finished") / "here"
    folder.mkdir()
    result = call_ntklens(*TOY, cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder, result


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of the finished run that a test may damage."""
    shutil.copytree(finished[0], tmp_path / "here")
    return tmp_path / "here"


def test_leaves_exactly_what_it_says(finished):
    folder, _ = finished
    files = list_files(find_run(folder))
    seeds = [f"seed={k}{rest}" for k in range(2) for rest in ("", "/status.json", "/trajectory.nc")]
    assert files == sorted([".claims", "command.txt", "config.yaml", "trajectory.png", *seeds])


def test_says_what_was_found_where_it_lies_and_what_to_type_next(finished):
    _, result = finished
    for fragment in (
        "L_min",
        "Tr Θ_0",
        "Tr Θ_min",
        "β",
        "χ",
        "R²",
        "Γ_0",
        "Γ_min",
        "±",
        "trajectory.nc",
        "python -m ntklens.run",
    ):
        assert fragment in result.stdout
    assert result.stderr == ""  # quiet: not a terminal


def test_a_minimum_at_the_last_record_is_said_below_the_table(finished):
    folder, result = finished
    trajectories = [read_trajectory(find_run(folder) / f"seed={seed}" / "trajectory.nc") for seed in range(2)]
    stopped = sum(float(one.minimum_step) >= float(one.step.max()) for one in trajectories)
    line = f"in {stopped} of 2 seeds the minimum is the last record or next to it: raise training.epochs"
    assert (line in result.stdout) == (stopped > 0)
    early = sum(float(one.step[0]) <= float(one.minimum_step) < min(30, float(one.step.max())) for one in trajectories)
    assert (f"in {early} of 2 seeds the minimum comes before update 30" in result.stdout) == (early > 0)
    assert stopped + early


def test_the_trajectory_explains_itself(finished):
    folder, _ = finished
    attrs = read_trajectory(find_run(folder) / "seed=1" / "trajectory.nc").attrs
    assert attrs["state"] == "done"
    assert (attrs["seed"], attrs["N"], attrs["C"], attrs["schema_version"]) == (1, 8, 3, SCHEMA_VERSION)
    config = json.loads(attrs["config"])
    assert config["model"]["width"] == 6
    assert config["optimizer"]["learning_rate"] == 1e-3
    assert attrs["run_key"][:8] == find_run(folder).name[-8:]
    assert json.loads(attrs["packages"])["jax"]
    assert len(attrs["data_checksum"]) == 64
    assert attrs["device"]
    assert attrs["seconds"] > 0


def test_a_second_launch_computes_nothing_and_says_so(copy):
    run = find_run(copy)
    before = {name: (run / name).stat().st_mtime_ns for name in list_files(run)}
    result = call_ntklens(*TOY, cwd=copy)
    assert result.returncode == 0
    assert result.stdout.splitlines()[0] == "all 2 seeds are there already: nothing to compute"
    assert {name: (run / name).stat().st_mtime_ns for name in list_files(run)} == before


def test_the_figures_title_has_what_was_typed(copy, monkeypatch):
    titles = []
    monkeypatch.setattr(run_summary, "draw_run", lambda _trajectories, title, _figure: titles.append(title))
    (find_run(copy) / "trajectory.png").unlink()
    assert call_ntklens(*TOY, "tracking=none", cwd=copy).returncode == 0
    (title,) = titles
    assert title.startswith(f"{find_run(copy).name}: 2 seeds (dataset=synthetic dataset.train_size=24 ")
    assert "tracking" not in title
    assert len(title) <= run_summary.MOST_TITLE


def test_double_precision_starts_from_the_same_function(finished, tmp_path):
    assert call_ntklens(*TOY, "precision=float64", "ensemble=1", cwd=tmp_path).returncode == 0
    single, double = (read_trajectory(find_run(f) / "seed=0" / "trajectory.nc") for f in (finished[0], tmp_path))
    assert double.trace.dtype == np.float64
    for name in ("trace", "test_loss", "effective_rank"):
        assert 1e-12 < abs(double[name][0] / single[name][0] - 1) < 1e-5


def test_only_missing_seeds_are_computed(copy):
    run = find_run(copy)
    before = (run / "seed=1" / "trajectory.nc").stat().st_mtime_ns
    result = call_ntklens(*TOY, "ensemble=3", cwd=copy)
    assert result.returncode == 0
    assert result.stdout.splitlines()[0] == "2 of 3 seeds are there already"
    assert (run / "seed=1" / "trajectory.nc").stat().st_mtime_ns == before
    assert ntklens.load(run).seed.values.tolist() == [0, 1, 2]


def test_a_rerun_packed_alike_is_equal_bit_for_bit(finished, tmp_path):
    folder, _ = finished
    assert call_ntklens(*TOY, cwd=tmp_path).returncode == 0
    first, second = (read_trajectory(find_run(f) / "seed=0" / "trajectory.nc") for f in (folder, tmp_path))
    for name in first.data_vars:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def test_packing_changes_speed_and_not_meaning(finished, tmp_path):
    folder, _ = finished
    assert call_ntklens(*TOY, "ensemble=1", "seed=1", cwd=tmp_path).returncode == 0
    first, second = (read_trajectory(find_run(f) / "seed=1" / "trajectory.nc") for f in (folder, tmp_path))
    early = first.epoch <= 10
    for name in ("train_loss", "test_loss", "trace", "logit_norm"):
        np.testing.assert_array_max_ulp(first[name].values[0], second[name].values[0], maxulp=4)
        np.testing.assert_allclose(first[name][early], second[name][early], rtol=1e-6, err_msg=name)
        np.testing.assert_allclose(first[name], second[name], rtol=5e-3, err_msg=name)


def test_a_chunked_ensemble_is_the_same_ensemble(finished, tmp_path, monkeypatch):
    """With so little memory that the members train in several chunks."""
    from ntklens.jobs import compute

    monkeypatch.setattr(compute, "choose_pack_size", lambda *_: 2)
    monkeypatch.chdir(tmp_path)
    from hydra import compose, initialize_config_dir

    from ntklens.config.schemas import find_config_directory, register_schemas

    register_schemas()
    with initialize_config_dir(version_base="1.3", config_dir=str(find_config_directory())):
        cfg = compose("config", overrides=[*TOY, "ensemble=3"])
    assert compute.compute_seeds(cfg, tmp_path / "run", [0, 1, 2], Stop(), Watcher()) == Outcome([], [], [])
    folder, _ = finished
    for seed in (0, 1):
        first = read_trajectory(find_run(folder) / f"seed={seed}" / "trajectory.nc")
        second = read_trajectory(tmp_path / "run" / f"seed={seed}" / "trajectory.nc")
        np.testing.assert_array_equal(first.train_loss, second.train_loss)
    third = read_trajectory(tmp_path / "run" / "seed=2" / "trajectory.nc")
    assert json.loads(third.attrs["packed_seeds"]) == [2]


def test_an_unreadable_result_is_set_aside_and_computed_again(copy):
    run = find_run(copy)
    path = run / "seed=0" / "trajectory.nc"
    path.write_bytes(path.read_bytes()[:1000])
    result = call_ntklens(*TOY, cwd=copy)
    assert result.returncode == 0
    assert "could not be read" in result.stderr
    assert read_trajectory(path).attrs["state"] == "done"
    assert len([name for name in os.listdir(path.parent) if "unreadable" in name]) == 1


def test_results_of_a_newer_schema_are_refused(copy):
    import h5py

    with h5py.File(find_run(copy) / "seed=0" / "trajectory.nc", "r+") as file:
        file.attrs["schema_version"] = SCHEMA_VERSION + 1
    before = list_files(copy)
    result = call_ntklens(*TOY, cwd=copy)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert "upgrade ntklens" in result.stderr
    assert list_files(copy) == before


@pytest.mark.parametrize("rate", ["50", "1e38"])  # late, and at the first update
def test_diverged_is_a_result(tmp_path, rate):
    words = (*TOY, "training.loss=mse", "optimizer=sgd", f"optimizer.learning_rate={rate}")
    result = call_ntklens(*words, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert "2 of 2 seeds diverged" in result.stdout
    trajectory = read_trajectory(find_run(tmp_path) / "seed=0" / "trajectory.nc")
    assert trajectory.attrs["state"] == "diverged"
    assert json.loads((find_run(tmp_path) / "seed=0" / "status.json").read_text())["state"] == "diverged"
    assert np.isfinite(trajectory.train_loss).all()
    assert call_ntklens(*words, cwd=tmp_path).stdout.startswith("all 2 seeds are there already")


@pytest.mark.slow
def test_dead_networks_are_counted(tmp_path):
    words = (*TOY, "model.depth=4", "model.width=1", "training.epochs=2")
    result = call_ntklens(*words, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "2 of 2 networks are dead" in result.stdout


def test_a_failure_inside_a_run_says_why(tmp_path, monkeypatch, capsys):
    from hydra import compose, initialize_config_dir

    from ntklens.config.schemas import find_config_directory, register_schemas
    from ntklens.jobs import compute, pack

    def fail(*_args, **_kwargs):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes")

    monkeypatch.setattr(pack, "run_states", fail)
    register_schemas()
    with initialize_config_dir(version_base="1.3", config_dir=str(find_config_directory())):
        cfg = compose("config", overrides=list(TOY))
    assert compute.compute_seeds(cfg, tmp_path / "run", [0, 1], Stop(), Watcher()).failed == [0, 1]
    status = json.loads((tmp_path / "run" / "seed=1" / "status.json").read_text())
    assert status["state"] == "failed"
    assert "lower model.width" in status["error"]
    assert "Traceback" in status["traceback"]
    assert "lower model.width" in capsys.readouterr().err


@pytest.mark.slow
def test_a_full_disk_interrupts_and_says_so(tmp_path):
    """As far as a limit on the size of files stands for a full disk."""
    command = f"ulimit -f 10; exec {sys.executable} -m ntklens.run {' '.join(TOY)}"
    alone = {name: value for name, value in os.environ.items() if name not in ALONE}  # programs are large files, too
    environment = alone | {"NTKLENS_CACHE": str(tmp_path / "cache")}
    result = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 3  # unfinished, and no failure
    assert "File too large" in result.stderr.splitlines()[-1]
    run = find_run(tmp_path)
    seeds = ["seed=0", "seed=0/status.json", "seed=1", "seed=1/status.json"]
    assert list_files(run) == [".claims", "command.txt", "config.yaml", *seeds]
    assert json.loads((run / "seed=0" / "status.json").read_text())["state"] == "interrupted"
    assert run_ntklens(*TOY, cwd=tmp_path).returncode == 0


def test_a_status_that_lags_behind_its_trajectory_is_mended(copy):
    path = find_run(copy) / "seed=0" / "status.json"
    path.write_text('{"state": "running"}')
    assert call_ntklens(*TOY, cwd=copy).returncode == 0
    assert json.loads(path.read_text())["state"] == "done"


def test_a_file_damaged_inside_is_set_aside_and_the_next_launch_mends_it(copy):
    path = find_run(copy) / "seed=0" / "trajectory.nc"
    content = bytearray(path.read_bytes())
    place = content.find(np.float64(13).tobytes())
    content[place : place + 8] = np.float64(13.5).tobytes()
    path.write_bytes(content)
    result = call_ntklens(*TOY, cwd=copy)
    assert result.returncode == 1
    assert "damaged" in result.stderr
    assert call_ntklens(*TOY, cwd=copy).returncode == 0
    assert read_trajectory(path).attrs["state"] == "done"


@pytest.mark.slow
def test_ctrl_c_leaves_complete_files_only(tmp_path):
    words = (*TOY, "training.epochs=100000000", "ensemble=2")
    process = start_ntklens(*words, cwd=tmp_path)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("multirun/*/*/seed=1/status.json")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert len(errors.splitlines()) == 1
    run = find_run(tmp_path)
    seeds = ["seed=0", "seed=0/status.json", "seed=1", "seed=1/status.json"]
    left = [name for name in list_files(run) if "checkpoint" not in name]
    assert left == [".claims", "command.txt", "config.yaml", *seeds]
    assert json.loads((run / "seed=0" / "status.json").read_text())["state"] == "interrupted"


@pytest.mark.slow
def test_progress_is_shown_in_a_terminal(tmp_path):
    main, secondary = pty.openpty()
    command = [sys.executable, "-m", "ntklens.run", *TOY, "training.epochs=30000"]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(command, cwd=tmp_path, stdout=secondary, stderr=secondary, env=environment)
    os.close(secondary)
    shown = b""
    while True:
        try:
            chunk = os.read(main, 65536)
        except OSError:
            break
        if not chunk:
            break
        shown += chunk
    process.wait(timeout=60)
    os.close(main)
    assert process.returncode == 0
    assert b"updates/s" in shown
    assert b" loss " in shown
