"""Data that changed under one name: a launch that would mix results refuses, what reads them keeps them apart."""

import gzip
import json
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

import ntklens
from commands import call_ntklens, list_files
from ntklens.analysis.groups import find_groups
from ntklens.analysis.study import analyse
from ntklens.config.identity import compute_key, name_run
from ntklens.config.schemas import find_config_directory, register_schemas
from ntklens.data import mnist
from ntklens.errors import InputError, Unavailable
from ntklens.jobs import datasets
from ntklens.jobs.compute import Outcome, compute_seeds
from ntklens.jobs.datasets import load_dataset
from ntklens.jobs.slices import compute_slice
from ntklens.jobs.watcher import Watcher
from ntklens.launch import datasets as launch_datasets
from ntklens.launch import planning
from ntklens.launch.datasets import check_launch_data
from ntklens.launch.planning import make_plans
from ntklens.signals import Stop
from ntklens.store.same_data import read_identity
from ntklens.store.separate import COORDINATE
from ntklens.store.trajectory import FILE_NAME, publish_trajectory, read_trajectory
from ntklens.store.units import find_units, read_status, write_status
from ntklens.sweep.plan import Configuration

WORDS = (
    "dataset=mnist", "dataset.train_size=20", "dataset.test_size=20", "dataset.probe_size=4", "model.width=3",
    "model.depth=1", "training.epochs=3", "ensemble=1", "tracking=none",
)  # fmt: skip


def configure(*words):
    register_schemas()
    with initialize_config_dir(version_base="1.3", config_dir=str(find_config_directory())):
        return compose("config", overrides=[*WORDS, *words])


def find_run(cfg):
    return Path(cfg.paths.results) / cfg.name / name_run(cfg)


def make_configuration(cfg):
    run, seeds = find_run(cfg), list(range(cfg.seed, cfg.seed + cfg.ensemble))
    return Configuration(cfg, run, compute_key(cfg), {}, seeds, [], find_units(run, seeds))


def launch(*words):
    """Check and compute, as a launch does."""
    configuration = make_configuration(configure(*words))
    check_launch_data(configuration.run.parent, [configuration])
    if pending := configuration.find_pending():
        done = set(configuration.seeds) - set(select_unfinished(configuration))
        replaced = sorted(done) if configuration.cfg.replace else []
        assert compute_seeds(configuration.cfg, configuration.run, pending, Stop(), Watcher(), None, replaced) == (
            Outcome([], [], [])
        )
    return configuration.run


def select_unfinished(configuration):
    return [unit.seed for unit in configuration.units if unit.state not in ("done", "diverged")]


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    """No data in memory, and a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch_datasets, "_noted", set())
    datasets.load_cached.cache_clear()


@pytest.fixture
def two_roots(small_mnist, formats):
    """Two folders of MNIST's format: the pixels of the second are inverted."""
    other = small_mnist.root.parent / "other"
    shutil.copytree(small_mnist.root, other)
    write_images(other / "mnist", formats, 255 - small_mnist.images)
    return small_mnist.root, other


def write_images(folder, formats, images):
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(formats.encode_idx(images), mtime=0))


def make_old(run):
    """Make results those of an earlier version: neither status.json nor a trajectory says what only this one does."""
    for path in run.glob(f"seed=*/{FILE_NAME}"):
        trajectory = read_trajectory(path)
        data = json.loads(trajectory.attrs["data"])
        kept = {name: value for name, value in data.items() if name not in ("content", "published")}
        trajectory.attrs["data"] = json.dumps(kept)
        trajectory.attrs.pop("data_published", None)
        path.unlink()
        publish_trajectory(trajectory, path.parent)
        status = read_status(path.parent)
        status.pop("data")
        write_status(path.parent, status.pop("state"), **status | {"bytes": path.stat().st_size})


@pytest.mark.parametrize(
    "old", [pytest.param(False, marks=pytest.mark.slow), True], ids=["new results", "results of an earlier version"]
)
def test_seeds_are_not_added_on_other_data(two_roots, old):
    first, other = two_roots
    run = launch(f"dataset.root={first}")
    if old:
        make_old(run)
    before = list_files(run)
    with pytest.raises(InputError, match=rf"^dataset.root={other}: .*name=.*replace=true") as refusal:
        launch(f"dataset.root={other}", "ensemble=2")
    assert "\n" not in str(refusal.value)
    assert list_files(run) == before
    assert launch(f"dataset.root={other}", "ensemble=2", "replace=true") == run
    assert len(set(ntklens.load(run).attrs["provenance"].split("data_checksum")[1:])) == 1
    assert ntklens.load(run).sizes == ntklens.load(run.parent).sizes
    launch(f"dataset.root={other}", "ensemble=3")


