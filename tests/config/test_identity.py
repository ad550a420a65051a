import functools
import json
import re
import shutil
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from ntklens.config import identity, schemas
from ntklens.config.identity import NOT_IDENTITY, compute_key, name_run, select_identity
from ntklens.config.options import type_groups
from ntklens.config.schemas import find_config_directory, register_schemas

# Overrides → the run's folder, its key in full, as commit 0466374 made them.
GOLDEN = json.loads((Path(__file__).parent / "golden_keys.json").read_text(encoding="utf-8"))


def compose_config(*overrides):
    register_schemas()
    with initialize_config_dir(version_base="1.3", config_dir=str(find_config_directory())):
        cfg = compose("config", overrides=list(overrides))
    if not any("_target_" in word or word[0] == "+" for word in overrides):  # of what is not in this release
        type_groups(cfg)
    return cfg


@functools.cache
def compute_default_key():
    return compute_key(compose_config())


def list_options(group):
    return sorted(path.stem for path in (find_config_directory() / group).glob("*.yaml"))


def test_the_key_of_the_default_run_is_known():
    """It changes only together with the schema version: whoever changes it makes every earlier result unfindable."""
    assert compute_key(compose_config()) == "a193424ce46aaadd"
    assert compute_key(compose_config("dataset=mnist", "optimizer=sgd", "model.width=64")) == "3d4acd1e5d9fcf6a"


@pytest.mark.parametrize(("words", "directory"), GOLDEN.items())
def test_results_of_commit_0466374_keep_their_key_and_their_folder(words, directory):
    cfg = compose_config(*words.split())
    assert f"{name_run(cfg).rpartition('-')[0]}-{compute_key(cfg)}" == directory
    assert compute_key(OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))) == directory.rpartition("-")[2]


@pytest.fixture
def later(monkeypatch):
    """Two options that the model got after results were published."""
    more = {"model.gain": 1.0, "model.residual": False}
    monkeypatch.setattr(schemas, "LATER_ARGUMENTS", schemas.LATER_ARGUMENTS | more)
    return lambda *words: compose_config("+model.gain=1", "+model.residual=false", *words)


def test_the_base_width_counts_where_it_is_another():
    key = compute_key(compose_config("model.parameterization=mup"))
    assert compute_key(compose_config("model.parameterization=mup", "model.base_width=128")) == key
    assert compute_key(compose_config("model.parameterization=mup", "model.base_width=64")) != key


def test_a_later_option_changes_no_key_where_it_does_what_was_done_before(later):
    assert compute_key(later()) == GOLDEN[""].rpartition("-")[2]


@pytest.mark.parametrize("word", ["model.gain=0.5", "model.residual=true"])
def test_another_value_of_a_later_option_changes_the_key_also_as_the_default(later, word):
    assert compute_key(later(word)) != compute_key(later())
    assert compute_key(later(word, "model.width=64")) != compute_key(later("model.width=64"))


def test_a_changed_default_of_an_earlier_option_changes_the_key(monkeypatch, tmp_path):
    """As if conf/optimizer/adam.yaml had another b1 from now on."""
    shutil.copytree(find_config_directory(), tmp_path / "conf")
    file = tmp_path / "conf" / "optimizer" / "adam.yaml"
    file.write_text(re.sub(r"b1: \S+", "b1: 0.8", file.read_text()))
    with initialize_config_dir(version_base="1.3", config_dir=str(tmp_path / "conf")):
        changed = compose("config")
    assert compute_key(changed) == compute_key(compose_config("optimizer.b1=0.8")) != compute_key(compose_config())


def test_one_and_true_are_not_the_same_value():
    assert identity.is_same(1, 1.0)
    assert not identity.is_same(1, True)


def test_a_module_can_move_and_its_keys_stay(monkeypatch):
    key = compute_key(compose_config())
    moved = "model._target_=elsewhere.networks.MLP"
    assert compute_key(compose_config(moved)) != key
    monkeypatch.setitem(identity.CANONICAL_TARGETS, "elsewhere.networks.MLP", "ntklens.models.mlp.MLP")
    assert compute_key(compose_config(moved)) == key


