"""A disk that fills up in the middle of a sweep; mounting a small one needs root."""

import subprocess

import pytest

from commands import TOY, run_ntklens
from ntklens.trajectory import read_trajectory

pytestmark = pytest.mark.system

NAME = "synthetic_width"
SWEEP = ("-m", "scaling=width", "model.width=3,5,8", *[word for word in TOY if "width" not in word])


@pytest.fixture
def disk(tmp_path):
    """A file system of 200 KB."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "none", place], check=True)
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_loses_nothing(disk, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert run_ntklens(*SWEEP, "launch.workers=1", cwd=elsewhere).returncode == 0
    words = (*SWEEP, f"paths.results={disk}", "launch.workers=1")
    full = run_ntklens(*words, cwd=tmp_path)
    assert full.returncode != 0
    assert "No space left on device" in full.stderr + full.stdout
    assert "Traceback" not in full.stderr
    subprocess.run(["mount", "-o", "remount,size=50m", disk], check=True)
    there = {path: path.stat().st_mtime_ns for path in disk.rglob("trajectory.nc")}
    result = run_ntklens(*words, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    files = list(disk.rglob("trajectory.nc"))
    assert len(files) == 6
    assert all(path.stat().st_mtime_ns == then for path, then in there.items())
    for path in files:
        expected = read_trajectory(elsewhere / "multirun" / path.relative_to(disk))
        assert (expected.trace == read_trajectory(path).trace).all()
