import copy
import errno
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import xarray as xr

import ntklens
from ntklens.config.identity import SCHEMA_VERSION
from ntklens.errors import InputError
from ntklens.store import combined, stack
from ntklens.store.trajectory import publish_trajectory
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


def test_trajectories_of_an_earlier_release_load(tmp_path):
    """They lack what is recorded since: NaN beside one that has it, absent where none has it."""
    since = ["logit_norm", "minimum_logit_norm", "crossing_logit_norm", "eigenvalues"]
    earlier = make_trajectory(seed=0, config=describe(8, 0)).drop_vars(since)
    publish_trajectory(earlier, tmp_path / "a" / "seed=0")
    alone = ntklens.load(tmp_path)
    assert not set(since) & set(alone.data_vars)
    assert np.isfinite(ntklens.measure_observables(alone).initial_trace).all()
    later = write(tmp_path, "b", 0, config=describe(16, 0))
    both = ntklens.load(tmp_path)
    for name in since:
        assert np.isnan(both[name].sel(run="a")).all()
        np.testing.assert_array_equal(both[name].sel(run="b", seed=0), later[name])


def test_an_option_that_an_earlier_release_had_not_is_not_taken_for_swept(tmp_path, monkeypatch):
    monkeypatch.setattr(stack, "list_neutral", lambda: {"model.output_scale": 1.0})
    write(tmp_path, "a", 0, config=describe(8, 0))
    write(tmp_path, "b", 0, config=describe(16, 0, output_scale=1.0))
    assert "model.output_scale" not in ntklens.load(tmp_path).coords
    write(tmp_path, "c", 0, config=describe(16, 0, output_scale=2.0))
    assert ntklens.load(tmp_path)["model.output_scale"].values.tolist() == [1, 1, 2]


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


def test_a_file_loads_as_its_folder_does(tmp_path):
    write(tmp_path, "a", 0)
    write(tmp_path, "a", 1)
    assert ntklens.load(tmp_path / "a" / "seed=1" / "trajectory.nc").seed.values.tolist() == [1]
    both = [tmp_path / "a" / f"seed={seed}" / "trajectory.nc" for seed in (0, 1)]
    assert ntklens.load(both).seed.values.tolist() == [0, 1]


def test_a_name_alone_is_answered_with_the_folder_it_means(tmp_path, monkeypatch):
    write(tmp_path / "multirun" / "digits", "a", 0)
    (tmp_path / "multirun" / "digit").mkdir()  # holds nothing
    monkeypatch.chdir(tmp_path)
    for name in ("digits", "digit", "multirun/digts"):
        with pytest.raises(InputError, match=rf"does not exist in {tmp_path}; did you mean multirun/digits\?$"):
            ntklens.load(name)
    with pytest.raises(InputError, match=rf"other: does not exist in {tmp_path}$"):
        ntklens.load("other")
    with pytest.raises(InputError, match=r"other: does not exist$"):  # an absolute path says where it is
        ntklens.load(tmp_path / "other")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(InputError, match=r"notes\.txt: is no trajectory\.nc$"):
        ntklens.load("notes.txt")


def test_the_sweeps_are_named(tmp_path):
    for sweep in ("first", "second"):
        write(tmp_path / sweep, "a", 0)
    assert json.loads(ntklens.load(tmp_path / "first").attrs["sweeps"]) == ["first"]
    assert json.loads(ntklens.load(tmp_path / "first" / "a").attrs["sweeps"]) == ["first"]
    assert json.loads(ntklens.load(tmp_path).attrs["sweeps"]) == ["first", "second"]


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


