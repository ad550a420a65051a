import inspect
from pathlib import Path

import pytest
from hydra.utils import get_method
from omegaconf import OmegaConf

from ntklens.data import Dataset
from ntklens.data.split import DEFAULTS

CONF = Path(__file__).parents[2] / "conf" / "dataset"
NAMES = tuple(sorted(path.stem for path in CONF.glob("*.yaml")))


def test_the_published_datasets_have_a_file():
    assert set(NAMES) >= {"cifar10", "digits", "fashion_mnist", "mnist", "synthetic", "modular", "markov"}


def read_call(name):
    """Return the function that a file calls, and its arguments."""
    values = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    values.pop("defaults", None)
    return get_method(values.pop("_target_")), values


@pytest.mark.parametrize("name", NAMES)
def test_file_is_the_constructor_call_with_its_defaults(name):
    load, values = read_call(name)
    assert load.__module__ == f"ntklens.data.{name}"
    parameters = inspect.signature(load).parameters.values()
    own = {each.name: each.default for each in parameters if each.kind is not each.VAR_KEYWORD}
    sizes = {size: values[size] for size in ("train_size", "probe_size")}
    assert values == dict(DEFAULTS) | sizes | own
    assert values["name"] == name


@pytest.mark.parametrize("name", NAMES)
def test_file_and_every_value_are_explained(name):
    first, *lines = (CONF / f"{name}.yaml").read_text().splitlines()
    assert first.startswith("# ")
    assert all(" # " in line for line in lines if not line.startswith(("_target_", "defaults")))


@pytest.mark.parametrize("name", ["digits", "synthetic", "modular", "markov"])
def test_call_builds_a_dataset(name):
    load, values = read_call(name)
    dataset = load(**values)
    assert isinstance(dataset, Dataset)
    assert dataset.name == name
