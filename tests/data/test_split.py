import json
import re

import numpy as np
import pytest

from ntklens.data.split import Pool, build_dataset, compute_checksum, order_balanced, select_rows
from ntklens.errors import InputError


def make_pool(size, first=0, classes=10):
    """Samples whose input is their own number, so that a split shows which rows it took."""
    numbers = np.arange(first, first + size)
    return Pool(numbers[:, np.newaxis], numbers % classes)


def build(train=200, held_out=3000, classes=10, scale=1, **changes):
    values = {"train_size": 100, "test_size": None, "probe_size": 128, "data_seed": None, "standardize": False}
    return build_dataset(
        name="numbers",
        train=make_pool(train),
        held_out=make_pool(held_out, first=10_000),
        classes=classes,
        scale=scale,
        source={"source": "counted", "files": {}},
        **values | changes,
    )


def get_numbers(split):
    return split.inputs[:, 0].astype(int).tolist()


def test_splits_hold_the_rows_that_the_documentation_says():
    dataset = build()
    assert get_numbers(dataset.train) == list(range(100))
    assert get_numbers(dataset.probe) == list(range(10_000, 10_128))
    assert get_numbers(dataset.selection) == list(range(10_128, 11_128))
    assert get_numbers(dataset.test) == list(range(11_128, 12_128))
    assert (dataset.train.labels == np.arange(100) % 10).all()
    assert (dataset.test.labels == np.arange(11_128, 12_128) % 10).all()


@pytest.mark.parametrize(
    ("held_out", "test_size", "halves"),
    [(797, None, (334, 335)), (3000, None, (1000, 1000)), (3000, 2501, (1250, 1251)), (130, None, (1, 1))],
)
def test_test_size(held_out, test_size, halves):
    dataset = build(held_out=held_out, test_size=test_size)
    assert (len(dataset.selection), len(dataset.test)) == halves
    assert dataset.provenance["test_size"] == sum(halves)


def test_types_and_scale():
    dataset = build(scale=255, data_seed=3)
    for split in (dataset.train, dataset.selection, dataset.test, dataset.probe):
        assert split.inputs.dtype == np.float32
        assert split.labels.dtype == np.int32
    assert (dataset.probe.inputs[:, 0] == np.arange(10_000, 10_128).astype(np.float32) / np.float32(255)).all()


def test_null_takes_the_whole_training_pool():
    assert get_numbers(build(train_size=None).train) == list(range(200))
    assert sorted(get_numbers(build(train_size=None, data_seed=1).train)) == list(range(200))


def test_held_out_samples_depend_on_nothing_but_their_sizes():
    plain, other = build(), build(train_size=17, data_seed=5)
    for part in ("selection", "test", "probe"):
        assert get_numbers(getattr(plain, part)) == get_numbers(getattr(other, part))


@pytest.mark.parametrize("held_out", [200, 3000])
def test_a_probe_seed_changes_the_probe_alone(held_out):
    plain, first, again, other = (build(held_out=held_out, probe_seed=seed) for seed in (None, 0, 0, 1))
    for part in ("train", "selection", "test"):
        rows = [get_numbers(getattr(dataset, part)) for dataset in (plain, first, other)]
        assert rows[0] == rows[1] == rows[2]
    probes = [get_numbers(dataset.probe) for dataset in (plain, first, again, other)]
    assert probes[1] == probes[2]
    assert len({tuple(probe) for probe in probes}) == 3
    assert len({dataset.provenance["checksum"] for dataset in (plain, first, again, other)}) == 3
    for probe in probes:
        assert len(set(probe)) == 128
        assert set(probe) <= set(range(10_000, 10_000 + held_out))


@pytest.mark.parametrize("probe_seed", [None, 0, 7])
def test_a_smaller_probe_is_the_beginning_of_a_larger_one(probe_seed):
    every = get_numbers(build(probe_size=500, probe_seed=probe_seed).probe)
    for size in (1, 64, 128, 499):
        assert get_numbers(build(probe_size=size, probe_seed=probe_seed).probe) == every[:size]


def test_probes_are_drawn_from_all_held_out_samples():
    means = [np.mean(get_numbers(build(probe_seed=seed).probe)) - 10_000 for seed in range(50)]
    assert abs(np.mean(means) - 1499.5) < 60  # the means of 128 have a deviation of 75, that of 50 of them one of 11
    pairs = [len({*get_numbers(build(probe_seed=seed).probe)} & set(range(10_000, 10_128))) for seed in range(20)]
    assert np.mean(pairs) < 10  # 5.5 by chance


@pytest.mark.parametrize("data_seed", [None, 0, 7])
def test_fewer_samples_are_the_beginning_of_more(data_seed):
    labels = np.random.default_rng(0).integers(0, 10, 500)
    every = select_rows(labels, 10, 500, data_seed)
    for size in (1, 9, 10, 123, 499):
        assert (select_rows(labels, 10, size, data_seed) == every[:size]).all()


def test_data_seed_is_random_and_reproducible():
    labels = np.random.default_rng(0).integers(0, 10, 500)
    first, again, other = (select_rows(labels, 10, 100, seed) for seed in (0, 0, 1))
    assert (first == again).all()
    assert len(set(first) & set(other)) < 50
    # 100 of 500 rows in the mean stand at 250; a choice among the first rows of a class would stand far below.
    means = [select_rows(labels, 10, 100, seed).mean() for seed in range(50)]
    assert abs(np.mean(means) - 249.5) < 10


