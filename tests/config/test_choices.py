"""Values that can be checked from the composed configuration are refused before data are loaded and JAX compiles."""

import typing
from pathlib import Path

import pytest

from commands import call_ntklens
from ntklens.config import signatures
from ntklens.config.checks import list_all_choices
from ntklens.config.signatures import read_arguments
from ntklens.data import modular
from ntklens.jobs import datasets, models
from ntklens.models import activations, cnn, parameterization

TABLES = [
    (activations.Activation, activations.ACTIVATIONS),
    (parameterization.Parameterization, parameterization.TABLE),
    (cnn.Pooling, cnn.POOLINGS),
    (modular.Operation, [*modular.OPERATIONS, modular.DIVIDE]),
]
REFUSED = {
    "model.activation=relu,foo": "model.activation=foo: must be one of relu, tanh, gelu, silu, erf, linear",
    "model.parameterization=ntk,mu_p": "model.parameterization=mu_p: must be one of standard, ntk, mup",
    "model=cnn model.pooling=average,mean": "model.pooling=mean: must be one of average, max, none",
    "dataset=modular dataset.operation=add,plus": (
        "dataset.operation=plus: must be one of add, subtract, multiply, divide"
    ),
    "training.loss=mse,hinge": "training.loss=hinge: must be one of cross_entropy, mse",
    "model.width=32,abc": "model.width=abc: must be an integer; type model.width=32",
}


@pytest.mark.parametrize(("literal", "table"), TABLES)
def test_the_names_of_a_choice_are_those_of_its_table(literal, table):
    assert typing.get_args(literal) == tuple(table)


@pytest.fixture
def forbid(monkeypatch):
    """(module, name) → what is called by this name from now on fails."""

    def fail(*_):
        raise AssertionError("too early")

    return lambda module, name: monkeypatch.setattr(module, name, fail)


@pytest.mark.parametrize("words", REFUSED)
def test_a_wrong_value_is_refused_before_data_are_loaded(words, forbid, tmp_path):
    forbid(datasets, "load_checked")
    result = call_ntklens("-m", *words.split(), cwd=tmp_path)
    assert (result.returncode, result.stderr) == (2, f"error: {REFUSED[words]}\n")
    assert not any(tmp_path.iterdir())


def test_data_of_all_configurations_come_before_any_model(forbid, tmp_path):
    forbid(models, "check_outputs")
    forbid(models, "check_model")
    result = call_ntklens("-m", "dataset.train_size=20,5000", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (
        2, "error: dataset.train_size=5000: digits has 1000 training images\n",
    )  # fmt: skip


def test_all_models_are_traced_before_one_is_compiled(forbid, tmp_path):
    forbid(models, "start_member")
    result = call_ntklens("-m", "model=mlp,cnn", "dataset.input_dim=16", "model.width=8", cwd=tmp_path)
    assert result.returncode == 2
    assert "takes images [N, H, W, channels], not inputs of shape" in result.stderr


def test_a_choice_of_ones_own_is_read_from_the_source_and_the_object(tmp_path, monkeypatch):
    (tmp_path / "chosen.py").write_text("from typing import Literal\nShape = Literal['round', 'flat']\n")
    (tmp_path / "chooses.py").write_text(
        "from typing import Literal\nfrom chosen import Shape\n"
        "def load(shape: Shape = 'flat', size: Literal[1, 2] = 1, other: str = ''): ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    read = read_arguments("chooses.load")
    assert read == signatures._inspect("chooses.load")
    assert {name: (one.kind, one.choices) for name, one in read.named.items()} == {
        "shape": (str, ("round", "flat")), "size": (int, (1, 2)), "other": (str, ()),
    }  # fmt: skip


def test_help_and_the_page_of_settings_list_every_choice(tmp_path):
    result = call_ntklens("--help", cwd=tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "settings.md").read_text(encoding="utf-8")
    choices = list_all_choices()
    assert {"model.activation", "model.pooling", "dataset.operation", "training.loss", "ntk.engine"} < set(choices)
    for key, listed in choices.items():
        assert f"\n{key}: {listed}\n" in result.stdout
        quoted = ", ".join(f"`{one}`" for one in listed.split(", "))
        assert f"| `{key}` | {quoted}" in page