def test_the_canonical_names_are_known():
    """Names that keys are made of; what moves gets a line in CANONICAL_TARGETS, and none here changes."""
    groups = {group: list_options(group) for group in ("model", "dataset", "optimizer")}
    named = {
        select_identity(compose_config(f"{group}={option}"))[group]["_target_"]
        for group, options in groups.items()
        for option in options
    }
    assert named >= {
        "ntklens.models.mlp.MLP", "ntklens.data.digits.load", "ntklens.data.mnist.load",
        "ntklens.data.fashion_mnist.load", "ntklens.data.cifar10.load", "ntklens.data.synthetic.load",
        "optax.adam", "optax.adamw", "optax.sgd",
    }  # fmt: skip


def test_what_is_not_identity_is_pinned():
    assert NOT_IDENTITY == (
        "seed", "ensemble", "name", "paths", "scaling", "retry", "replace", "keep", "metrics", "launch", "launcher",
        "tracking", "task", "device", "checkpoint", "dataset.root", "ntk.engine", "ntk.memory_limit",
    )  # fmt: skip


@pytest.mark.parametrize(
    "override",
    [
        "seed=7", "ensemble=20", "name=other", "paths.results=elsewhere", "dataset.root=/data",
        "ntk.engine=neural_tangents", "ntk.memory_limit=2", "keep=[kernel,parameters]",
        "metrics=[alignment]",
    ],
)  # fmt: skip
def test_what_does_not_change_a_result_does_not_change_the_key(override):
    assert compute_key(compose_config(override)) == compute_default_key()


@pytest.mark.parametrize(
    "override",
    [
        "model.width=129", "model.depth=3", "model.bias=false", "model.activation=tanh", "dataset=synthetic",
        "dataset.train_size=100", "dataset.probe_size=64", "dataset.data_seed=0", "dataset.standardize=true",
        "dataset.test_size=500", "dataset.probe_seed=0",
        "optimizer=sgd", "optimizer.learning_rate=2e-3", "optimizer.b1=0.8",
        "training.epochs=7", "training.loss=mse", "training.batch_size=10", "training.stop_after=5",
        "precision=float64", "schedule.record_ratio=1.05", "schedule.spectrum_ratio=2",
    ],
)  # fmt: skip
def test_what_changes_a_result_changes_the_key(override):
    assert compute_key(compose_config(override)) != compute_default_key()


def test_the_arm_of_the_paper_changes_no_key_and_a_rule_has_its_own():
    paper = compose_config()
    resolved, auto = compose_config("protocol=resolved"), compose_config("optimizer=sgd")
    OmegaConf.update(resolved, "optimizer.learning_rate", None)
    OmegaConf.update(auto, "optimizer.learning_rate", "auto")
    assert "protocol" not in select_identity(paper)
    assert select_identity(resolved)["protocol"] == {"arm": "resolved"}
    assert select_identity(resolved)["optimizer"]["learning_rate"] == "resolved 1"
    assert select_identity(auto)["optimizer"]["learning_rate"] == "auto 1"
    third = OmegaConf.merge(resolved, {"protocol": {"step_divisor": 3.0}})
    names = [name_run(cfg) for cfg in (paper, resolved, third, auto)]
    assert [name.rpartition("-")[0].split("w128-d2-")[1] for name in names] == [
        "adam-0.001", "adam-resolved", "adam-resolved-over-3", "sgd-auto",
    ]  # fmt: skip
    assert len({compute_key(cfg) for cfg in (paper, resolved, third, auto)}) == 4


def test_another_version_of_a_rule_has_another_key(monkeypatch):
    resolved = compose_config("protocol=resolved")
    OmegaConf.update(resolved, "optimizer.learning_rate", None)
    before = compute_key(resolved)
    monkeypatch.setitem(identity.STEP_RULES, None, "resolved 2")
    assert compute_key(resolved) != before


def test_spelling_does_not_matter():
    first = compose_config("optimizer.learning_rate=1e-2", "optimizer.weight_decay=1", "optimizer=adamw")
    second = compose_config("optimizer=adamw", "optimizer.learning_rate=0.01", "optimizer.weight_decay=1.0")
    assert compute_key(first) == compute_key(second)


def test_identity_holds_the_science():
    assert sorted(select_identity(compose_config())) == [
        "dataset", "model", "optimizer", "precision", "schedule", "training",
    ]  # fmt: skip


def test_the_directory_says_what_it_is():
    name = name_run(compose_config("dataset=mnist", "model.width=512", "model.depth=3", "dataset.train_size=null"))
    assert name.startswith("mnist-all-mlp-w512-d3-adam-0.001-")
    assert name.endswith(
        compute_key(compose_config("dataset=mnist", "model.width=512", "model.depth=3", "dataset.train_size=null"))[:8]
    )
