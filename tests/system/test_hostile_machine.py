"""A disk that fills up, one that is read only, and everything at once; small disks need root."""

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from commands import ALONE, BROKEN, TOY, find_checkpoints, run_ntklens, start_ntklens
from ntklens.store.trajectory import read_trajectory
from ntklens.store.units import read_status

pytestmark = pytest.mark.system

NAME = "synthetic_width"
SWEEP = ("-m", "scaling=width", "model.width=3,5,8", *[word for word in TOY if "width" not in word])
LONG = (*SWEEP, "training.epochs=4000", "checkpoint.minutes=0.0005", "model._target_=broken_model.MLP")
FAKETIME = list(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))


def mount(*words):
    subprocess.run(["mount", *words], check=True)


@pytest.fixture
def disk(tmp_path):
    """A file system of 200 KB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount("-t", "tmpfs", "-o", "size=200k", "none", str(place))
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def find_results(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("trajectory.nc")}


def test_a_full_disk_loses_nothing(disk, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert run_ntklens(*SWEEP, "launch.workers=1", cwd=elsewhere, **ALONE).returncode == 0
    words = (*SWEEP, f"paths.results={disk}", "launch.workers=1")
    full = run_ntklens(*words, cwd=tmp_path, **ALONE)
    assert full.returncode != 0
    assert "No space left on device" in full.stderr + full.stdout
    assert "failed:" not in full.stderr
    assert "Traceback" not in full.stderr
    mount("-o", "remount,size=50m", str(disk))
    there = find_results(disk)
    result = run_ntklens(*words, cwd=tmp_path, **ALONE)
    assert result.returncode == 0, result.stderr
    files = list(disk.rglob("trajectory.nc"))
    assert len(files) == 6
    assert there.items() <= find_results(disk).items()
    for path in files:
        expected = read_trajectory(elsewhere / "multirun" / path.relative_to(disk))
        assert (expected.trace == read_trajectory(path).trace).all()


def test_a_full_disk_is_no_failure_of_a_single_run(disk, tmp_path):
    (disk / "filler").write_bytes(b"0" * 150_000)
    words = (*TOY, f"paths.results={disk}", "ensemble=4")
    full = run_ntklens(*words, cwd=tmp_path, **ALONE)
    assert full.returncode in (2, 3), full.stderr  # before anything was trained, or after
    assert "No space left on device" in full.stderr
    (disk / "filler").unlink()
    mount("-o", "remount,size=50m", str(disk))
    assert run_ntklens(*words, cwd=tmp_path, **ALONE).returncode == 0


def test_results_on_a_disk_that_is_read_only_are_results(disk, tmp_path):
    mount("-o", "remount,size=50m", str(disk))
    (tmp_path / "broken_model.py").write_text(BROKEN)
    words = (*LONG, f"paths.results={disk}")
    launch = start_ntklens(*words, "training.epochs=1000000", "name=going", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert run_ntklens(*words, cwd=tmp_path, PYTHONPATH=str(tmp_path)).returncode == 0
    seen = tmp_path / "seen"  # as another machine sees it
    seen.mkdir()
    mount("--bind", str(disk), str(seen))
    try:
        mount("-o", "remount,ro,bind", str(seen))
        deadline = time.monotonic() + 60
        while not list(disk.glob("going/*/seed=0/status.json")):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        status = run_ntklens("task=status", "name=going", f"paths.results={seen}", cwd=tmp_path)
        assert status.returncode == 3
        assert "a launch is at work" in status.stdout
        assert "interrupted" not in status.stdout
        assert " running" in status.stdout
        launch.terminate()
        launch.communicate(timeout=300)
        there = find_results(disk)
        again = run_ntklens(*LONG, f"paths.results={seen}", cwd=tmp_path, PYTHONPATH=str(tmp_path))
        assert again.returncode == 0, again.stderr
        assert "2/2" in again.stdout
        more = run_ntklens(*LONG, f"paths.results={seen}", "ensemble=3", cwd=tmp_path, PYTHONPATH=str(tmp_path))
        assert more.returncode == 2
        assert "cannot be written (Read-only file system" in more.stderr
        assert find_results(disk) == there
    finally:
        subprocess.run(["umount", "-l", seen], check=True)


@pytest.mark.skipif(not FAKETIME, reason="needs the Debian package faketime")
def test_everything_at_once(disk, tmp_path):
    """A small disk, two launches at a time, a failing width, a cut checkpoint, a read-only result, a clock set back."""
    (tmp_path / "broken_model.py").write_text(BROKEN)
    (tmp_path / "fail").touch()
    kept = tmp_path / "elsewhere"
    kept.mkdir()
    python = {"PYTHONPATH": str(tmp_path)}
    assert run_ntklens(*LONG, "launch.workers=1", cwd=kept, **python).returncode == 0
    mount("-o", "remount,size=700k", str(disk))
    words = (*LONG, f"paths.results={disk}", "launch.workers=1")

    def launch_two():
        launches = [start_ntklens(*words, cwd=tmp_path, **python) for _ in range(2)]
        outputs = [launch.communicate(timeout=900) for launch in launches]
        return [launch.returncode for launch in launches], "".join(map("".join, outputs))

    # Interrupted in the middle, both at the same moment; the disk may fill up on the way.
    launches = [start_ntklens(*words, cwd=tmp_path, **python) for _ in range(2)]
    deadline = time.monotonic() + 600
    while not find_checkpoints(disk) and any(launch.poll() is None for launch in launches):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    for launch in launches:
        launch.terminate()
        launch.communicate(timeout=300)
    cut = 0
    for notes in disk.rglob("checkpoint/*.json"):
        for path in notes.with_suffix("").rglob("*"):
            if path.is_file() and path.stat().st_size > 200:
                path.write_bytes(path.read_bytes()[:-7])
                cut += 1
    assert cut
    # The disk is full, in all but name.
    (disk / "filler").write_bytes(b"0" * max(0, shutil.disk_usage(disk).free - 20_000))
    statuses, output = launch_two()
    assert set(statuses) <= {1, 2, 3}, output
    assert "No space left on device" in output
    mount("-o", "remount,size=50m", str(disk))
    (disk / "filler").unlink()
    statuses, output = launch_two()  # room again: width 5 fails, the others end
    assert statuses == [1, 1], output
    assert "RuntimeError: no such luck" in output
    there = find_results(disk)
    assert len(there) == 4
    for path in there:
        path.chmod(0o444)
    (tmp_path / "fail").unlink()
    # The clock goes a day back, and what was failed is tried again.
    clock = {"LD_PRELOAD": str(FAKETIME[0]), "FAKETIME": "-1d", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    again = run_ntklens(*words, "retry=true", cwd=tmp_path, **python, **clock)
    assert again.returncode == 0, again.stderr
    assert "4 done, 2 to run" in again.stdout
    assert there.items() <= find_results(disk).items()
    failed = [read_status(path.parent) for path in find_results(disk) if path not in there]
    assert [status["state"] for status in failed] == ["done", "done"]
    assert all(status["time"] < read_status(path.parent)["time"] for status in failed for path in there)
    for path in find_results(disk):
        expected = read_trajectory(kept / "multirun" / path.relative_to(disk))
        first = (expected.epoch <= 100).values
        assert abs(read_trajectory(path).trace[first] / expected.trace[first] - 1).max() < 5e-3
