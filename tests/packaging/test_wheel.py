"""The wheel holds every module and configuration file, and asks for nothing that only the reference kernel needs."""

import re
import subprocess
import sys
import tomllib
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    (path,) = folder.iterdir()
    with zipfile.ZipFile(path) as archive:
        yield archive


def read_requirement_name(requirement):
    return re.match(r"[\w.-]+", requirement).group().lower()


@pytest.fixture(scope="module")
def metadata(wheel):
    (path,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return HeaderParser().parsestr(wheel.read(path).decode())


def list_sources(folder, prefix):
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {prefix + path.relative_to(folder).as_posix() for path in files}


def test_wheel_holds_the_modules_and_the_configuration_and_nothing_else(wheel):
    expected = list_sources(ROOT / "src", "") | list_sources(ROOT / "conf", "ntklens/conf/")
    assert {"ntklens/run.py", "ntklens/conf/config.yaml"} <= expected
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == expected


def test_wheel_requires_what_pyproject_says_and_no_tensorflow(metadata):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = {read_requirement_name(line) for line in metadata.get_all("Requires-Dist")}
    assert required == {read_requirement_name(line) for line in project["dependencies"]}
    assert required.isdisjoint({"neural-tangents", "tensorflow", "tf2jax"})


def test_wheel_says_its_licence_and_its_pythons(wheel, metadata):
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.11"
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel.namelist())