def test_attributes_become_variables_and_provenance(tmp_path):
    attributes = {"constant_output": True, "N": 128, "parameters": 26122, "run_key": "abc", "packages": {"jax": "1"}}
    write(tmp_path, "a", 0, attributes=attributes | {"host": "x"}, config={"precision": "float32"})
    write(tmp_path, "a", 1, attributes=attributes | {"host": "w", "diverged_step": 7}, config={"precision": "float32"})
    data = ntklens.load(tmp_path)
    assert data.constant_output.values.tolist() == [[1, 1]]
    np.testing.assert_array_equal(data.diverged_step, [[np.nan, 7]])
    assert np.isnan(data.C).all()
    assert data.key.values.tolist() == ["abc"]
    assert json.loads(data.config.item()) == {"precision": "float32"}
    assert json.loads(data.attrs["provenance"]) == {
        "host": ["w", "x"], "packages": [{"jax": "1"}], "precision": ["float32"], "schema_version": [SCHEMA_VERSION],
    }  # fmt: skip


def write_ragged(sweep):
    """Runs and seeds that differ in everything that may differ, and a variable that only a newer ntklens knows."""
    for number, width in enumerate((64, 8, 16)):
        for seed in (0, 1, 5)[: 3 - number]:
            trajectory = make_trajectory(
                seed=seed, records=4 + seed, layers=2 + number, modes=3 + width // 8, config=describe(width, seed)
            )
            trajectory.eigenvalues[1::2] = np.nan
            trajectory.crossing_eigenvalues[2] = np.nan
            if number == 1:
                novel = np.arange(trajectory.eigenvalues.size * 3.0).reshape(-1, 3, trajectory.sizes["mode"])
                novel[1, 1] = np.nan
                # In an order that is not that of the others' layers.
                trajectory = trajectory.assign(novel=(("record", "layer", "mode"), novel)).isel(layer=[2, 0, 1])
            publish_trajectory(trajectory, sweep / f"w{width}" / f"seed={seed}")


@pytest.fixture(scope="module")
def ragged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ragged") / "sweep"
    write_ragged(folder)
    return folder


@pytest.fixture(scope="module")
def loaded(ragged):
    return ntklens.load(ragged, cache=False)


@pytest.fixture
def plain(loaded):
    """What the trajectories of `sweep` hold, read from these alone."""
    return loaded.copy(deep=True)


@pytest.fixture
def sweep(ragged, tmp_path, monkeypatch):
    """A small sweep for which a combined file is kept all the same."""
    monkeypatch.setattr("ntklens.store.load.WORTHWHILE", 2)
    return shutil.copytree(ragged, tmp_path / "sweep")


@pytest.fixture(scope="module")
def combined_once(ragged, tmp_path_factory):
    folder = shutil.copytree(ragged, tmp_path_factory.mktemp("combined") / "sweep")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ntklens.store.load.WORTHWHILE", 2)
        ntklens.load(folder)
    return folder


@pytest.fixture
def combined_sweep(combined_once, tmp_path, monkeypatch):
    """The same, whose combined file is there: it is of these files, a copy keeps their dates."""
    monkeypatch.setattr("ntklens.store.load.WORTHWHILE", 2)
    return shutil.copytree(combined_once, tmp_path / "sweep")


def forbid_reading(monkeypatch):
    def fail(*_args, **_kwargs):
        raise AssertionError("a trajectory is read")

    monkeypatch.setattr(stack, "read_contents", fail)
    monkeypatch.setattr(combined, "read_variables", fail)


def is_lazy(variable):
    return not variable.variable._in_memory


def test_few_trajectories_need_no_combined_file(ragged):
    assert not is_lazy(ntklens.load(ragged).eigenvalues)
    assert not (ragged / "combined.nc").exists()


def test_a_few_large_trajectories_have_one(ragged, tmp_path, monkeypatch):
    monkeypatch.setattr("ntklens.store.load.MUCH", 1)
    folder = shutil.copytree(ragged, tmp_path / "sweep")
    assert is_lazy(ntklens.load(folder).eigenvalues)
    assert (folder / "combined.nc").exists()


