"""Every experiment file is composed, says what it is for, and runs at toy size."""

import math
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
LAST = [name for name in NAMES if f"{name}_small" not in NAMES]  # a small one holds the whole one


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
        assert cfg.ensemble >= 5
        for word in ("?", "Figure:", "Cost (", "two cores", "GPU"):
            assert word in text
    with open_dict(cfg):
        del cfg["hydra"]
    validate(cfg)


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("_small")])
def test_a_small_experiment_has_the_axes_of_the_whole_one(name):
    whole, small = (compose_experiment(n).hydra.sweeper.params for n in (name.removesuffix("_small"), name))
    assert whole.keys() == small.keys()
    assert whole["protocol"] == small["protocol"] == "paper,resolved"


def test_the_ranges_of_the_paper_are_covered():
    for name, key, first, last in (
        ("mnist_width", "model.width", "32", "8192"),
        ("fashion_mnist_width", "model.width", "32", "8192"),
        ("cifar10_transition", "model.width", "256", "16384"),
        ("mnist_data", "dataset.train_size", "128", "16384"),
    ):
        values = compose_experiment(name).hydra.sweeper.params[key].split(",")
        assert (values[0], values[-1]) == (first, last)


# Toy values of axes; of the others, the first two of their own are taken.
TOYS = {
    "MLP": ["model.width=3,4"],
    "CNN": ["model.width=2,3"],
    "ResNet": ["model.width=4,8", "model.groups=2"],
    "Transformer": ["model.width=4,8", "model.patch_size=4"],
    "CausalTransformer": ["model.width=4,8"],
}
TOY_AXES = {"dataset.train_size": "20,30", "dataset.input_dim": "60,70", "training.batch_size": "null,10"}
SIZES = ("model.width", "model.depth", "dataset.train_size", "dataset.input_dim", "protocol")
LONG = ("resnet_width_small", "transformer_width_small", "language_width_small")  # a minute each, mostly compiling
BOTH = ("mnist_width_small", "mnist_data_small", "depth_small")  # arms, and two values of each axis


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.release) if name in LONG else name for name in LAST]
)
def test_runs_at_toy_size(name, tmp_path):
    """On data that need no files: one network of few epochs, for each of two values of what is no size."""
    cfg = compose_experiment(name)
    model, params = cfg.model._target_.rpartition(".")[2], cfg.hydra.sweeper.params
    words = ["model.width=4", *TOYS[model][1:]]
    axes = {key: TOY_AXES.get(key, values).split(",")[:2] for key, values in params.items()}
    if "model.width" in params:
        axes["model.width"] = TOYS[model][0].removeprefix("model.width=").split(",")
    if name not in BOTH:
        axes = {key: values[:1] if key in SIZES else values for key, values in axes.items()}
    if cfg.dataset.name != "markov":
        words.append("dataset=digits")
    if "dataset.train_size" not in params:
        words.append("dataset.train_size=20")
    words += ["dataset.test_size=20", "dataset.probe_size=4", "training.epochs=4", "ensemble=1"]
    words = [word for word in words if word.partition("=")[0] not in axes]
    words += [f"{key}={','.join(values)}" for key, values in axes.items()]
    result = call_ntklens(*(["-m"] if params else []), f"experiment={name}", *words, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    data = ntklens.load(tmp_path / "multirun" / name)
    assert data.sizes["run"] == math.prod(map(len, axes.values()))
    assert (data.state == "done").all()
    assert "L_min" in result.stdout


def test_every_experiment_is_listed():
    listed = (Path(__file__).parents[1] / "docs" / "experiments.md").read_text()
    for name in NAMES:
        assert f"`{name.removesuffix('_small')}`" in listed
