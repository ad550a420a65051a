"""SIGKILL in a pilot, right behind it, and two launches at once: one step for all, and the undisturbed run's result."""

import json
import re
import signal
import time

import pytest

from commands import TOY, run_ntklens, start_ntklens
from ntklens.store.step import FILE_NAME
from ntklens.store.trajectory import read_trajectory

LINE = (*TOY, "protocol=resolved", "training.epochs=2000", "tracking=none", "name=killed", "checkpoint.minutes=0.0005")
LIMIT = 120.0  # seconds that a moment is waited for


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "here"
    folder.mkdir()
    result = run_ntklens(*LINE, cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder


def find_step_files(folder):
    return list(folder.glob(f"multirun/killed/*/*{FILE_NAME}*"))  # also what a writer left


def find_place(folder):
    """Where the step lies, relative to the folder that a run was started in."""
    (path,) = find_step_files(folder)
    return path.relative_to(folder)


def kill_when(launch, is_time):
    """Kills the process as soon as a function of the files says so."""
    until = time.monotonic() + LIMIT
    while not is_time():
        assert launch.poll() is None, launch.communicate()
        assert time.monotonic() < until
        time.sleep(0.002)
    launch.send_signal(signal.SIGKILL)
    launch.communicate(timeout=60)


def compare(folder, undisturbed):
    """The step file and the trajectories are those of the run that nothing happened to."""
    (path,), (other,) = find_step_files(folder), find_step_files(undisturbed)
    assert path.name == other.name == FILE_NAME
    stored, expected = (json.loads(file.read_text()) for file in (path, other))
    for name in ("learning_rate", "status", "start", "rounds", "seed"):
        assert stored[name] == expected[name]
    for seed in (0, 1):
        one, reference = (read_trajectory(file.parent / f"seed={seed}" / "trajectory.nc") for file in (path, other))
        assert one.equals(reference)
        assert one.attrs["learning_rate"] == stored["learning_rate"]
        assert json.loads(one.attrs["pilot"]) == stored
    assert len(list(folder.rglob("trajectory.nc"))) == 2
    assert not [*folder.rglob("attempt-*"), *folder.rglob("checkpoint")]


@pytest.mark.slow
def test_killed_in_the_pilot_it_is_started_again(undisturbed, tmp_path):
    kill_when(start_ntklens(*LINE, cwd=tmp_path), lambda: list(tmp_path.rglob("status.json")))  # the pilot's first act
    assert not find_step_files(tmp_path)
    result = run_ntklens(*LINE, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    compare(tmp_path, undisturbed)


@pytest.mark.slow
def test_killed_behind_the_pilot_its_step_stays(undisturbed, tmp_path):
    kill_when(start_ntklens(*LINE, cwd=tmp_path), lambda: (tmp_path / find_place(undisturbed)).exists())
    (path,) = find_step_files(tmp_path)
    before = path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino
    assert not list(tmp_path.rglob("trajectory.nc"))
    result = run_ntklens(*LINE, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino) == before
    compare(tmp_path, undisturbed)


@pytest.mark.slow
def test_two_launches_at_once_have_one_step_and_one_result(undisturbed, tmp_path):
    launches = [start_ntklens(*LINE, cwd=tmp_path) for _ in range(2)]
    ends = [(launch.communicate(timeout=300), launch.returncode) for launch in launches]
    assert 0 in [status for _, status in ends], ends
    assert run_ntklens(*LINE, cwd=tmp_path).returncode == 0
    compare(tmp_path, undisturbed)
    (path,) = find_step_files(tmp_path)
    rate = json.loads(path.read_text())["learning_rate"]
    for (output, _), status in ends:
        assert status != 0 or re.findall(r"^step +(\S+) \(pilot", output, re.MULTILINE) == [f"{rate:.4g}"]
