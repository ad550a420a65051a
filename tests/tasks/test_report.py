"""task=report as a person types it."""

import csv
import doctest
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from commands import call_ntklens, list_files
from ntklens.analysis.sweeps import count_states
from ntklens.store.units import Unit
from ntklens.sweep.status import RunStatus, SweepStatus

SWEEP = ("-m", "scaling=width", "name=small", "model.width=4,8,16,32,64,128", "ensemble=4", "training.epochs=150")
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The sweep of docs/notebook.md, and its report."""
    folder = tmp_path_factory.mktemp("report") / "work"
    folder.mkdir()
    swept = call_ntklens(*SWEEP, cwd=folder)
    assert swept.returncode == 0, swept.stderr
    result = call_ntklens("task=report", "name=small", cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder, result.stdout


@pytest.fixture
def copy(finished, tmp_path):
    folder = tmp_path / "work"
    shutil.copytree(finished[0], folder, ignore=shutil.ignore_patterns("report"))
    return folder


def read_table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_the_report_is_whole_and_its_place_is_told(finished):
    folder, result = finished
    report = folder / "multirun" / "small" / "report"
    assert result.splitlines()[-1] == "report   multirun/small/report/report.html"
    for name in ("report.html", "observables.csv", "fits.csv", "claims.csv"):
        assert (report / name).stat().st_size > 100
    stems = {path.stem for path in (report / "figures").iterdir()}
    assert all((report / "figures" / f"{stem}.{kind}").exists() for stem in stems for kind in ("pdf", "png", "csv"))


@pytest.mark.slow
def test_tables_keep_the_contract(finished):
    report = finished[0] / "multirun" / "small" / "report"
    rows = read_table(report / "observables.csv")
    assert len(rows) == 24
    assert {row["model.width"] for row in rows} == {"4", "8", "16", "32", "64", "128"}
    for row in rows:
        status = report.parent / row["run"] / f"seed={row['seed']}" / "status.json"
        for name, value in json.loads(status.read_text())["observables"].items():
            assert float(row[name]) == pytest.approx(value, rel=1e-5), name
    fits = read_table(report / "fits.csv")
    power = next(row for row in fits if (row["observable"], row["form"]) == ("initial_trace", "power"))
    assert power["axis"] == "model.width"
    assert float(power["low"]) < float(power["exponent"]) < float(power["high"])
    assert power["n"] == "6"
    claims = read_table(report / "claims.csv")
    assert {"claim", "protocol", "value", "low", "high", "verdict", "range", "coverage", "conditions"} <= set(claims[0])
    assert {row["verdict"] for row in claims} == {"outside", "not swept"}  # digits are no data of the paper


@pytest.mark.slow
def test_the_documentation_is_true(finished, monkeypatch):
    """The example of docs/notebook.md, executed on the sweep that it names."""
    monkeypatch.chdir(finished[0])
    failed, tried = doctest.testfile(str(DOCS / "notebook.md"), module_relative=False, encoding="utf-8")
    assert tried > 8
    assert failed == 0


@pytest.mark.slow
def test_an_unfinished_sweep_with_a_truncated_file_is_reported_honestly(copy):
    runs = sorted((copy / "multirun" / "small").glob("*-w*"))
    shutil.rmtree(runs[0] / "seed=0")
    whole = (runs[1] / "seed=1" / "trajectory.nc").read_bytes()
    (runs[1] / "seed=1" / "trajectory.nc").write_bytes(whole[: len(whole) // 2])
    status = runs[2] / "seed=2"
    (status / "trajectory.nc").unlink()
    failed = {"state": "failed", "seed": 2, "error": "RuntimeError: no such luck"}
    (status / "status.json").write_text(json.dumps(failed))
    result = call_ntklens("task=report", "name=small", cwd=copy)
    assert result.returncode == 0, result.stderr
    assert "21 of 24 seeds done" in result.stdout
    assert "1 of 24 seeds failed (RuntimeError: no such luck)" in result.stdout
    assert "1 of 24 seeds is still to come" in result.stdout
    assert "1 file could not be read" in result.stdout
    assert f"{runs[1].name}/seed=1" in result.stdout
    page = (copy / "multirun" / "small" / "report" / "report.html").read_text(encoding="utf-8")
    assert "not complete" in page
    assert (
        len([row for row in read_table(copy / "multirun/small/report/observables.csv") if row["state"] == "done"]) == 21
    )


@pytest.mark.slow
def test_a_file_of_a_newer_ntklens_is_left_out_and_named(copy):
    import h5py

    path = min((copy / "multirun" / "small").glob("*/seed=0/trajectory.nc"))
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = 99
    result = call_ntklens("task=report", "name=small", cwd=copy)
    assert result.returncode == 0, result.stderr
    assert "23 of 24 seeds done" in result.stdout
    assert "schema 99" in result.stdout


@pytest.mark.slow
def test_sweeps_side_by_side(copy):
    shutil.copytree(copy / "multirun" / "small", copy / "multirun" / "other")
    result = call_ntklens("task=report", "name=[small,other]", cwd=copy)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "report   multirun/small+other/report/report.html"
    assert len(read_table(copy / "multirun/small+other/report/observables.csv")) == 48


def test_bad_input_is_one_line_and_writes_nothing(tmp_path):
    empty = tmp_path / "work" / "multirun" / "empty"
    empty.mkdir(parents=True)
    (tmp_path / "work" / "multirun" / "other").mkdir()
    (tmp_path / "work" / "multirun" / "other" / "plan.json").write_text("{}")
    before = list_files(tmp_path / "work")
    cases = {
        "name=nosuch": "no sweep of this name in multirun; there is other",
        "name=empty": "no sweep of this name",
        "name=[a,b]": "no sweep of this name",
    }
    for word, expected in cases.items():
        result = call_ntklens("task=report", word, cwd=tmp_path / "work")
        assert result.returncode == 2, result.stdout
        assert expected in result.stderr
        assert len(result.stderr.splitlines()) == 1
    result = call_ntklens("name=[a,b]", cwd=tmp_path / "work")
    assert result.returncode == 2
    assert "several names are for task=report" in result.stderr
    assert list_files(tmp_path / "work") == before


@pytest.mark.slow
def test_a_report_needs_no_jax(tmp_path):
    """Login nodes: a report is read from files, and must not start a compiler or take a GPU."""
    code = "import sys, ntklens.tasks.report; print(*(m in sys.modules for m in ('jax', 'plotly', 'matplotlib')))"

    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert result.stdout.split() == ["False", "False", "False"]


def test_what_an_earlier_launch_of_the_name_left_is_counted():
    """The report loads the whole folder: its counts are of all that it shows, not of the latest launch alone."""
    data = xr.Dataset(
        {
            "state": (
                ("run", "seed"),
                np.array([["done", "done"], ["unreadable", "done"], ["diverged", "missing"]], object),
            )
        },
        coords={"run": ["a", "b", "c"], "seed": [0, 1]},
    )
    asked = [RunStatus("a", {}, [Unit(0, "done", {}), Unit(1, "done", {})]), RunStatus("b", {}, [Unit(0, "done", {})])]
    counts = count_states(data, [SweepStatus(Path("multirun/two"), "", asked, 1)])
    assert counts == {"done": 2, "unreadable": 1, "diverged": 1}
