"""Every model and every optimizer that there is a file of trains, and its kernel is exact. Datasets: tests/data."""

import contextlib

import jax
import pytest

from contract import OWN, SETS, SMALL, check, configure, list_options
from ntklens.config.options import name_choice
from ntklens.errors import InputError
from ntklens.jobs.build import build_trainer
from ntklens.jobs.datasets import load_dataset
from ntklens.jobs.models import check_model
from ntklens.ntk.structured import kernel
from ntklens.training.ensemble import initialise


@pytest.fixture(autouse=True)
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(OWN))
    double = jax.config.values["jax_enable_x64"]
    yield
    jax.config.update("jax_enable_x64", double)


class Refused(Exception):
    """A model refuses inputs, by its name."""


def try_model(cfg):
    try:
        check_model(cfg, load_dataset(cfg), build_trainer)
    except InputError as refusal:
        if str(refusal).startswith(f"{name_choice('model', cfg.model._target_)}: "):
            raise Refused from refusal
        raise


@pytest.mark.slow
@pytest.mark.parametrize("model", list_options("model"))
def test_a_model_trains_on_some_kind_of_inputs(model):
    """What it cannot take it refuses before training, by its name."""
    trained = []
    keys = configure(f"model={model}", *SETS["images"]).model
    small = [f"model.{key}={size}" for key, size in {"width": 8, "depth": 1}.items() if key in keys]
    for words in SETS.values():
        cfg = configure(f"model={model}", *small, *words, *SMALL)
        with contextlib.suppress(Refused):
            try_model(cfg)
            trained.append(check(cfg))
    assert trained


@pytest.mark.parametrize("optimizer", list_options("optimizer"))
def test_an_optimizer_does_what_its_transformation_does(optimizer):
    check(configure(f"optimizer={optimizer}", "model.width=4", *SETS["flat"], *SMALL))


def test_the_contract_finds_what_is_wrong(monkeypatch):
    """Twins that must fail: updates with another rate, another kernel."""
    cfg = configure("optimizer=sgd", "model.width=4", *SETS["flat"], *SMALL)
    with monkeypatch.context() as patch:
        patch.setattr("contract.initialise", lambda trainer, seeds, rate: initialise(trainer, seeds, 2 * rate))
        with pytest.raises(AssertionError):
            check(cfg)
    monkeypatch.setattr("contract.kernel", lambda f, params, x: kernel(f, params, x) * (1 + 1e-8))
    with pytest.raises(AssertionError):
        check(cfg)