def test_the_combined_file_holds_what_the_trajectories_hold(sweep, plain, monkeypatch):
    xr.testing.assert_identical(ntklens.load(sweep, cache=False), plain)
    assert not (sweep / "combined.nc").exists()
    assert plain.novel.notnull().any()
    first = ntklens.load(sweep)
    assert (sweep / "combined.nc").exists()
    forbid_reading(monkeypatch)
    second = ntklens.load(sweep)
    for data in (first, second):
        lazy = {name for name in data.data_vars if is_lazy(data[name])}
        assert lazy == {name for name in plain.data_vars if "mode" in plain[name].dims}
        assert list(data.variables) == list(plain.variables)
        assert {name: data[name].dtype for name in data.variables} == {n: plain[n].dtype for n in plain.variables}
        np.testing.assert_array_equal(data.eigenvalues[1, 0, ::-1, 2:4], plain.eigenvalues[1, 0, ::-1, 2:4])
        xr.testing.assert_identical(copy.deepcopy(data).load(), plain)
        xr.testing.assert_identical(pickle.loads(pickle.dumps(data)).load(), plain)
        xr.testing.assert_identical(data.load(), plain)


def test_the_combined_file_is_plain_netcdf(combined_sweep, plain):
    with xr.open_dataset(combined_sweep / "combined.nc", engine="h5netcdf") as file:
        xr.testing.assert_equal(file.drop_vars("contents").load(), plain)


