"""Every experiment file is composed, says what it is for, and runs at toy size."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import open_dict

import ntklens
from commands import call_ntklens
from ntklens.config.checks import validate
from ntklens.config.schemas import find_config_directory, register_schemas

FOLDER = find_config_directory() / "experiment"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
LAST = [name for name in NAMES if f"{name}_small" not in NAMES]  # which hold the others


def compose_experiment(name):
    register_schemas()
    with initialize_config_dir(version_base="1.3", config_dir=str(find_config_directory())):
        return compose("config", overrides=[f"experiment={name}"], return_hydra_config=True)


@pytest.mark.parametrize("name", NAMES)
def test_composes_and_says_what_it_is_for(name):
    cfg = compose_experiment(name)
    assert cfg.name == name
    text = (FOLDER / f"{name}.yaml").read_text()
    assert text.startswith("# @package _global_\n# ")
    if cfg.hydra.sweeper.params and not name.endswith("_small"):
        assert cfg.ensemble == 20
        for word in ("?", "Figure:", "Cost (", "two cores", "GPU"):
            assert word in text
    with open_dict(cfg):
        del cfg["hydra"]
    validate(cfg)


def test_the_seed_experiments_are_there():
    for name in ("mnist_width", "cifar10_transition", "mnist_data"):
        whole, small = (compose_experiment(n).hydra.sweeper.params for n in (name, f"{name}_small"))
        assert whole.keys() == small.keys()
        assert whole["protocol"] == small["protocol"] == "paper,resolved"
    assert compose_experiment("mnist_width").hydra.sweeper.params["model.width"].endswith("4096,8192")


@pytest.mark.slow
@pytest.mark.parametrize("name", LAST)
def test_runs_at_toy_size(name, tmp_path):
    """On synthetic data, so that it needs no files: two values of each axis, and a few epochs."""
    cfg = compose_experiment(name)
    words = ["dataset=synthetic", "dataset.train_size=24", "dataset.test_size=20", "dataset.probe_size=8"]
    words += ["dataset.input_dim=5", "dataset.classes=3", "training.epochs=8", "ensemble=2", "model.width=4"]
    params = cfg.hydra.sweeper.params
    toys = {"model.width": "3,4", "model.depth": "1,2", "dataset.train_size": "24,30", "protocol": "paper,resolved"}
    words = [word for word in words if word.partition("=")[0] not in params]
    words += [f"{key}={toys[key]}" for key in params]
    result = call_ntklens(*(["-m"] if params else []), f"experiment={name}", *words, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    data = ntklens.load(tmp_path / "multirun" / name)
    assert data.sizes["run"] == 2 ** len(params)
    assert not params or sorted(set(data["protocol.arm"].values)) == ["paper", "resolved"]
    assert (data.state == "done").all()
    assert "L_min" in result.stdout


def test_every_experiment_is_listed_in_the_readme():
    readme = Path(__file__).parents[1] / "README.md"
    for name in NAMES:
        assert f"`{name.removesuffix('_small')}`" in readme.read_text()
