import multiprocessing
import os

import numpy as np
import pytest
import xarray as xr

from ntklens.config.identity import SCHEMA_VERSION
from ntklens.errors import InputError
from ntklens.recording.quantities import VARIABLES
from ntklens.recording.trajectory import build_trajectory
from ntklens.store.trajectory import (
    FILE_NAME,
    UnreadableTrajectory,
    encode_trajectory,
    publish_trajectory,
    read_state,
    read_trajectory,
)
from trajectories import make_trajectory, publish_made_up


def test_written_and_read_back_the_same(tmp_path):
    trajectory = make_trajectory(seed=3)
    assert publish_trajectory(trajectory, tmp_path)
    back = read_trajectory(tmp_path / FILE_NAME)
    xr.testing.assert_identical(back, trajectory)
    assert read_state(tmp_path / FILE_NAME) == "done"


def test_xarray_reads_the_same(tmp_path):
    publish_trajectory(make_trajectory(), tmp_path)
    with xr.open_dataset(tmp_path / FILE_NAME, engine="h5netcdf") as file:
        xr.testing.assert_identical(file.load(), read_trajectory(tmp_path / FILE_NAME))


def test_holds_every_documented_variable_with_and_without_prefix():
    trajectory = make_trajectory()
    for name, (dims, description) in VARIABLES.items():
        assert trajectory[name].dims == ("record", *dims)
        assert trajectory[f"minimum_{name}"].dims == dims
        assert trajectory[f"crossing_{name}"].dims == ("level", *dims)
        assert trajectory[name].attrs["long_name"] == description


def test_only_the_file_itself_is_left(tmp_path):
    publish_trajectory(make_trajectory(), tmp_path)
    assert os.listdir(tmp_path) == [FILE_NAME]


def test_the_first_to_publish_wins(tmp_path):
    first, second = make_trajectory(seed=1), make_trajectory(seed=2)
    assert publish_trajectory(first, tmp_path)
    assert not publish_trajectory(second, tmp_path)
    assert read_trajectory(tmp_path / FILE_NAME).attrs["seed"] == 1
    assert os.listdir(tmp_path) == [FILE_NAME]


def test_many_copies_at_once_leave_one_whole_file(tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["trajectories"])  # which imports once what all write with
    processes = [context.Process(target=publish_made_up, args=(tmp_path, seed)) for seed in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert os.listdir(tmp_path) == [FILE_NAME]
    read_trajectory(tmp_path / FILE_NAME)


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        publish_trajectory(make_trajectory(), tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("keep", [0, 100, 3000])
def test_a_truncated_file_is_said_to_be_unreadable(tmp_path, keep):
    publish_trajectory(make_trajectory(), tmp_path)
    path = tmp_path / FILE_NAME
    path.write_bytes(path.read_bytes()[:keep])
    assert read_state(path) is None
    with pytest.raises(InputError, match="not a readable trajectory"):
        read_trajectory(path)


def test_a_newer_schema_is_refused(tmp_path):
    trajectory = make_trajectory().assign_attrs(schema_version=SCHEMA_VERSION + 1)
    publish_trajectory(trajectory, tmp_path)
    for read in (read_trajectory, read_state):
        with pytest.raises(InputError, match=rf"schema {SCHEMA_VERSION + 1}, this ntklens reads up to"):
            read(tmp_path / FILE_NAME)


def test_nested_attributes_become_json():
    rows = {name: np.zeros((1, *[2] * len(dims))) for name, (dims, _) in VARIABLES.items()}
    minimum = {name: array[0] for name, array in rows.items()}
    crossings = {name: np.repeat(array, 3, axis=0) for name, array in rows.items()}
    trajectory = build_trajectory(rows, minimum, crossings, ["a", "b"], {"data": {"sizes": [1, 2]}, "flag": True})
    assert trajectory.attrs == {"schema_version": SCHEMA_VERSION, "data": '{"sizes": [1, 2]}', "flag": 1}


def test_damage_inside_the_data_is_noticed(tmp_path):
    publish_trajectory(make_trajectory(records=200), tmp_path)
    path = tmp_path / FILE_NAME
    content = bytearray(path.read_bytes())
    place = content.find(np.float64(150).tobytes())  # a value of `step`
    content[place : place + 8] = np.float64(151.5).tobytes()
    path.write_bytes(content)
    with pytest.raises(UnreadableTrajectory, match="not a readable trajectory"):
        read_trajectory(path)


def test_a_file_that_another_program_holds_is_read(tmp_path):
    import h5py

    publish_trajectory(make_trajectory(), tmp_path)
    with h5py.File(tmp_path / FILE_NAME, "r"):
        assert read_state(tmp_path / FILE_NAME) == "done"


def test_a_file_made_from_the_last_ones_structure_holds_its_own_numbers(tmp_path):
    first, second = make_trajectory(seed=0), make_trajectory(seed=1, state="diverged")
    other = make_trajectory(seed=2, records=9)
    encode_trajectory(first)  # whose structure the second takes
    for number, trajectory in enumerate((second, other, first)):
        (tmp_path / f"{number}.nc").write_bytes(encode_trajectory(trajectory))
        xr.testing.assert_identical(read_trajectory(tmp_path / f"{number}.nc"), trajectory)
        with xr.open_dataset(tmp_path / f"{number}.nc", engine="h5netcdf") as opened:  # by the library's own reader
            xr.testing.assert_equal(opened.load(), trajectory)