def test_first_class_of_a_round_is_random():
    labels = np.arange(1000) % 10
    firsts = [labels[select_rows(labels, 10, 1, seed)[0]] for seed in range(40)]
    assert len(set(firsts)) > 5


def fill_evenly(available, size):
    """Class counts of a balanced choice, one sample at a time: the slow, obvious way."""
    counts = np.zeros_like(available)
    for _ in range(size):
        open_classes = np.flatnonzero(counts < available)
        counts[open_classes[counts[open_classes].argmin()]] += 1
    return counts


def is_balanced(labels, available, size):
    counts = np.bincount(labels, minlength=len(available))
    return sorted(counts) == sorted(fill_evenly(available, size)) and (counts <= available).all()


@pytest.mark.parametrize("available", [[30] * 10, [100, 3, 50, 1, 70, 0, 20], [5, 500]])
def test_balance_holds_as_far_as_classes_last(available):
    available = np.array(available)
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(available)), available))
    for size in (1, 7, 50, available.sum() // 2, available.sum()):
        chosen = labels[select_rows(labels, len(available), size, 3)]
        assert is_balanced(chosen, available, size), size
    # The twin that must fail: a draw that does not look at the labels.
    plain = np.random.default_rng(3).permutation(labels)[: available.sum() // 2]
    assert not is_balanced(plain, available, len(plain))


def test_order_is_a_permutation():
    labels = np.array([0, 0, 0, 2, 2, 1])
    order = order_balanced(labels, 4, np.random.default_rng(0))
    assert sorted(order) == list(range(6))
    assert set(labels[order[:3]]) == {0, 1, 2}


def test_standardize_uses_the_training_subset_for_all():
    plain, standard = build(), build(standardize=True)
    mean, deviation = plain.train.inputs.mean(), plain.train.inputs.std()
    assert abs(standard.train.inputs.mean()) < 1e-6
    assert abs(standard.train.inputs.std() - 1) < 1e-6
    np.testing.assert_allclose(standard.probe.inputs, (plain.probe.inputs - mean) / deviation, rtol=1e-6)
    assert standard.provenance["input_mean"] == pytest.approx(mean)
    assert standard.provenance["input_deviation"] == pytest.approx(deviation)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_size": 201}, "dataset.train_size=201: numbers has 200 training images"),
        ({"probe_size": 3001}, "dataset.probe_size=3001: numbers has 3000 held-out images"),
        (
            {"probe_size": 2999},
            "dataset.probe_size=2999: leaves 1 of the 3000 held-out images of numbers for testing, which needs 2",
        ),
        (
            {"test_size": 2873},
            "dataset.test_size=2873: numbers has 2872 held-out images beside the probe of 128",
        ),
        ({"test_size": 1}, "dataset.test_size=1: needs 2, one to choose the minimum and one to report"),
        ({"train_size": 1, "standardize": True}, "dataset.standardize=true: all training inputs are the same"),
        ({"standardize": "yes"}, "dataset.standardize=yes: must be true or false"),
        ({"standardize": None}, "dataset.standardize=null: must be true or false"),
        ({"probe_size": None}, "dataset.probe_size=null: must be a positive integer"),
    ],
)
def test_what_cannot_be_had_is_refused(changes, message):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        build(**changes)


@pytest.mark.parametrize("field", ["train_size", "test_size", "probe_size"])
@pytest.mark.parametrize(("value", "shown"), [(0, "0"), (-1, "-1"), (1.5, "1.5"), (True, "true"), ("9", "9")])
def test_sizes_must_be_positive_integers(field, value, shown):
    with pytest.raises(InputError, match=f"^dataset.{field}={shown}: must be a positive integer$"):
        build(**{field: value})


@pytest.mark.parametrize(("value", "shown"), [(-1, "-1"), (0.0, "0.0"), (False, "false"), ("x", "x")])
@pytest.mark.parametrize("field", ["data_seed", "probe_seed"])
def test_seeds_must_be_whole_numbers(field, value, shown):
    with pytest.raises(InputError, match=f"^dataset.{field}={re.escape(shown)}: must be a whole number from 0$"):
        build(**{field: value})


def test_provenance_is_plain_and_complete():
    provenance = build(data_seed=np.int64(3)).provenance
    assert json.loads(json.dumps(provenance)) == provenance
    assert provenance["source"] == "counted"
    sizes = {"train_size": 100, "test_size": 2000, "probe_size": 128}
    assert provenance.items() >= sizes.items()
    assert provenance["data_seed"] == 3


def test_checksum_tells_every_change_of_what_is_used():
    plain = build()
    changes = ({"train_size": 99}, {"test_size": 1998}, {"probe_size": 127}, {"data_seed": 0}, {"standardize": True},
               {"probe_seed": 0})  # fmt: skip
    checksums = {build(**change).provenance["checksum"] for change in changes} | {plain.provenance["checksum"]}
    assert len(checksums) == 1 + len(changes)
    parts = (plain.train, plain.selection, plain.test, plain.probe)
    assert compute_checksum(*parts) == plain.provenance["checksum"]
    plain.train.inputs[[0, 1]] = plain.train.inputs[[1, 0]]
    assert compute_checksum(*parts) != plain.provenance["checksum"]