def refuse(*words):
    with pytest.raises(InputError) as refusal:
        launch(*words)
    return str(refusal.value)


def test_replace_is_offered_only_with_the_seeds_that_it_has_to_reach(two_roots):
    first, other = two_roots
    launch(f"dataset.root={first}", "ensemble=2")
    line = refuse(f"dataset.root={other}", "seed=2")
    assert "type name=… to compute apart, seed=0 ensemble=3 replace=true to compute anew what is there, or" in line
    line = refuse(f"dataset.root={other}", "seed=2", "replace=true")
    assert line.endswith("or seed=0 ensemble=3 replace=true to compute anew what is there: replace=true replaces only "
                         "what the line asks for, and this is left")  # fmt: skip
    line = refuse(f"dataset.root={other}", "seed=5")  # no range that reaches them holds these seeds alone
    assert "replace=true" not in line
    assert "type name=… to compute apart, or bring back the data of before" in line
    launch(f"dataset.root={other}", "seed=0", "ensemble=3", "replace=true")


def test_replace_is_not_offered_where_other_runs_of_the_sweep_are_left(two_roots):
    first, other = two_roots
    for width in (3, 4):
        launch(f"dataset.root={first}", f"model.width={width}")
    assert "replace=true" not in refuse(f"dataset.root={other}", "model.width=5")
    assert "replace=true" not in refuse(f"dataset.root={other}", "model.width=3", "ensemble=2")
    assert "replace=true to" not in refuse(f"dataset.root={other}", "model.width=3", "ensemble=2", "replace=true")


@pytest.mark.parametrize("old", [False, True], ids=["new results", "results of an earlier version"])
@pytest.mark.parametrize("word", ["model.width=4", "dataset.train_size=21"])
def test_a_sweep_is_not_continued_on_other_data(two_roots, word, old):
    first, other = two_roots
    run = launch(f"dataset.root={first}")
    if old:
        make_old(run)
    with pytest.raises(InputError, match=rf"^dataset.root={other}: .*name="):
        launch(f"dataset.root={other}", word)
    launch(f"dataset.root={first}", word)


def test_files_that_are_packed_otherwise_are_the_same_data(two_roots):
    first, _ = two_roots
    launch(f"dataset.root={first}")
    for path in (first / "mnist").glob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    datasets.load_cached.cache_clear()
    launch(f"dataset.root={first}", "ensemble=2")
    run = launch(f"dataset.root={first}", "dataset.train_size=21")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert COORDINATE not in ntklens.load(run.parent).coords


@pytest.mark.parametrize("old", [False, True], ids=["written now", "copied with an old date"])
def test_a_rewritten_file_is_noticed_even_if_nothing_is_to_be_computed(two_roots, small_mnist, formats, old):
    first, other = two_roots
    launch(f"dataset.root={first}")
    with pytest.raises(InputError, match=f"^dataset.root={other}"):
        launch(f"dataset.root={other}")
    launch(f"dataset.root={first.parent / 'nowhere'}")  # finished results do not need their data
    write_images(first / "mnist", formats, 255 - small_mnist.images)
    for file in (first / "mnist").iterdir() if old else ():
        os.utime(file, (0, 0))
    datasets.load_cached.cache_clear()
    with pytest.raises(InputError, match=f"^dataset.root={first}"):
        launch(f"dataset.root={first}")


def test_finished_results_are_looked_at_without_loading_data(two_roots, monkeypatch):
    launch(f"dataset.root={two_roots[0]}")
    monkeypatch.setattr(launch_datasets, "load_checked", None)
    monkeypatch.setattr(datasets, "load_checked", None)
    datasets.load_cached.cache_clear()
    launch(f"dataset.root={two_roots[0]}")