def test_a_loaded_dataset_can_be_saved(combined_sweep, tmp_path):
    data = ntklens.load(combined_sweep)
    data.to_netcdf(tmp_path / "saved.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "saved.nc", engine="h5netcdf") as saved:
        xr.testing.assert_identical(saved.load(), data.load())


def test_a_dataset_that_is_never_released_lets_python_end(sweep):
    """HDF5 closes its files after Python's end; one that it reads through Python would crash the process."""
    code = (
        "import ctypes, ntklens; from ntklens.store import load; load.WORTHWHILE = 2; data = ntklens.load('.'); "
        "assert not data.eigenvalues.variable._in_memory; ctypes.pythonapi.Py_IncRef(ctypes.py_object(data))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=sweep, check=False).returncode == 0


def add(sweep):
    write(sweep, "w128", 0, config=describe(128, 0))


def replace(sweep):
    path = sweep / "w64" / "seed=0" / "trajectory.nc"
    status = path.stat()
    path.unlink()
    write(sweep, "w64", 0, records=4, modes=11, config=describe(64, 0))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


def remove(sweep):
    (sweep / "w64" / "seed=0" / "trajectory.nc").unlink()


@pytest.mark.parametrize("change", [add, replace, remove])
def test_a_changed_sweep_is_combined_anew_and_the_old_dataset_lives_on(combined_sweep, plain, change):
    held = ntklens.load(combined_sweep)
    assert is_lazy(held.eigenvalues)
    change(combined_sweep)
    xr.testing.assert_identical(ntklens.load(combined_sweep).load(), ntklens.load(combined_sweep, cache=False))
    xr.testing.assert_identical(held.load(), plain)


@pytest.mark.parametrize("keep", [0, 0.5, 0.99])
def test_a_truncated_combined_file_is_made_anew(combined_sweep, plain, keep):
    path = combined_sweep / "combined.nc"
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    xr.testing.assert_identical(ntklens.load(combined_sweep).load(), plain)


def test_a_combined_file_with_damaged_numbers_is_made_anew(combined_sweep, plain):
    path = combined_sweep / "combined.nc"
    content = path.read_bytes()
    step = plain.step.values.tobytes()
    assert step in content
    path.write_bytes(content.replace(step, (plain.step.values + 1).tobytes()))
    xr.testing.assert_identical(ntklens.load(combined_sweep).load(), plain)


def test_what_killed_writers_left_is_removed_after_an_hour(sweep):
    old, new = (sweep / f".combined-{name}.nc" for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 4000,) * 2)
    ntklens.load(sweep)
    assert sorted(os.listdir(sweep)) == [".combined-new.nc", "combined.nc", "w16", "w64", "w8"]


def test_a_folder_that_cannot_be_written_loads_too(sweep, plain, monkeypatch):
    open_file = combined.Stream

    def refuse(path, flags=os.O_RDONLY):
        if flags != os.O_RDONLY:
            raise OSError(errno.EROFS, "Read-only file system")
        return open_file(path, flags)

    monkeypatch.setattr(combined, "Stream", refuse)
    xr.testing.assert_identical(ntklens.load(sweep).load(), plain)
    assert not (sweep / "combined.nc").exists()


@pytest.mark.parametrize("size", [0, 20_000, 100_000])
def test_a_full_disk_is_no_failure(sweep, combined_once, plain, size):
    assert (combined_once / "combined.nc").stat().st_size > size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        data = ntklens.load(sweep)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    xr.testing.assert_identical(data.load(), plain)
    assert sorted(os.listdir(sweep)) == ["w16", "w64", "w8"]


def truncate(path):
    path.write_bytes(path.read_bytes()[:3000])


def damage_spectrum(path):
    """Damage that only shows where the eigenvalues are read."""
    import h5py

    with h5py.File(path) as file:
        place = file["minimum_eigenvalues"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[place] ^= 255
    path.write_bytes(content)


def make_newer(path):
    path.unlink()
    trajectory = make_trajectory(seed=1, config=describe(64, 1)).assign_attrs(schema_version=SCHEMA_VERSION + 1)
    publish_trajectory(trajectory, path.parent)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (truncate, "not a readable"),
        (damage_spectrum, "not a readable"),
        (make_newer, f"in schema {SCHEMA_VERSION + 1}"),
    ],
)
def test_unreadable_trajectories_are_named_and_left_out(sweep, monkeypatch, harm, reason):
    harm(sweep / "w64" / "seed=1" / "trajectory.nc")
    place = "w64/seed=1/trajectory.nc"
    with pytest.warns(UserWarning, match=rf"1 of 6 trajectories cannot be read and are left out: {place}: .*{reason}"):
        plain = ntklens.load(sweep, cache=False)
    (named,) = json.loads(plain.attrs["unreadable"])
    assert named["path"] == place
    assert reason in named["reason"]
    own = plain.sel(run="w64", seed=1)
    assert own.state == "unreadable"
    assert np.isnan(own.step).all()
    assert own.run.item() == "w64"
    with pytest.warns(UserWarning, match="1 of 6"):
        first = ntklens.load(sweep)
    forbid_reading(monkeypatch)
    with pytest.warns(UserWarning, match="1 of 6"):
        second = ntklens.load(sweep)
    for data in (first, second):
        xr.testing.assert_identical(data.load(), plain)


def test_what_passes_is_not_kept(sweep, monkeypatch):
    read = stack.read_contents

    def refuse(path, leave=None):
        if path.parent.name == "seed=1":
            path = path.with_name("elsewhere")
        return read(path, leave)

    monkeypatch.setattr(stack, "read_contents", refuse)
    with pytest.warns(UserWarning, match="2 of 6 .*No such file"):
        ntklens.load(sweep)
    monkeypatch.undo()
    assert not (sweep / "combined.nc").exists()
    assert json.loads(ntklens.load(sweep).attrs["unreadable"]) == []


def test_a_run_of_which_nothing_can_be_read_stands_last(tmp_path):
    for width in (64, 8, 16):
        write(tmp_path, f"w{width}", 0, config=describe(width, 0))
    truncate(tmp_path / "w8" / "seed=0" / "trajectory.nc")
    with pytest.warns(UserWarning, match="1 of 3"):
        data = ntklens.load(tmp_path)
    assert data.run.values.tolist() == ["w16", "w64", "w8"]
    np.testing.assert_array_equal(data["model.width"], [16, 64, np.nan])
    assert data.config.values[-1] == ""


