"""A run that is asked to end goes on from its checkpoint, as if nothing had happened."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from commands import TOY
from ntklens.config.identity import compute_key
from ntklens.config.schemas import find_config_directory, register_schemas
from ntklens.errors import InputError
from ntklens.jobs import compute, pack
from ntklens.jobs.compute import Outcome, compute_seeds
from ntklens.jobs.watcher import Watcher
from ntklens.recording.quantities import list_optional
from ntklens.recording.trajectory import refuse_unrecorded
from ntklens.signals import Stop
from ntklens.store.checkpoint import load_checkpoint, remove_checkpoints, save_checkpoint
from ntklens.store.locks import lock_seeds
from ntklens.store.trajectory import read_trajectory
from ntklens.store.units import find_units
from ntklens.training import ensemble

WORDS = (*TOY, "training.epochs=120", "ensemble=3", "checkpoint.minutes=0.003")


class Interrupter(Watcher):
    """Asks for the end once a number of updates has been done; counts them."""

    def __init__(self, stop, after):
        self.stop, self.after, self.done, self.lines = stop, after, 0, []

    def advance(self, count, note):
        self.done += count
        if self.done >= self.after:
            self.stop.request()

    def say(self, text):
        self.lines.append(text)


def configure(*words):
    register_schemas()
    with initialize_config_dir(version_base="1.3", config_dir=str(find_config_directory())):
        return compose("config", overrides=[*WORDS, *words])


def run(folder, *words, after=10**9, seeds=(0, 1, 2)):
    """Returns whether it came to its end, and who watched it."""
    stop = Stop()
    watcher = Interrupter(stop, after)
    try:
        assert compute_seeds(configure(*words), folder, seeds, stop, watcher) == Outcome([], [], [])
    except KeyboardInterrupt:
        return False, watcher
    return True, watcher


def read(folder, seed):
    return read_trajectory(folder / f"seed={seed}" / "trajectory.nc")


@pytest.fixture(autouse=True)
def short_pieces(monkeypatch):
    monkeypatch.setattr(ensemble, "PIECE_SECONDS", 1e-9)  # one update at a time: an end may come at any
    monkeypatch.setattr(pack, "WORTH_SECONDS", 0.0)  # and what was done by then is saved


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    assert run(folder)[0]
    return folder


SIZES = ("dataset.train_size=12", "dataset.test_size=8", "dataset.probe_size=4", "training.epochs=50", "model.depth=1")
SIZES += ("ensemble=3", "checkpoint.minutes=0.003")
NETWORKS = {
    "cnn": (*SIZES, "model=cnn", "model.width=2", "dataset=digits"),
    "resnet": (*SIZES, "model=resnet", "model.width=8", "model.stages=1", "dataset=digits"),
    "transformer": (*SIZES, "model=transformer", "model.width=4", "dataset=digits"),
    "modular": (*SIZES, "model=causal_transformer", "model.width=4", "dataset=modular", "dataset.modulus=5"),
    "causal_transformer": (*SIZES, "model=causal_transformer", "model.width=4", "dataset=markov", "dataset.length=2"),
}


def check_continued(tmp_path, words, after):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(whole, *words)[0]
    total, attempts = 0, 0
    while True:
        ended, watcher = run(parts, *words, after=after)
        total, attempts = total + watcher.done, attempts + 1
        if ended:
            break
        states = {unit.state for unit in find_units(parts, range(3))}
        assert "interrupted" in states
        assert states <= {"interrupted", "queued", "done"}  # of networks that train alone the others wait, or are done
    assert attempts > 3
    together = len(json.loads(read(whole, 0).attrs["packed_seeds"]))
    assert total == int(read(whole, 0).step[-1]) * 3 / together  # no update was done twice
    for seed in range(3):
        first, second = read(whole, seed), read(parts, seed)
        assert second.attrs["continued_from_step"] > 0
        for name in first.data_vars:
            np.testing.assert_array_equal(first[name], second[name], err_msg=name)
        assert not (parts / f"seed={seed}" / "checkpoint").exists()


@pytest.mark.parametrize(
    "words",
    [
        pytest.param((), marks=pytest.mark.slow),
        ("optimizer=sgd", "training.batch_size=5", "optimizer.learning_rate=0.02", "training.epochs=30"),
    ],
)
def test_the_continued_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, words):
    check_continued(tmp_path, words, after=35)


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_continues_bit_for_bit(tmp_path, monkeypatch, network):
    monkeypatch.setitem(globals(), "WORDS", NETWORKS[network])
    check_continued(tmp_path, (), after=12)


def test_continued_in_another_packing_it_is_equal_to_rounding(tmp_path, undisturbed):
    folder = tmp_path / "run"
    assert not run(folder, after=50)[0]
    for seed in range(3):
        assert run(folder, seeds=[seed])[0]
        first, second = read(undisturbed, seed), read(folder, seed)
        assert json.loads(second.attrs["packed_seeds"]) == [seed]
        for name in ("train_loss", "test_loss", "trace"):
            np.testing.assert_allclose(first[name], second[name], rtol=5e-3, err_msg=name)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, undisturbed, capsys):
    folder = tmp_path / "run"
    assert not run(folder, after=50)[0]
    assert not run(folder, after=30)[0]
    checkpoints = folder / "seed=1" / "checkpoint"
    steps = sorted(int(path.stem) for path in checkpoints.glob("*.json"))
    assert len(steps) == 2
    damaged = max((p for p in (checkpoints / str(steps[1])).rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    damaged.write_bytes(damaged.read_bytes()[:-5])
    ended, watcher = run(folder)
    assert ended
    assert "damaged checkpoint skipped" in capsys.readouterr().err
    assert any("seed 1 from update" in line and f" {steps[0]} " in line for line in watcher.lines)
    for seed in range(3):
        np.testing.assert_allclose(read(folder, seed).trace, read(undisturbed, seed).trace, rtol=5e-3)


def test_with_every_checkpoint_damaged_it_starts_anew(tmp_path, undisturbed, capsys):
    folder = tmp_path / "run"
    assert not run(folder, after=50)[0]
    for notes in folder.glob("seed=*/checkpoint/*.json"):
        notes.write_text(notes.read_text()[:20])
    assert run(folder)[0]
    assert "damaged checkpoint skipped" in capsys.readouterr().err
    np.testing.assert_array_equal(read(folder, 0).trace, read(undisturbed, 0).trace)


def rewrite_checkpoints(folder, change):
    """As if another version had written them; returns how far they are."""
    key, steps = compute_key(configure()), set()
    for seed in range(3):
        directory = folder / f"seed={seed}"
        found = load_checkpoint(directory, key)
        change(found.arrays)
        remove_checkpoints(directory)
        details = {name: value for name, value in found.details.items() if name != "step"}
        save_checkpoint(directory, found.step, found.arrays, key, **details)
        steps.add(found.step)
    (step,) = steps
    return step


def test_a_checkpoint_from_before_there_was_a_quantity_continues(tmp_path, undisturbed, capsys):
    folder = tmp_path / "run"
    assert not run(folder, after=50)[0]
    without = ("logit_norm", "effective_rank_layer", "eigenvalues")
    step = rewrite_checkpoints(folder, lambda arrays: [arrays["records"].pop(name) for name in without])
    assert run(folder)[0]
    line = f"run: seeds 0 … 2: {', '.join(without)} NaN up to update {step}: the checkpoint was written without\n"
    assert capsys.readouterr().err.count(line) == 1
    for seed in range(3):
        first, second = read(undisturbed, seed), read(folder, seed)
        before = first.step <= step
        assert before.any()
        assert not before.all()
        for name in first.data_vars:
            if name in without:
                assert np.isnan(second[name][before]).all()
                np.testing.assert_array_equal(first[name][~before], second[name][~before], err_msg=name)
            elif name.partition("_")[2] not in without:
                np.testing.assert_array_equal(first[name], second[name], err_msg=name)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda arrays: arrays["records"].pop("crossings"), "it holds no crossings"),
        (lambda arrays: arrays["opt_state"].pop(), "its opt_state are of another structure"),
        (lambda arrays: arrays["best"].append(np.zeros(2)), "its best are of another structure"),
    ],
)
def test_a_checkpoint_that_training_cannot_continue_from_is_skipped(tmp_path, undisturbed, capsys, change, reason):
    folder = tmp_path / "run"
    assert not run(folder, after=50)[0]
    rewrite_checkpoints(folder, change)
    ended, watcher = run(folder)
    assert ended
    errors = capsys.readouterr().err
    assert errors.count(f"checkpoint of another version skipped ({reason}); trained from the start\n") == 3
    assert any("from update 0 " in line for line in watcher.lines)
    np.testing.assert_array_equal(read(folder, 0).trace, read(undisturbed, 0).trace)


OPTIONAL = (f"metrics=[{','.join(list_optional())}]", "model.linearised=true", "ntk.probes=2", "ntk.trace=estimate")


@pytest.mark.slow
def test_optional_quantities_of_a_continued_run_equal_those_of_an_uninterrupted_one(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(whole, *OPTIONAL)[0]
    while not run(parts, *OPTIONAL, after=35)[0]:
        pass
    for seed in range(3):
        first, second = read(whole, seed), read(parts, seed)
        assert second.attrs["continued_from_step"] > 0
        assert set(list_optional()) < set(first.data_vars) == set(second.data_vars)
        for name in first.data_vars:
            np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def test_quantities_switched_on_or_off_on_the_way_are_nan_where_they_were_off(tmp_path, undisturbed, capsys):
    folder = tmp_path / "run"
    assert not run(folder, "metrics=[alignment]", after=50)[0]
    assert run(folder, "metrics=[kernel_distance]")[0]
    assert "kernel_distance NaN up to update" in capsys.readouterr().err
    found, plain = read(folder, 0), read(undisturbed, 0)
    assert set(found.data_vars) - set(plain.data_vars) == {
        prefix + name for prefix in ("", "minimum_", "crossing_") for name in ("alignment", "kernel_distance")
    }
    aligned, distant = (np.flatnonzero(np.isfinite(found[name])) for name in ("alignment", "kernel_distance"))
    assert aligned[0] == 0
    assert len(distant)
    assert aligned[-1] < distant[0]
    for name in plain.data_vars:
        np.testing.assert_array_equal(found[name], plain[name], err_msg=name)


def test_finished_seeds_without_a_quantity_are_not_mixed_with_those_that_have_it(undisturbed):
    places = [undisturbed / f"seed={seed}" for seed in range(3)]
    refuse_unrecorded([], undisturbed, places)
    line = (
        f"metrics=[alignment]: 3 seeds of {undisturbed} are finished without alignment (seed=0, seed=1, seed=2): "
        "replace=true computes them anew, metrics=[] leaves them as they are"
    )
    with pytest.raises(InputError, match=re.escape(line)):
        refuse_unrecorded(["alignment"], undisturbed, places)
    refuse_unrecorded(["trace"], undisturbed, places)  # a name that they hold


def test_runs_expected_to_be_shorter_than_the_interval_write_none(tmp_path, monkeypatch):
    monkeypatch.setattr(pack, "WORTH_SECONDS", 1e9)
    folder = tmp_path / "run"
    assert not run(folder, "checkpoint.minutes=60", after=50)[0]
    assert not list(folder.glob("seed=*/checkpoint"))
    assert not run(folder, "checkpoint.minutes=null", after=50)[0]
    assert not list(folder.glob("seed=*/checkpoint"))


def test_who_is_asked_to_end_saves_what_is_worth_it_however_short_the_run(tmp_path, undisturbed):
    assert not run(tmp_path / "never", "checkpoint.minutes=null", after=50)[0]
    assert not list(tmp_path.glob("never/seed=*/checkpoint"))
    lives, folder = 1, tmp_path / "run"
    while not run(folder, "checkpoint.minutes=5", after=50)[0]:
        lives += 1
        assert lives < 6
    assert lives > 1
    for seed in range(3):
        np.testing.assert_array_equal(read(folder, seed).trace, read(undisturbed, seed).trace)


def test_a_checkpoint_that_cannot_be_written_stops_nothing(tmp_path, monkeypatch, capsys):
    def fail(*_args, **_kwargs):
        raise OSError("checkpoint not written: no space left")

    monkeypatch.setattr(pack, "save_checkpoint", fail)
    assert run(tmp_path / "run", "checkpoint.minutes=1e-6")[0]  # however fast it trains
    assert "training goes on" in capsys.readouterr().err


def test_members_that_were_never_finite_keep_the_others_from_nothing(tmp_path, monkeypatch):
    def spoil(*arguments):
        state = ensemble.initialise(*arguments)
        leaves, tree = jax.tree.flatten(state.params)
        return state._replace(params=jax.tree.unflatten(tree, [leaves[0].at[0].set(jnp.nan), *leaves[1:]]))

    monkeypatch.setattr(pack, "initialise", spoil)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(whole)[0]
    assert not run(parts, after=50)[0]
    assert len({path.parents[1] for path in parts.glob("seed=*/checkpoint/*.json")}) == 3
    assert run(parts)[0]
    for seed, state in enumerate(("diverged", "done", "done")):
        first, second = read(whole, seed), read(parts, seed)
        assert first.attrs["state"] == second.attrs["state"] == state
        for name in first.data_vars:
            np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def test_a_pack_that_fails_fails_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compute, "choose_pack_size", lambda *_: 1)
    train = pack.Pack.train

    def fail(pack):
        if pack.seeds == [1]:
            raise RuntimeError("no such luck")
        train(pack)

    monkeypatch.setattr(pack.Pack, "train", fail)
    folder = tmp_path / "run"
    outcome = compute_seeds(configure(), folder, [0, 1, 2], Stop(), Watcher())
    assert outcome == Outcome([1], [], [], "RuntimeError: no such luck")
    assert [unit.state for unit in find_units(folder, range(3))] == ["done", "failed", "done"]
    assert capsys.readouterr().err.count("no such luck") == 1


def test_what_killed_processes_left_is_removed(tmp_path):
    folder = tmp_path / "run"
    for name, age in (("attempt-old", 7200), ("attempt-new", 0)):
        attempt = folder / "seed=0" / name
        attempt.mkdir(parents=True)
        (attempt / "trajectory.nc").write_text("half")
        os.utime(attempt, (time.time() - age,) * 2)
    assert run(folder, seeds=[0])[0]
    assert [path.name for path in (folder / "seed=0").glob("attempt-*")] == ["attempt-new"]


def test_a_checkpoint_of_another_configuration_is_not_believed(tmp_path):
    folder = tmp_path / "run"
    assert not run(folder, after=50)[0]
    ended, watcher = run(folder, "optimizer.learning_rate=2e-3")
    assert ended
    assert watcher.done == int(read(folder, 0).step[-1])


def test_what_another_process_claims_is_left_to_it(tmp_path):
    import subprocess
    import sys

    folder = tmp_path / "run"
    folder.mkdir()
    code = (
        "import sys, time; from pathlib import Path; from ntklens.store.locks import lock_seeds\n"
        f"with lock_seeds(Path({str(folder)!r}), [1]) as mine: print(mine, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "[1]\n"
        outcome = compute_seeds(configure(), folder, [0, 1], Stop(), Watcher())
        assert outcome == Outcome([], [], [1])
        assert [unit.state for unit in find_units(folder, [0, 1])] == ["done", "queued"]
        other.stdin.close()
    assert compute_seeds(configure(), folder, [0, 1], Stop(), Watcher()) == Outcome([], [], [])


def test_a_running_seed_whose_process_died_is_interrupted(tmp_path):
    folder = tmp_path / "run"
    assert not run(folder, after=20)[0]
    status = folder / "seed=0" / "status.json"
    content = json.loads(status.read_text()) | {"state": "running", "heartbeat": time.time()}
    status.write_text(json.dumps(content))
    assert find_units(folder, [0])[0].state == "interrupted"
    status.write_text(json.dumps(content | {"host": "elsewhere"}))  # where our locks may not reach
    assert find_units(folder, [0])[0].state == "running"
    status.write_text(json.dumps(content | {"host": "elsewhere", "heartbeat": time.time() - 3600}))
    assert find_units(folder, [0])[0].state == "interrupted"
    status.write_text(json.dumps(content | {"host": "elsewhere", "heartbeat": time.time() + 3600}))  # a clock set back
    assert find_units(folder, [0])[0].state == "interrupted"
    with lock_seeds(folder, [0]):
        assert find_units(folder, [0])[0].state == "running"


def test_a_published_file_that_was_cut_is_noticed_by_its_size(tmp_path, undisturbed):
    shutil.copytree(undisturbed, tmp_path / "run")
    path = tmp_path / "run" / "seed=0" / "trajectory.nc"
    path.write_bytes(path.read_bytes()[:-100])
    assert [unit.state for unit in find_units(tmp_path / "run", range(3))][1:] == ["done", "done"]
    assert find_units(tmp_path / "run", [0])[0].state == "queued"


def test_compiled_programs_lie_beside_the_runs_wherever_a_job_works(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(compute, "use_compilation_cache", seen.append)
    run(tmp_path / "results" / "name" / "run", "paths.results=results", after=1)
    assert seen == [tmp_path / "results"]


ON_FOUR = """
import shutil
import sys
from pathlib import Path

