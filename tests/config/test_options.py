"""Options are typed by the signatures of their targets: those of conf/, and those of people's own."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from commands import call_ntklens
from contract import FOLDERS, OWN, configure, list_options
from ntklens.config import signatures
from ntklens.config.identity import compute_key
from ntklens.config.options import GROUPS, describe_unknown_key, find_arguments
from ntklens.config.signatures import read_arguments

# Keys as they were when the types of each option were written out by hand: no result may be orphaned.
KEYS = {
    "": "a193424ce46aaadd",
    "dataset=mnist optimizer=sgd model.width=64": "3d4acd1e5d9fcf6a",
    "dataset=cifar10 optimizer=momentum": "416149dfd2c1cbf2",
    "dataset=fashion_mnist optimizer=adamw": "e03d9fe96cfad4c3",
    "dataset=synthetic": "d7be203bcc370e3b",
    "dataset=synthetic dataset.train_size=null": "42755317254143bc",
    "dataset=mnist dataset.train_size=null dataset.data_seed=3 dataset.standardize=true": "94ae0d3823cdf3ee",
    "dataset.name=2020": "f92391d2b7ded76b",
    "dataset.name=1e3": "97940adb3b6996a8",
    'dataset.probe_size="64"': "a62fb396a86847fd",
    "optimizer.learning_rate=1": "b4922194aac1f98a",
    "optimizer=adamw optimizer.weight_decay=1 optimizer.b1=0": "58b11063893775b9",
    "optimizer=momentum optimizer.momentum=0 optimizer.nesterov=1": "d016ccce316c15d3",
    "optimizer=momentum optimizer.nesterov=on": "af8ee5b2e1685252",
    'optimizer.learning_rate="1e-2"': "fe6af00bdc16d8ad",
    "model.bias=0": "cb5aee349d5bc588",
    "model.bias=false model.activation=tanh model.depth=3": "864c6c6eb0bd4a0a",
    "model.parameterization=standard model.width=7": "3e524f80f0cfcd97",
    "optimizer.eps=1": "8812d71ab04f82fa",
    "dataset=synthetic dataset.input_dim=7 dataset.classes=3 dataset.teacher_seed=5": "1b8e5f653b393617",
    "dataset=synthetic dataset.teacher_width=16 dataset.teacher_depth=1 dataset.standardize=1": "434176a8a80cd77a",
    "training.loss=mse precision=float64 schedule.spectrum_ratio=2": "1760e8c6700cc72b",
    "tracking.mode=offline tracking.interval=20": "a193424ce46aaadd",
    "experiment=mnist_first": "380c5ef1cc187ae8",
    "experiment=mnist_width": "91114d0b99f492ac",
    "experiment=mnist_data_small": "0385122bab10f274",
    "experiment=cifar10_transition": "f0728a775ae82eef",
}


@pytest.mark.parametrize("words", KEYS, ids=lambda words: words or "default")
def test_keys_are_those_of_results_on_disk(words):
    assert compute_key(configure(*words.split())) == KEYS[words]


TARGETS = [(group, path) for group in GROUPS for folder in FOLDERS for path in sorted((folder / group).glob("*.yaml"))]


@pytest.mark.parametrize(("group", "path"), TARGETS, ids=lambda value: getattr(value, "stem", value))
def test_a_source_says_what_the_object_says(group, path, monkeypatch):
    """Read without an import, and by `inspect`; every key of the file is an argument."""
    monkeypatch.syspath_prepend(str(OWN))
    node = OmegaConf.load(path)
    module, _, name = node._target_.rpartition(".")
    read = signatures._read_source(module, name)
    assert read is not None
    assert read == signatures._inspect(node._target_)
    assert set(node) - {"_target_"} <= set(find_arguments(group, node._target_).named)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """(words) → what the program answers in an empty folder, beside the example of people's own."""
    folder = tmp_path / "here"
    folder.mkdir()

    def call(*words):
        result = call_ntklens("--config-dir", str(OWN / "conf"), *words, cwd=folder, PYTHONPATH=str(OWN))
        assert not any(folder.iterdir())
        return result

    return call


REFUSED = [
    ("model=convnet model.channels=abc", "model.channels", "must be an integer"),
    ("model=convnet model.chanels=3", "model.chanels", "did you mean model.channels"),
    ("model=convnet model.width=3", "model.width", "type model=mlp model.width=3"),
    ("model=convnet +model.classes=3", "model.classes", "ntklens passes classes; remove it"),
    ("-m model=convnet model.channels=4,abc", "model.channels", "must be an integer"),
    ("dataset=rings dataset.noise=abc", "dataset.noise", "must be a number"),
    ("dataset=rings dataset.train_size=abc", "dataset.train_size", "must be an integer"),
    ("dataset=rings dataset.train_size=0", "dataset.train_size=0", "positive integer"),
    ("optimizer=lion optimizer.learning_rate=abc", "optimizer.learning_rate", "must be a number"),
    ("optimizer=lion optimizer.b1=abc", "optimizer.b1", "must be a number"),
    ("optimizer=clipped_sgd optimizer.max_norm=abc", "optimizer.max_norm", "must be a number"),
    ("optimizer=clipped_sgd optimizer.maxnorm=1", "optimizer.maxnorm", "did you mean optimizer.max_norm"),
    ("model._target_=own_model.ConvNet", "model._target_=own_model.ConvNet", "takes no argument"),
    ("model._target_=own_model.RNN", "model._target_=own_model.RNN", "there is no such class"),
    ("model._target_=nowhere.CNN", "model._target_=nowhere.CNN", "if it is your own, type PYTHONPATH=FOLDER"),
]