def test_nothing_that_can_be_read(tmp_path):
    for seed in (0, 1):
        write(tmp_path, "a", seed)
        truncate(tmp_path / "a" / f"seed={seed}" / "trajectory.nc")
    with pytest.raises(
        InputError, match=r"seed=0/trajectory.nc: not a readable trajectory \(truncated.*; nor can 1 more"
    ):
        ntklens.load(tmp_path)
    with pytest.raises(InputError, match=r"seed=1/trajectory.nc: not a readable trajectory"):
        ntklens.load(tmp_path / "a" / "seed=1")


def test_several_sweeps_become_one_dataset(sweep, tmp_path):
    other = tmp_path / "other"
    for width, modes in ((64, 12), (256, 2)):
        write(other, f"w{width}", 2, modes=modes, records=9, config=describe(width, 2, bias=False))
    parts = [ntklens.load(folder, cache=False) for folder in (sweep, other)]
    plain = ntklens.load([sweep, str(other)], cache=False)
    lazy = ntklens.load((sweep, other))
    assert is_lazy(lazy.eigenvalues)
    assert not is_lazy(plain.eigenvalues)
    assert plain.run.values.tolist() == ["w8", "w16", "sweep/w64", "other/w64", "w256"]
    assert plain.sweep.values.tolist() == ["sweep"] * 3 + ["other"] * 2
    assert plain["model.width"].values.tolist() == [8, 16, 64, 64, 256]
    np.testing.assert_array_equal(plain["model.bias"], [np.nan] * 3 + [False] * 2)
    assert plain.state.sel(run="w256").values.tolist() == ["missing", "missing", "done", "missing"]
    for first, part in zip((0, 3), parts, strict=True):
        own = plain.isel(run=slice(first, first + part.sizes["run"]))
        for name in part.data_vars:
            sizes = {dim: slice(size) for dim, size in part.sizes.items() if dim in ("record", "mode")}
            values = own[name].sel(
                seed=part.seed.values, **({"layer": part.layer.values} if "layer" in own[name].dims else {})
            )
            np.testing.assert_array_equal(values.isel(sizes, missing_dims="ignore"), part[name])
            assert own[name].notnull().sum() == part[name].notnull().sum()
    index = {"run": [4, 0, 2], "seed": 2, "mode": slice(None, None, -2)}
    np.testing.assert_array_equal(lazy.eigenvalues.isel(index), plain.eigenvalues.isel(index))
    assert {name: plain[name].dtype for name in plain} == {name: lazy[name].dtype for name in lazy}
    xr.testing.assert_identical(lazy.load(), plain)
    both = ntklens.load(tmp_path, cache=False)
    assert [json.loads(one.attrs["sweeps"]) for one in (plain, both)] == [["sweep", "other"], ["other", "sweep"]]
    both.attrs["sweeps"] = plain.attrs["sweeps"]
    xr.testing.assert_identical(both.sortby("run"), plain.sortby("run"))


def test_a_linked_seed_is_found_once(tmp_path):
    write(tmp_path / "sweep", "a", 0)
    (tmp_path / "sweep" / "a" / "seed=1").symlink_to("seed=0")
    (tmp_path / "link").symlink_to("sweep")
    assert ntklens.load(tmp_path / "link").seed.values.tolist() == [0]


def test_sweeps_without_gaps_have_gaps_when_joined(tmp_path):
    for sweep, seed in (("x", 0), ("y", 1)):
        write(tmp_path / sweep, "a", seed, trace=np.ones(6, np.float32))
    data = ntklens.load([tmp_path / "x", tmp_path / "y"])
    assert data.run.values.tolist() == ["x/a", "y/a"]
    assert data.state.values.tolist() == [["done", "missing"], ["missing", "done"]]
    assert data.trace.dtype == np.float32


def test_no_path():
    with pytest.raises(InputError, match="no path"):
        ntklens.load([])