def test_the_variable_that_moves_the_data_is_noticed_too(two_roots, monkeypatch):
    first, other = two_roots
    monkeypatch.setenv("NTKLENS_DATA", str(first))
    run = launch()
    monkeypatch.setenv("NTKLENS_DATA", str(other))
    with pytest.raises(InputError, match=rf"^dataset.root=null \(NTKLENS_DATA={other}\): .*name="):
        launch()
    monkeypatch.setenv("NTKLENS_DATA", str(first.parent / "nowhere"))
    assert launch() == run


@pytest.mark.parametrize("root", [3, [1, 2]])
def test_what_an_own_loader_calls_root_is_no_folder(small_mnist, root):
    run = launch(f"dataset.root={small_mnist.root}")
    configuration = make_configuration(configure("dataset.root=null"))
    configuration.cfg.dataset = {**configuration.cfg.dataset, "root": root}
    known = read_identity(run, 0)
    assert not launch_datasets._may_have_changed(configuration, known, run / "seed=0")


def test_a_sweep_of_which_all_is_done_is_checked_too(two_roots, small_mnist, formats):
    first, other = two_roots
    launch(f"dataset.root={first}")

    def plan(root):
        return make_plans([planning.make_configuration(configure(f"dataset.root={root}"), [], {})], ["-m"], None)

    assert [len(one.tasks) for one in plan(first)] == [0]
    with pytest.raises(InputError, match=f"^dataset.root={other}: .*name=") as refusal:
        plan(other)
    assert "\n" not in str(refusal.value)
    write_images(first / "mnist", formats, 255 - small_mnist.images)
    with pytest.raises(InputError, match=f"^dataset.root={first}"):
        plan(first)


def test_the_folder_where_the_program_runs_is_no_source(small_mnist):
    """A loader need not say where its samples came from."""
    run = launch(f"dataset.root={small_mnist.root}")
    configuration = make_configuration(configure("dataset.root=null"))
    known = read_identity(run, 0)._replace(source="")
    Path("younger").touch()
    assert not launch_datasets._may_have_changed(configuration, known, run / "seed=0")


class Ending(Watcher):
    """Asks for the end once training goes on."""

    def __init__(self, stop):
        self.stop = stop

    def advance(self, count, note):
        if count > 50:
            self.stop.request()


@pytest.mark.slow
def test_a_checkpoint_of_other_data_is_not_continued(two_roots):
    first, other = two_roots
    words = ("training.epochs=4000", "checkpoint.minutes=0.00001")
    cfg, stop = configure(f"dataset.root={first}", *words), Stop()
    with pytest.raises(KeyboardInterrupt):
        compute_seeds(cfg, find_run(cfg), [0], stop, Ending(stop))
    assert list(find_run(cfg).glob("seed=0/checkpoint/*.json"))
    with pytest.raises(InputError, match=f"^dataset.root={other}: .*seed=0"):
        launch(f"dataset.root={other}", *words)
    with pytest.raises(Unavailable):
        compute_seeds(configure(f"dataset.root={other}", *words), find_run(cfg), [0], Stop(), Watcher())
    assert list(find_run(cfg).glob("seed=0/checkpoint/*.json"))
    launch(f"dataset.root={other}", *words, "replace=true")
    trajectory = read_trajectory(find_run(cfg) / "seed=0" / FILE_NAME)
    assert trajectory.attrs["continued_from_step"] == 0
    assert trajectory.attrs["data_checksum"] == load_dataset(configure(f"dataset.root={other}")).provenance["checksum"]


def test_a_worker_that_finds_other_data_interrupts_its_seeds(two_roots):
    first, other = two_roots
    run = launch(f"dataset.root={first}")
    piece = {"config": configure(f"dataset.root={other}", "ensemble=2"), "run": str(run), "seeds": [1]}
    outcome = compute_slice(piece, None, Stop(), Watcher())
    assert outcome.interrupted == [1]
    assert f"dataset.root={other}" in outcome.error
    assert find_units(run, [1])[0].state == "interrupted"


def mix(two_roots):
    """Results as an earlier version left them: seeds and widths of one sweep, computed on two data sets."""
    runs = []
    for number, root in enumerate(two_roots):
        for width in (3, 4):
            runs.append(launch(f"dataset.root={root}", f"model.width={width}", f"seed={number}", f"name=part{number}"))
    for run in runs:
        shutil.copytree(run, Path("multirun/mixed") / run.name, dirs_exist_ok=True)
    return Path("multirun/mixed")


