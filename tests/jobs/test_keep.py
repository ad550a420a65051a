"""Θ and the parameters at a run's snapshots, on request: right, whole after a kill, and outside a result's identity."""

import functools

import jax
import numpy as np
import pytest
from hydra import compose, initialize_config_dir

import ntklens
from commands import TOY, call_ntklens
from ntklens.config.checks import validate
from ntklens.config.schemas import find_config_directory, register_schemas
from ntklens.errors import InputError
from ntklens.jobs import pack
from ntklens.jobs.build import build_trainer
from ntklens.jobs.compute import Outcome, compute_seeds
from ntklens.jobs.datasets import load_dataset
from ntklens.jobs.watcher import Watcher
from ntklens.signals import Stop
from ntklens.training import ensemble
from references import compute_layer_kernels

WORDS = (*TOY, "training.epochs=60", "optimizer.learning_rate=0.02", "checkpoint.minutes=0.003")
KEEP = "keep=[kernel,parameters]"


class Interrupter(Watcher):
    """Asks for the end after a number of updates."""

    def __init__(self, stop, after):
        self.stop, self.after, self.done = stop, after, 0

    def advance(self, count, note):
        self.done += count
        if self.done >= self.after:
            self.stop.request()


def configure(*words):
    register_schemas()
    with initialize_config_dir(version_base="1.3", config_dir=str(find_config_directory())):
        return compose("config", overrides=[*WORDS, *words])


def run(folder, *words, after=10**9):
    """Whether it came to its end."""
    stop = Stop()
    try:
        assert compute_seeds(configure(*words), folder, (0, 1), stop, Interrupter(stop, after)) == Outcome([], [], [])
    except KeyboardInterrupt:
        return False
    return True


def interrupt_anywhere(monkeypatch):
    monkeypatch.setattr(ensemble, "PIECE_SECONDS", 1e-9)  # one update at a time: an end may come at any
    monkeypatch.setattr(pack, "WORTH_SECONDS", 0.0)  # and what was done by then is saved


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keep") / "run"
    assert run(folder, KEEP)
    return folder


def test_each_snapshot_holds_the_kernel_and_the_parameters_it_is_of(kept):
    cfg = configure(KEEP)
    dataset = load_dataset(cfg)
    trainer = build_trainer(cfg, dataset)
    for seed in (0, 1):
        directory = kept / f"seed={seed}"
        snapshots, own = ntklens.load_snapshots(directory), ntklens.load(directory).isel(run=0, seed=0)
        assert next(iter(snapshots)) == "start"
        assert set(snapshots) >= {"start", "minimum", "crossing_1"}
        assert [s.step for s in snapshots.values()] == sorted(s.step for s in snapshots.values())
        assert snapshots["minimum"].step == own.minimum_step
        assert snapshots["crossing_1"].step == own.crossing_step.sel(level=1.0)
        for name, trace in (("start", own.trace[0]), ("minimum", own.minimum_trace)):
            snapshot = snapshots[name]
            assert np.einsum("icic->", snapshot.kernel) == pytest.approx(float(trace), rel=1e-4)
            expected = sum(compute_layer_kernels(trainer.apply, snapshot.parameters, dataset.probe.inputs).values())
            np.testing.assert_allclose(snapshot.kernel, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
        assert jax.tree.structure(snapshot.parameters) == jax.tree.structure(trainer.init(jax.random.key(0)))


def test_a_continued_run_keeps_what_an_uninterrupted_one_does(kept, tmp_path, monkeypatch):
    interrupt_anywhere(monkeypatch)
    attempts = 1
    while not run(tmp_path / "run", KEEP, after=25):
        attempts += 1
    assert attempts > 2
    for seed in (0, 1):
        whole, parts = (ntklens.load_snapshots(folder / f"seed={seed}") for folder in (kept, tmp_path / "run"))
        assert list(whole) == list(parts)
        for name, snapshot in whole.items():
            assert parts[name].step == snapshot.step
            np.testing.assert_array_equal(parts[name].kernel, snapshot.kernel)
            jax.tree.map(np.testing.assert_array_equal, parts[name].parameters, snapshot.parameters)


def test_a_run_that_is_asked_halfway_keeps_its_start_and_says_what_it_cannot(kept, tmp_path, monkeypatch, capsys):
    interrupt_anywhere(monkeypatch)
    assert not run(tmp_path / "run", after=55)
    assert run(tmp_path / "run", KEEP)
    snapshots, whole = (ntklens.load_snapshots(folder / "seed=0") for folder in (tmp_path / "run", kept))
    np.testing.assert_array_equal(snapshots["start"].kernel, whole["start"].kernel)
    assert "minimum" in snapshots
    passed = set(whole) - set(snapshots)
    printed = capsys.readouterr().err
    assert passed
    assert all(f"seed 0 passed {name}" in printed or f", {name}" in printed for name in passed)


def test_one_of_both_and_neither(tmp_path):
    assert run(tmp_path / "one", "keep=[parameters]")
    snapshots = ntklens.load_snapshots(tmp_path / "one" / "seed=0" / "trajectory.nc")
    assert all(s.kernel is None and s.parameters is not None for s in snapshots.values())
    assert run(tmp_path / "none")
    assert not (tmp_path / "none" / "seed=0" / "snapshots").exists()
    with pytest.raises(InputError, match=r"no snapshots; .*keep=\[kernel,parameters\]"):
        ntklens.load_snapshots(tmp_path / "none" / "seed=0")
    wanted = r"must list none, one or both of kernel, parameters, as in keep=\[kernel,parameters\]$"
    with pytest.raises(InputError, match=rf"^keep=\[theta,kernel\]: {wanted}"):
        validate(configure("keep=[theta,kernel]"))


def test_finished_seeds_without_it_are_refused_with_what_resolves_it(tmp_path):
    words = (*TOY, "tracking=none", "name=toy")
    launch = functools.partial(call_ntklens, cwd=tmp_path)
    assert launch(*words).returncode == 0
    (before,) = {path.stat().st_mtime_ns for path in tmp_path.rglob("seed=0/trajectory.nc")}
    for more in ((), ("-m",)):
        refused = launch(*more, *words, "keep=[kernel]")
        assert refused.returncode == 2
        assert "2 seeds of multirun/toy/" in refused.stderr
        assert "replace=true computes them anew, keep=[] leaves them as they are" in refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1
    assert {path.stat().st_mtime_ns for path in tmp_path.rglob("seed=0/trajectory.nc")} == {before}
    assert launch(*words, "keep=[kernel]", "replace=true").returncode == 0
    again = launch(*words, "keep=[kernel]")
    assert again.returncode == 0
    assert "nothing to compute" in again.stdout
    assert len(list(tmp_path.rglob("seed=*/snapshots/minimum.npz"))) == 2
    assert ntklens.load(tmp_path / "multirun" / "toy").sizes["seed"] == 2