import jax
import test_resume

assert len(jax.local_devices()) == 4
test_resume.ensemble.PIECE_SECONDS, test_resume.pack.WORTH_SECONDS = 1e-9, 0.0
folder = Path(sys.argv[1])
assert not test_resume.run_four(folder / "four", after=60)
shutil.copytree(folder / "four", folder / "fewer")
assert test_resume.run_four(folder / "four")
assert test_resume.run_four(folder / "more")
"""


def run_four(folder, after=10**9):
    return run(folder, "ensemble=4", seeds=range(4), after=after)[0]


@pytest.mark.slow
def test_a_run_continued_on_several_devices_or_another_number_is_equal_to_rounding(tmp_path):
    assert run_four(tmp_path / "one")
    assert not run_four(tmp_path / "more", after=60)
    paths = os.pathsep.join(str(path) for path in Path(__file__).parents[:2])
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": paths}
    subprocess.run([sys.executable, "-c", ON_FOUR, str(tmp_path)], env=environment, check=True)
    assert run_four(tmp_path / "fewer")
    for name in ("four", "more", "fewer"):
        for seed in range(4):
            first, second = read(tmp_path / "one", seed), read(tmp_path / name, seed)
            assert second.attrs["continued_from_step"] > 0
            early = (first.epoch <= 100).values
            for quantity in ("train_loss", "test_loss", "trace", "effective_rank"):
                np.testing.assert_allclose(second[quantity][early], first[quantity][early], rtol=1e-4, err_msg=name)
