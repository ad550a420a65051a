"""Several probes are disjoint, and of each the trajectory has what a kernel of its own gives."""

import re

import jax
import numpy as np
import pytest

from contract import configure
from ntklens.data import digits
from ntklens.data.probes import choose_probes
from ntklens.errors import InputError
from ntklens.jobs.build import build
from ntklens.ntk.structured import kernel
from ntklens.recording.measure import Measurer, put_on_device
from ntklens.recording.quantities import list_metrics
from ntklens.recording.recorder import EnsembleRecorder
from ntklens.recording.spectra import SpectrumWorkers
from ntklens.training.ensemble import initialise
from references import compute_effective_rank


def test_probes_are_disjoint_and_held_out():
    data = digits.load(train_size=10, probe_size=20, test_size=70)
    probes = [data.probe.inputs, *choose_probes(data, 4)]
    samples = [sample.tobytes() for probe in probes for sample in probe]
    assert len(samples) == len(set(samples)) == 80
    assert not set(samples) & {sample.tobytes() for sample in data.train.inputs}
    assert choose_probes(data, 1) == []


def test_more_than_there_is_is_refused():
    data = digits.load(train_size=10, probe_size=20, test_size=70)
    line = "ntk.probes=5: 5 × dataset.probe_size=20 = 100 samples, and the probe and the test samples are 90"
    with pytest.raises(InputError, match=re.escape(line)):
        choose_probes(data, 5)
    with pytest.raises(InputError, match=re.escape("ntk.probes=9")):
        build(configure("dataset=digits", "dataset.probe_size=100", "ntk.probes=9"))


def test_each_probe_has_a_trace_and_a_rank_of_its_own():
    words = ("dataset.train_size=10", "dataset.probe_size=6", "dataset.test_size=30", "model.width=8", "ntk.probes=3")
    cfg = configure("dataset=digits", *words)
    built = build(cfg)
    trainer, data = built.trainer, built.dataset
    start = initialise(trainer, [0], 1e-3).params
    measurer = Measurer.of(trainer, "structured", list_metrics((), 3))
    recorder = EnsembleRecorder(
        measurer, put_on_device(data, 3), start, np.array([0]), np.array([True]), 1, None, SpectrumWorkers()
    )
    recorder.record(0, start)
    ((records, minimum, _),) = recorder.finish()
    member = jax.tree.map(lambda leaf: leaf[0], start)
    for number, inputs in enumerate([data.probe.inputs, *choose_probes(data, 3)]):
        theta = np.asarray(kernel(trainer.apply, member, inputs), np.float64).reshape(60, 60)
        for found in (records["trace_probe"][0], minimum["trace_probe"]):
            assert found[number] == pytest.approx(np.trace(theta), rel=1e-5)
        assert records["effective_rank_probe"][0, number] == pytest.approx(compute_effective_rank(theta), rel=1e-4)
    assert list_metrics(["alignment"], 1) == ("alignment",)
