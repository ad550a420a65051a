"""A run whose step a rule chooses: one step for all processes and launches, stored before training."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from commands import TOY
from ntklens.config.checks import validate
from ntklens.config.identity import name_run
from ntklens.config.schemas import find_config_directory, register_schemas
from ntklens.jobs import compute, pilot
from ntklens.jobs.compute import Outcome, compute_seeds
from ntklens.jobs.watcher import Watcher
from ntklens.signals import Stop
from ntklens.store.load import load
from ntklens.store.step import FILE_NAME, describe_choice, read_step, store_step
from ntklens.store.trajectory import read_trajectory
from ntklens.store.units import find_units
from ntklens.training import ensemble
from ntklens.training.resolution import DIVERGED, FOUND, NO_MINIMUM, UNSETTLED, Round

SEEDS = (0, 1, 2)


class Reader(Watcher):
    """Reads what a run says; asks for the end where a line has a fragment."""

    def __init__(self, stop, fragment=None):
        self.stop, self.fragment, self.lines = stop, fragment, []

    def say(self, text):
        self.lines.append(text)
        if self.fragment and self.fragment in text:
            self.stop.request()


def configure(*words, arm="resolved"):
    register_schemas()
    with initialize_config_dir(version_base="1.3", config_dir=str(find_config_directory())):
        cfg = compose("config", overrides=[f"protocol={arm}", *TOY, "tracking=none", *words])
    OmegaConf.resolve(cfg)
    validate(cfg)
    return cfg


def run(place, cfg, seeds=SEEDS, until=None):
    """Returns the run's directory, whether it came to its end, and what it said."""
    stop = Stop()
    reader = Reader(stop, until)
    folder = place / name_run(cfg)
    try:
        assert compute_seeds(cfg, folder, seeds, stop, reader) == Outcome([], [], [])
    except KeyboardInterrupt:
        return folder, False, reader.lines
    return folder, True, reader.lines


def read_attributes(folder, seed):
    return read_trajectory(folder / f"seed={seed}" / "trajectory.nc").attrs