@pytest.mark.parametrize(("words", "key", "answer"), REFUSED, ids=[words for words, *_ in REFUSED])
def test_an_option_of_ones_own_is_checked_like_ours(own, words, key, answer):
    result = own(*words.split())
    assert (result.returncode, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {key}")
    assert answer in line


def test_files_without_what_every_run_needs_are_refused(tmp_path):
    (tmp_path / "conf" / "optimizer").mkdir(parents=True)
    (tmp_path / "conf" / "optimizer" / "bare.yaml").write_text("momentum: 0.9\n")
    (tmp_path / "conf" / "optimizer" / "slow.yaml").write_text("_target_: optax.sgd\nmomentum: 0.9\n")
    for option, answer in (("bare", "optimizer._target_: missing"), ("slow", "optimizer.learning_rate: missing")):
        result = call_ntklens("--config-dir", "conf", f"optimizer={option}", cwd=tmp_path)
        assert result.returncode == 2
        assert result.stderr.startswith(f"error: {answer}")


def test_an_argument_that_the_file_lacks_is_added_by_a_plus(tmp_path, monkeypatch):
    """As in files that were written before the loaders took `probe_seed`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf" / "dataset").mkdir(parents=True)
    file = (OWN / "conf" / "dataset" / "rings.yaml").read_text()
    (tmp_path / "conf" / "dataset" / "rings.yaml").write_text(file.replace("probe_seed: null\n", ""))
    words = ("--config-dir", "conf", "dataset=rings", "task=plan", "tracking=none")
    for more in ((), ("-m",)):
        result = call_ntklens(*more, *words, "dataset.probe_seed=3", cwd=tmp_path, PYTHONPATH=str(OWN))
        assert result.returncode == 2
        assert "own_data.load takes it; type +dataset.probe_seed=3" in result.stderr
        assert call_ntklens(*more, *words, "+dataset.probe_seed=3", cwd=tmp_path, PYTHONPATH=str(OWN)).returncode == 0


def test_a_dataset_of_two_keys_is_planned(tmp_path):
    """A loader need not take `data_seed`, nor any other key of ours."""
    (tmp_path / "conf" / "dataset").mkdir(parents=True)
    (tmp_path / "conf" / "dataset" / "bare.yaml").write_text("_target_: bare_data.load\nname: bare\n")
    (tmp_path / "bare_data.py").write_text(
        "from ntklens.data import digits\n"
        "def load(name: str):\n"
        "    return digits.load(name=name, train_size=20, test_size=20, probe_size=4)\n"
    )
    words = ("dataset=bare", "-m", "model.width=3,4", "training.epochs=2", "task=plan", "tracking=none")
    result = call_ntklens("--config-dir", "conf", *words, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert (result.returncode, result.stderr) == (0, "")


def test_types_of_signatures(tmp_path, monkeypatch):
    (tmp_path / "anyones.py").write_text(
        "from typing import Optional\n"
        "def decorate(f): return f\n"
        "def plain(a: int, b: Optional[float] = None, *, c=0.5, d=True, e: 'list[int]' = (), f=None, **more): ...\n"
        "@decorate\ndef decorated(a: str): ...\n"
        "class Whole:\n    def __init__(self, width: int = 3): ...\n"
        "class Half(Whole): ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    read = read_arguments("anyones.plain")
    assert "anyones" not in sys.modules
    assert {name: one.kind for name, one in read.named.items()} | {"b": 0, "f": 0} == {
        "a": int, "b": 0, "c": float, "d": bool, "e": list[int], "f": 0,
    }  # fmt: skip
    assert read.others
    assert read.named["a"].required
    assert not read.named["b"].required
    assert read_arguments("anyones.Whole").named["width"].kind is int
    assert "anyones" not in sys.modules
    assert read_arguments("anyones.decorated").named["a"].kind is str  # its decorator may say otherwise: imported
    assert "anyones" in sys.modules
    assert read_arguments("anyones.Half").named["width"].kind is int
    sys.modules.pop("anyones")


def test_checking_waits_for_no_arrays():
    heavy = ("jax", "numpy", "optax", "flax", "wandb", "sklearn")
    code = (
        "import sys; from ntklens.run import main; words = sys.argv[1:]; sys.argv[1:] = []; status = main(words); "
        f"print(status, [name for name in {heavy} if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, "model.width=abc", "dataset=mnist", "optimizer=lion"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "2 []\n"


@pytest.mark.slow
def test_the_example_of_the_documents_runs(tmp_path):
    """The lines of docs/own.md, on a copy of the example, shortened."""
    text = (Path(__file__).parents[2] / "docs" / "own.md").read_text(encoding="utf-8")
    line = "--config-dir examples/own/conf model=convnet dataset=digits optimizer=clipped_sgd"
    assert f"PYTHONPATH=examples/own python -m ntklens.run {line}" in text
    shutil.copytree(OWN, tmp_path / "examples" / "own", ignore=shutil.ignore_patterns("__pycache__"))
    short = ("training.epochs=3", "ensemble=1", "dataset.train_size=20", "dataset.probe_size=4", "tracking=none")
    result = call_ntklens(*line.split(), *short, cwd=tmp_path, PYTHONPATH=str(tmp_path / "examples" / "own"))
    assert result.returncode == 0, result.stderr
    assert len(list(tmp_path.glob("multirun/digits/*/seed=0/trajectory.nc"))) == 1
    assert {"convnet"} <= set(list_options("model"))


def test_an_unknown_key_is_answered_where_no_command_was_typed(monkeypatch):
    """As in a notebook whose process was started without words."""
    monkeypatch.setattr("ntklens.config.options.get_words", list)
    assert "model.width" in describe_unknown_key("model.widht", ["width", "depth"])