@pytest.mark.slow
def test_what_was_mixed_is_loaded_and_reported_apart(two_roots):
    folder = mix(two_roots)
    with pytest.warns(UserWarning, match="different data under one name"):
        data = ntklens.load(folder)
    assert data.sizes["run"] == 4
    assert (data.state == "done").sum() == 4
    assert len(set(data[COORDINATE].values)) == 2
    assert len(set(data.data_checksum.values)) == 2
    groups = find_groups(analyse(data, ("mixed",)).observables)
    assert [group.axis for group in groups] == ["model.width"] * 2
    assert {group.label.partition("=")[0] for group in groups} == {COORDINATE}
    for group in groups:
        assert len(set(data.data_checksum.sel(run=group.runs).values)) == 1


@pytest.mark.slow
def test_sweeps_of_different_data_are_joined_apart(two_roots):
    mix(two_roots)
    with pytest.warns(UserWarning, match="different data under one name"):
        data = ntklens.load(["multirun/part0", "multirun/part1"])
    assert len(set(data[COORDINATE].values)) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ntklens.load("multirun/part0")


def test_files_of_a_published_name_that_are_not_the_published_ones_are_said_and_marked(two_roots, capsys):
    run = launch(f"dataset.root={two_roots[0]}")
    assert capsys.readouterr().err == (
        f"{two_roots[0]}/mnist: not the published mnist; the results say so (data_published = 0)\n"
    )
    launch(f"dataset.root={two_roots[0]}", "model.width=4")
    assert capsys.readouterr().err == ""
    assert read_trajectory(run / "seed=0" / FILE_NAME).attrs["data_published"] == 0
    assert json.loads(ntklens.load(run).attrs["provenance"])["data_published"] == [0]


def test_the_published_samples_are_told_by_their_contents(two_roots, monkeypatch, capsys):
    sizes = {"train_size": 20, "probe_size": 4}
    content = mnist.load(root=str(two_roots[0]), **sizes).provenance["content"]
    assert (
        content
        == mnist.load(root=str(two_roots[0]), train_size=5, standardize=True, probe_size=4).provenance["content"]
    )
    assert content != mnist.load(root=str(two_roots[1]), **sizes).provenance["content"]
    monkeypatch.setattr(mnist, "CONTENT", content)
    run = launch(f"dataset.root={two_roots[0]}")
    assert capsys.readouterr().err == ""
    assert read_trajectory(run / "seed=0" / FILE_NAME).attrs["data_published"] == 1


def test_as_a_person_types_it(two_roots, tmp_path):
    """A sweep whose folder of data was exchanged: one line, exit status 2, nothing written."""
    first, other = two_roots
    words = ("-m", *WORDS, "name=same", "model.width=3,4")
    for width in (3, 4):
        launch(f"dataset.root={first}", "name=same", f"model.width={width}")
    before = list_files(tmp_path / "multirun")
    result = call_ntklens(*words, f"dataset.root={other}", "ensemble=2", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stdout == ""
    line = result.stderr.splitlines()[-1]
    assert line.startswith(f"error: dataset.root={other}: these are other data than those of same/")
    assert list_files(tmp_path / "multirun") == before


def test_checksums_do_not_depend_on_how_tokens_are_stored():
    from ntklens.data import Split
    from ntklens.data.split import compute_checksum

    tokens = np.arange(6).reshape(3, 2)
    labels = np.zeros(3, np.int32)
    assert compute_checksum(Split(tokens, labels)) == compute_checksum(Split(tokens.astype(np.int32), labels))


def test_checksums_tell_large_integers_apart_and_stay_what_they_were():
    from ntklens.data import Split
    from ntklens.data.split import compute_checksum

    labels = np.zeros(1, np.int32)
    large = [np.array([[2**24 + more]]) for more in (0, 1)]
    first, second = (compute_checksum(Split(inputs, labels)) for inputs in large)
    assert first != second
    assert second == compute_checksum(Split(large[1].astype(np.uint32), labels))
    for inputs in (large[0], np.array([[-7]], np.int16), np.array([[255]], np.uint8), np.array([[0.1]])):  # as before
        assert compute_checksum(Split(inputs, labels)) == compute_checksum(Split(inputs.astype(np.float32), labels))