@pytest.fixture
def untouched(monkeypatch):
    """No pilot may run."""
    monkeypatch.setattr(pilot.Pilot, "find_start", lambda _self: pytest.fail("the step is there"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two seeds; how many programs of `advance` there were when training began, and at the end."""
    counts = []
    begin = compute.run_pack

    def count_and_begin(*args):
        counts.append(ensemble.advance._cache_size())
        begin(*args)

    ensemble.advance.clear_cache()  # a test before may have trained the same network, in packs of another size
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compute, "run_pack", count_and_begin)
        folder, ended, lines = run(tmp_path_factory.mktemp("resolved"), configure(), seeds=(0, 1))
    counts.append(ensemble.advance._cache_size())
    assert ended
    return folder, lines, counts


def test_the_step_is_stored_once_and_in_every_trajectory(finished):
    folder, lines, _ = finished
    stored = read_step(folder)
    assert stored["rule"] == "resolved 1"
    assert stored["status"] in (FOUND, UNSETTLED, NO_MINIMUM)
    assert 1 <= len(stored["rounds"]) <= 3
    assert stored["start"] == {"method": "width", "learning_rate": pytest.approx(3.4e-3 * 6 ** (-2 / 3) * 0.24**0.3)}
    for seed in (0, 1):
        attrs = read_attributes(folder, seed)
        assert attrs["learning_rate"] == stored["learning_rate"]
        assert json.loads(attrs["pilot"]) == stored
        assert json.loads(attrs["config"])["optimizer"]["learning_rate"] is None
    assert any(f"step {stored['learning_rate']:.4g}" in line for line in lines)
    assert np.all(load(folder.parent)["learning_rate"] == stored["learning_rate"])


def test_the_pilot_runs_the_program_of_the_run(finished):
    *_, counts = finished
    assert counts == [1, 1]  # none is compiled beside the pilot's


def test_seeds_that_come_later_take_the_step_that_is_there(finished, untouched):
    folder, _, _ = finished
    _, ended, lines = run(folder.parent, configure(), seeds=(2,))
    assert ended
    assert not any("round" in line for line in lines)
    assert read_attributes(folder, 2)["learning_rate"] == read_step(folder)["learning_rate"]


def test_the_step_divided_belongs_to_the_same_pilot(finished, untouched):
    folder, _, _ = finished
    third, ended, _ = run(folder.parent, configure("protocol.step_divisor=3"), seeds=(0,))
    assert ended
    assert third != folder
    assert read_attributes(third, 0)["learning_rate"] == read_step(folder)["learning_rate"] / 3


def test_whichever_of_both_comes_first_chooses_for_both(finished, tmp_path):
    folder, _, _ = finished
    third, ended, _ = run(tmp_path, configure("protocol.step_divisor=3"), seeds=(0,))
    assert ended
    whole = read_step(tmp_path / folder.name)
    assert read_step(third)["learning_rate"] == whole["learning_rate"] / 3
    assert whole["learning_rate"] == read_step(folder)["learning_rate"]


@pytest.mark.parametrize("until", ["pilot, round", "(pilot: "])
def test_a_run_that_ends_in_its_pilot_or_right_behind_it_comes_to_the_same(finished, tmp_path, until):
    folder, _, _ = finished
    again, ended, _ = run(tmp_path, configure(), seeds=(0, 1), until=until)
    assert not ended
    assert (again / FILE_NAME).exists() == (until == "(pilot: ")
    assert {unit.state for unit in find_units(again, (0, 1))} == {"interrupted"}
    assert run(tmp_path, configure(), seeds=(0, 1))[1]
    for name in ("learning_rate", "status", "rounds"):
        assert read_step(again)[name] == read_step(folder)[name]
    for seed in (0, 1):
        one, other = (read_trajectory(f / f"seed={seed}" / "trajectory.nc") for f in (again, folder))
        assert one.equals(other)


def test_a_step_of_other_data_is_chosen_anew(tmp_path):
    there = {"learning_rate": 0.5, "data_checksum": "other"}
    store_step(tmp_path, there)
    assert read_step(tmp_path, "mine") == {}
    mine = {"learning_rate": 0.25, "data_checksum": "mine"}
    assert store_step(tmp_path, mine) == mine == read_step(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"learning_rate": "x"}', '{"learning_rate": -1}'])
def test_a_damaged_step_is_chosen_anew(tmp_path, text):
    (tmp_path / FILE_NAME).write_text(text)
    assert read_step(tmp_path) == {}
    mine = {"learning_rate": 0.25, "data_checksum": "mine"}
    assert store_step(tmp_path, mine) == mine == read_step(tmp_path)


def test_of_two_processes_that_choose_at_once_the_first_decides(tmp_path):
    code = """
import sys, time
from pathlib import Path
from ntklens.store.step import store_step
run, number = Path(sys.argv[1]), int(sys.argv[2])
(run / f"ready-{number}").touch()
while len(list(run.glob("ready-*"))) < 2:
    time.sleep(0.001)
print([store_step(run / str(turn), {"learning_rate": number, "data_checksum": ""})["learning_rate"]
       for turn in range(100)])
"""
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(number)], stdout=subprocess.PIPE, text=True)
        for number in (1, 2)
    ]
    first, second = (process.communicate(timeout=60)[0] for process in started)
    assert first == second != ""
    assert not list(tmp_path.rglob(".*"))


@pytest.mark.slow
def test_gradient_descent_starts_from_the_curvature(tmp_path):
    words = ("optimizer=momentum", "optimizer.momentum=0.5", "training.epochs=5")
    auto, ended, _ = run(tmp_path, configure(*words, "optimizer.learning_rate=auto", arm="paper"), seeds=(0,))
    assert ended
    stored = read_step(auto)
    assert stored["rule"] == "auto 1"
    assert stored["rounds"] == []
    assert stored["learning_rate"] == pytest.approx(0.1 * 0.5 / stored["start"]["sharpness"])
    resolved, ended, _ = run(tmp_path, configure(*words, "training.loss=mse"), seeds=(0,))
    assert ended
    stored = read_step(resolved)
    assert stored["start"]["learning_rate"] == pytest.approx(0.7 * 0.5 / stored["start"]["sharpness"])
    assert all(one["learning_rate"] <= 0.5 / stored["start"]["sharpness"] for one in stored["rounds"])


def test_any_other_optimizer_starts_from_its_first_update(tmp_path):
    folder, ended, _ = run(tmp_path, configure("optimizer=lion", "training.epochs=5"), seeds=(0,))
    assert ended
    stored = read_step(folder)
    assert stored["start"]["method"] == "descent"
    assert stored["start"]["learning_rate"] == pytest.approx(
        0.0075 * stored["start"]["loss"] / stored["start"]["slope"]
    )
    assert stored["status"] != DIVERGED


def test_rounds_that_diverged_or_came_late_are_called_so():
    rounds = [
        Round(rate, end, near, near, 640)._asdict()
        for rate, end, near in ((0.5, "diverged", 1), (0.125, "late", 408), (0.25, "found", 32))
    ]
    text = describe_choice({"status": UNSETTLED, "rounds": rounds, "step_divisor": 3})
    assert text == f"pilot: {UNSETTLED}; diverged at 0.5, n1 = 408 at 0.125 (late), n1 = 32 at 0.25, divided by 3"
