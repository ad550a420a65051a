import re

import numpy as np
import pytest

from ntklens.data import synthetic
from ntklens.data.stream import BLOCK, Stream
from ntklens.data.synthetic import Teacher
from ntklens.errors import InputError

SIZES = {"train_size": 300, "test_size": 100, "probe_size": 16}
PARTS = ("selection", "test", "probe")


def is_beginning(short, long):
    return (long.inputs[: len(short)] == short.inputs).all() and (long.labels[: len(short)] == short.labels).all()


def test_shapes_types_and_defaults():
    dataset = synthetic.load(input_dim=7, classes=3, train_size=50)
    assert dataset.train.inputs.shape == (50, 7)
    assert dataset.train.inputs.dtype == np.float32
    assert dataset.train.labels.dtype == np.int32
    assert (len(dataset.selection), len(dataset.test), len(dataset.probe)) == (1000, 1000, 128)
    assert dataset.classes == 3


def test_inputs_are_standard_normal_and_differ_between_parts():
    dataset = synthetic.load(train_size=20_000)
    inputs = dataset.train.inputs
    assert abs(inputs.mean()) < 5 / np.sqrt(inputs.size)
    assert abs(inputs.std() - 1) < 5 / np.sqrt(2 * inputs.size)
    first = [getattr(dataset, part).inputs[0, 0] for part in ("train", *PARTS)]
    assert len(set(first)) == 4


@pytest.mark.parametrize("data_seed", [None, 0, 5])
def test_fewer_samples_are_the_beginning_of_more(data_seed):
    every = synthetic.load(**SIZES | {"train_size": 5 * BLOCK + 1}, data_seed=data_seed)
    for size in (1, 10, 997, BLOCK, BLOCK + 1):
        assert is_beginning(synthetic.load(**SIZES | {"train_size": size}, data_seed=data_seed).train, every.train)


def test_held_out_samples_depend_on_the_teacher_alone():
    plain = synthetic.load(**SIZES)
    for changes in ({"train_size": 5000}, {"data_seed": 4}):
        for part in PARTS:
            assert is_beginning(getattr(plain, part), getattr(synthetic.load(**SIZES | changes), part))
    other = synthetic.load(**SIZES, teacher_seed=1)
    assert not is_beginning(plain.probe, other.probe)


def test_a_probe_seed_draws_a_probe_of_new_samples():
    plain, first, other = (synthetic.load(**SIZES, data_seed=0, probe_seed=seed) for seed in (None, 0, 1))
    for part in ("train", "selection", "test"):
        assert is_beginning(getattr(plain, part), getattr(first, part))
        assert is_beginning(getattr(first, part), getattr(other, part))
    drawn = [dataset.probe for dataset in (plain, first, other)]
    drawn += [plain.train, plain.selection, plain.test]
    rows = np.concatenate([split.inputs for split in drawn])
    assert len(np.unique(rows, axis=0)) == len(rows)
    for seed, probe in ((0, first.probe), (None, plain.probe)):
        larger = synthetic.load(**SIZES | {"probe_size": 40}, probe_seed=seed).probe
        assert is_beginning(probe, larger)
        assert len(larger) == 40


def test_same_call_gives_the_same_bytes():
    assert synthetic.load(**SIZES).provenance == synthetic.load(**SIZES).provenance
    checksums = {
        synthetic.load(**SIZES, **change).provenance["checksum"]
        for change in ({}, {"data_seed": 0}, {"data_seed": 1}, {"teacher_seed": 1}, {"teacher_width": 65})
    }
    assert len(checksums) == 5


def test_labels_follow_from_inputs_alone():
    # The labels of the same inputs are the same wherever they stand: a teacher's, not noise.
    plain, drawn = synthetic.load(**SIZES), synthetic.load(**SIZES, data_seed=3)
    (draw, _, _) = np.random.SeedSequence(0).spawn(3)
    teacher = Teacher(32, 10, 64, 2, np.random.default_rng(draw))
    for part in (plain.train, plain.probe, drawn.train, drawn.test):
        assert (teacher.compute_logits(part.inputs).argmax(axis=1) == part.labels).all()


def test_data_seed_balances_classes():
    dataset = synthetic.load(train_size=1003, classes=10, data_seed=0)
    assert sorted(np.bincount(dataset.train.labels)) == [100] * 7 + [101] * 3
    plain = synthetic.load(train_size=1003, classes=10)
    assert len(set(np.bincount(plain.train.labels))) > 2  # the twin: without data_seed they are not


@pytest.mark.parametrize("teacher_seed", range(5))
def test_no_class_is_nearly_empty(teacher_seed):
    dataset = synthetic.load(train_size=10_000, teacher_seed=teacher_seed)
    assert np.bincount(dataset.train.labels, minlength=10).min() > 300


def test_standardised_outputs_are_what_keeps_classes_alike():
    # The twin of the test above: the same teacher without them leaves classes nearly empty.
    rarest = []
    for seed in range(3):
        teacher = Teacher(32, 10, 64, 2, np.random.default_rng(seed))
        teacher._mean, teacher._deviation = np.zeros((1, 10)), np.ones((1, 10))
        labels = Stream(teacher.draw, np.random.default_rng(100 + seed)).take(10_000).labels
        rarest.append(np.bincount(labels, minlength=10).min())
    assert max(rarest) < 300


@pytest.mark.parametrize(("input_dim", "classes"), [(1, 2), (2, 5), (784, 10), (16, 100)])
def test_any_dimension_and_number_of_classes(input_dim, classes):
    dataset = synthetic.load(**SIZES, input_dim=input_dim, classes=classes, standardize=True)
    assert dataset.probe.inputs.shape == (16, input_dim)
    assert dataset.train.labels.max() < classes
    assert abs(dataset.train.inputs.std() - 1) < 1e-5


def test_class_too_rare_for_a_balanced_draw():
    with pytest.raises(InputError, match=r"^dataset.data_seed=0: the teacher gives too few samples to class \d+ for"):
        synthetic.load(**SIZES, input_dim=1, classes=100, data_seed=0)


def test_dead_teacher_is_refused():
    messages = []
    for seed in range(30):
        try:
            synthetic.load(**SIZES, input_dim=1, teacher_width=1, teacher_depth=5, teacher_seed=seed)
        except InputError as error:
            messages.append(str(error))
    assert set(messages) == {"dataset.teacher_width=1: the outputs of the teacher are constant; take a wider one"}


@pytest.mark.parametrize("field", ["input_dim", "classes", "train_size", "teacher_width", "teacher_depth"])
@pytest.mark.parametrize(("value", "shown"), [(0, "0"), (2.0, "2.0"), (True, "true"), (None, "null")])
def test_sizes_must_be_positive_integers(field, value, shown):
    with pytest.raises(InputError, match=f"^dataset.{field}={re.escape(shown)}: must be a positive integer$"):
        synthetic.load(**SIZES | {field: value})


def test_other_bad_values():
    with pytest.raises(InputError, match=r"^dataset\.classes=1: needs 2$"):
        synthetic.load(**SIZES, classes=1)
    with pytest.raises(InputError, match=r"^dataset\.teacher_seed=null: must be a whole number from 0$"):
        synthetic.load(**SIZES, teacher_seed=None)
    with pytest.raises(InputError, match=r"^dataset\.test_size=1: needs 2"):
        synthetic.load(**SIZES | {"test_size": 1})
