"""The examples run as they are written, and a report shows their trajectories."""

import runpy
from pathlib import Path

import jax
import numpy as np
import pytest

import ntklens
from commands import call_ntklens

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "widths"), [("own_loop_optax", [16, 64]), ("own_loop_flax_nnx", [32])])
def test_a_loop_of_ones_own(name, widths, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with jax.numpy_rank_promotion("allow"):  # as people have it
        runpy.run_path(str(EXAMPLES / f"{name}.py"))
    data = ntklens.load(tmp_path / "multirun" / name)
    assert (data["state"] == "done").all()
    assert [int(run.split("width=")[1].split("-")[0]) for run in data["run"].values] == widths
    assert data["step"].values[0, 0, [0, -1]].tolist() == [0, 100]
    assert (data["minimum_effective_rank"] > 1).all()
    assert (data["train_loss"][..., -1] < 0.5 * data["train_loss"][..., 0]).all()
    spectra = np.isfinite(data["effective_rank"].values[0, 0])
    assert spectra[[0, -1]].all()
    assert 3 < spectra.sum() < spectra.size / 2
    report = call_ntklens("task=report", f"name={name}", cwd=tmp_path)
    assert report.returncode == 0, report.stderr
    page = (tmp_path / "multirun" / name / "report" / "report.html").read_text(encoding="utf-8")
    assert "recorded by ntklens.Recorder" in page
    assert all(run in page for run in data["run"].values)
