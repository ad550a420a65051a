"""What a user types on a machine that has Python and make, and nothing of ours: a fresh copy, an installed wheel."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """An empty home and the plainest PATH; of ours only where pip finds packages."""
    pip = {name: value for name, value in os.environ.items() if re.match(r"PIP_|https?_proxy$", name, re.IGNORECASE)}
    return {**pip, "HOME": str(tmp_path_factory.mktemp("home")), "PATH": f"/usr/bin:/bin:{PYTHON.parent}"}


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """What git would hand to a colleague: no ignored file."""
    folder = tmp_path_factory.mktemp("ntklens")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(lambda name: (ROOT / name).is_file(), names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    return folder


def run(command, folder, environment):
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_make_run_on_a_fresh_copy(copy, environment):
    run(["make", "run", f"PYTHON={PYTHON}"], copy, environment)
    assert list(copy.glob("multirun/*/*/seed=*/trajectory.nc"))
    assert "Nothing to be done" in run(["make", "setup"], copy, environment)
    installed = {path.name.split("-")[0].lower() for path in copy.glob(".venv/lib/*/site-packages/*.dist-info")}
    assert "jaxlib" in installed
    assert installed.isdisjoint({"tensorflow", "tf2jax"})


def test_installed_wheel_runs_from_any_folder(copy, environment, tmp_path):
    """Its own metadata must ask for all that it imports; the lock only chooses the versions."""
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, copy]
    run(build, tmp_path, environment)
    (wheel,) = tmp_path.glob("*.whl")
    constraints = tmp_path / "constraints.txt"
    lock = (ROOT / "requirements.lock").read_text()
    constraints.write_text("\n".join(re.findall(r"^(\w\S*==.*?) \\$", lock, re.MULTILINE)))

    run([PYTHON, "-m", "venv", "venv"], tmp_path, environment)
    run(
        ["venv/bin/pip", "install", "--quiet", "--no-compile", "--constraint", constraints, wheel],
        tmp_path,
        environment,
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    run([tmp_path / "venv/bin/ntklens", "training.epochs=5", "ensemble=2"], elsewhere, environment)
    assert len(list(elsewhere.glob("multirun/*/*/seed=*/trajectory.nc"))) == 2
