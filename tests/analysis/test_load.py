import numpy as np
import pytest

import ntklens
from ntklens.errors import InputError
from ntklens.trajectory import publish_trajectory
from trajectories import make_trajectory


def write(sweep, run, seed, **arguments):
    trajectory = make_trajectory(seed=seed, **arguments)
    publish_trajectory(trajectory, sweep / run / f"seed={seed}")
    return trajectory


def describe(width, seed, **model):
    return {"model": {"width": width, **model}, "name": "s", "seed": seed, "ensemble": 1}


def test_a_sweep_becomes_one_dataset(tmp_path):
    written = {
        (width, seed): write(tmp_path, f"w{width}-key", seed, records=4 + seed, config=describe(width, seed))
        for width in (128, 16, 1024)
        for seed in (0, 2)
    }
    data = ntklens.load(tmp_path)
    assert dict(data.sizes) | {"level": 3} == {"run": 3, "seed": 2, "record": 6, "layer": 2, "level": 3, "mode": 4}
    assert data["model.width"].values.tolist() == [16, 128, 1024]
    assert data.run.values.tolist() == ["w16-key", "w128-key", "w1024-key"]
    for (width, seed), trajectory in written.items():
        own = data.isel(run=[16, 128, 1024].index(width)).sel(seed=seed)
        np.testing.assert_array_equal(own.trace[: 4 + seed], trajectory.trace)
        assert np.isnan(own.trace[4 + seed :]).all()
        np.testing.assert_array_equal(own.minimum_eigenvalues, trajectory.minimum_eigenvalues)
        np.testing.assert_array_equal(own.crossing_trace_layer, trajectory.crossing_trace_layer)


def test_missing_and_diverged_seeds_are_visible(tmp_path):
    write(tmp_path, "a", 0, config=describe(8, 0))
    write(tmp_path, "a", 1, config=describe(8, 1), state="diverged")
    write(tmp_path, "b", 0, config=describe(16, 0))
    data = ntklens.load(tmp_path)
    assert data.state.values.tolist() == [["done", "diverged"], ["done", "missing"]]
    assert np.isnan(data.trace.isel(run=1, seed=1)).all()


def test_layers_are_matched_by_name(tmp_path):
    write(tmp_path, "shallow", 0, layers=2, config=describe(8, 0, depth=1))
    deep = write(tmp_path, "deep", 0, layers=3, config=describe(8, 0, depth=2))
    data = ntklens.load(tmp_path)
    assert data["model.depth"].values.tolist() == [1, 2]
    assert np.isnan(data.trace_layer.sel(layer="hidden_1").isel(run=0)).all()
    own = data.isel(run=1, seed=0)
    for layer in deep.layer.values:
        np.testing.assert_array_equal(own.trace_layer.sel(layer=layer), deep.trace_layer.sel(layer=layer))


def test_one_run_and_one_seed_load_too(tmp_path):
    write(tmp_path, "a", 0)
    write(tmp_path, "a", 1)
    assert ntklens.load(tmp_path / "a").sizes["seed"] == 2
    assert ntklens.load(str(tmp_path / "a" / "seed=1")).seed.values.tolist() == [1]


def test_nothing_there(tmp_path):
    with pytest.raises(InputError, match=r"no trajectory\.nc below it"):
        ntklens.load(tmp_path)


def test_what_is_being_written_is_not_loaded(tmp_path):
    write(tmp_path, "a", 0)
    attempt = tmp_path / "a" / "seed=1" / "attempt-00"
    attempt.mkdir(parents=True)
    (attempt / "trajectory.nc").write_bytes(b"half")
    assert ntklens.load(tmp_path).seed.values.tolist() == [0]


def test_settings_that_change_no_result_are_no_axes(tmp_path):
    for run, limit, batch in (("a", 1.0, None), ("b", None, 10)):
        config = {"model": {"width": 8}, "ntk": {"memory_limit": limit}, "training": {"batch_size": batch}}
        write(tmp_path, run, 0, config=config)
    data = ntklens.load(tmp_path)
    assert "ntk.memory_limit" not in data.coords
    assert sorted(data["training.batch_size"].values.tolist(), key=str) == [10.0, pytest.approx(np.nan, nan_ok=True)]
