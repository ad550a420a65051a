"""The examples run as they are written, and a report shows their trajectories."""

import runpy
from pathlib import Path

import jax
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

import ntklens
from commands import call_ntklens

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
LOOPS = {"own_loop_optax": [16, 64], "own_loop_flax_nnx": [32]}


@pytest.fixture
def run_example(tmp_path, monkeypatch):
    """Run an example in an empty folder as a person does, and return what it defines; its picture must be there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "")  # an example may set it
    monkeypatch.syspath_prepend(tmp_path)  # and prepend to sys.path
    mpl.use("agg")

    def run(name):
        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            found = runpy.run_path(str(EXAMPLES / f"{name}.py"))
        plt.close("all")
        picture = plt.imread(tmp_path / f"{name}.png")
        assert picture[..., :3].std() > 0.01
        return found

    return run


@pytest.mark.slow
@pytest.mark.parametrize(("name", "widths"), LOOPS.items())
def test_a_loop_of_ones_own(name, widths, tmp_path, run_example):
    run_example(name)
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


def test_kernel_by_layer(run_example, capsys):
    found = run_example("kernel_by_layer")
    assert list(found["shares"]) == ["Conv_0", "Conv_1", "Dense_0"]
    assert found["theta"].shape == (40, 10, 40, 10)
    printed = capsys.readouterr().out
    assert all(layer in printed for layer in found["shares"])


@pytest.mark.slow
def test_infinite_width(run_example):
    assert -0.6 < run_example("infinite_width")["slope"] < -0.4


@pytest.mark.slow
def test_width_sweep(run_example, tmp_path):
    found = run_example("width_sweep")
    assert found["data"].sizes["run"] == 4
    assert (tmp_path / "multirun" / "width_sweep" / "report" / "report.html").is_file()
    exponents = {law.observable: law.fits["power"].exponent for law in found["study"].laws}
    assert exponents["initial_trace"].low > 0


@pytest.mark.slow
@pytest.mark.release
def test_mup_against_standard(run_example):
    """What it is made to show: Tr Θ_0 grows with the width under `standard` alone, and β falls there alone."""
    found = run_example("mup_against_standard")
    data, observables = found["data"], found["observables"].mean("seed")
    names, width = data["model.parameterization"].values, data["model.width"].values

    def change(quantity, name):
        wide, narrow = (np.flatnonzero((names == name) & (width == value))[0] for value in (256, 32))
        return float(observables[quantity][wide] / observables[quantity][narrow])

    assert change("initial_trace", "standard") > 1.5 * change("initial_trace", "mup")
    assert change("trace_ratio", "standard") < 0.9 * change("trace_ratio", "mup")


@pytest.mark.slow
def test_kernel_regression(run_example):
    """The kernel that was learned predicts better than the one at the start."""
    start, minimum, network = run_example("kernel_regression")["rows"].mean(axis=2).T
    assert (minimum < start).all()
    assert (network[1:] < start[1:]).all()


@pytest.mark.slow
def test_own_cnn(run_example):
    data = run_example("own_cnn")["data"]
    assert data["model.channels"].values.tolist() == [4, 16]
    assert (data["state"] == "done").all()
    assert (data["minimum_test_loss"] < 0.9 * np.log(4)).all()
    assert {"Conv_0", "Dense_0"} == set(data["layer"].values)


def test_each_example_has_its_test_and_its_picture():
    """A test above by its name, and docs/figures/examples/<name>.png, which docs/figures/gallery.py makes."""
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    assert names == names.intersection(name.removeprefix("test_") for name in globals()) | LOOPS.keys()
    pictures = {path.stem for path in (EXAMPLES.parent / "docs" / "figures" / "examples").glob("*.png")}
    assert pictures == names
