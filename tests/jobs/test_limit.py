"""Quantities that compare with the limit of infinite width, through a whole run and against their formulas."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from commands import TOY
from contract import configure
from ntklens.errors import InputError
from ntklens.jobs.build import build, build_trainer
from ntklens.jobs.datasets import load_dataset
from ntklens.jobs.limit import find_limit
from ntklens.models.infinite import infinite_kernels
from ntklens.models.mlp import MLP
from ntklens.ntk.regression import regress
from ntklens.ntk.structured import kernel
from ntklens.recording.measure import Measurer, put_on_device
from ntklens.recording.recorder import EnsembleRecorder
from ntklens.recording.spectra import SpectrumWorkers
from ntklens.training.ensemble import initialise, run_states

NAMES = (
    "kernel_distance_to_limit,kernel_regression,kernel_regression_accuracy,limit_regression,limit_regression_accuracy"
)


@pytest.fixture(scope="module")
def measured():
    cfg = configure(*TOY, f"metrics=[{NAMES}]", "tracking=none", "model.parameterization=ntk", "model.base_width=4")
    built = build(cfg)
    data = put_on_device(built.dataset)._replace(limit=find_limit(cfg, built.dataset))
    start = initialise(built.trainer, [0, 1], 0.05)
    steps = np.array([0, 3, 8])
    measurer = Measurer.of(built.trainer, "structured", tuple(cfg.metrics))
    recorder = EnsembleRecorder(measurer, data, start.params, steps, steps < 9, 1, None, SpectrumWorkers())
    params = []
    for index, state in enumerate(run_states(built.trainer, start, built.dataset.train, steps)):
        params.append(jax.tree.map(lambda leaf: leaf[1], state.params))
        recorder.record(index, state.params)
    return built, params, *recorder.finish()[1][:2]


def test_the_distance_is_that_of_the_formula(measured):
    built, params, records, _ = measured
    x = jnp.asarray(built.dataset.probe.inputs)
    limit = infinite_kernels(MLP(6, 2, 3, parameterization="ntk", base_width=4), x).ntk
    whole = np.einsum("ij,cd->icjd", np.asarray(limit, float), np.eye(3))
    for index in range(3):
        theta = np.asarray(kernel(built.trainer.apply, params[index], x), float)
        expected = np.linalg.norm(theta - whole) / np.linalg.norm(whole)
        assert records["kernel_distance_to_limit"][index] == pytest.approx(expected, rel=1e-4)


def test_regressions_are_those_of_the_formula(measured):
    built, params, records, minimum = measured
    data = built.dataset
    train, test = (jnp.asarray(split.inputs) for split in (data.train, data.test))
    start = [np.asarray(built.trainer.apply(params[0], x)) for x in (train, test)]
    labels = data.train.labels, data.test.labels

    def average(at, x):
        return np.einsum("icjc->ij", kernel(built.trainer.apply, at, x, train)) / 3

    best = params[int(np.argmin(records["selection_loss"]))]
    for at, values in ((params[0], {name: array[0] for name, array in records.items()}), (best, minimum)):
        found = regress(average(at, train), average(at, test), start, labels)
        assert values["kernel_regression"] == pytest.approx(found.loss, rel=1e-3)
        assert values["kernel_regression_accuracy"] == pytest.approx(found.accuracy)
        network = MLP(6, 2, 3, parameterization="ntk", base_width=4)
        limit = regress(*(infinite_kernels(network, x, train).ntk for x in (train, test)), start, labels)
        assert values["limit_regression"] == pytest.approx(limit.loss, rel=1e-3)
        assert values["limit_regression_accuracy"] == pytest.approx(limit.accuracy)
    assert np.isnan(records["kernel_regression"][1])


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("model.activation=tanh", "metrics=[kernel_distance_to_limit]"),
         "metrics=[kernel_distance_to_limit]: kernel_distance_to_limit: model.activation=tanh: infinite width has a"),
        (("dataset.train_size=2001", "metrics=[kernel_regression]"),
         "metrics=[kernel_regression]: kernel_regression: at most 2000 training samples; type dataset.train_size=2000"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(words, text):
    cfg = configure(*TOY, *words, "tracking=none")
    with pytest.raises(InputError, match=re.escape(text)):
        build_trainer(cfg, load_dataset(cfg))
