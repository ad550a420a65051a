"""Runs whose step is divided beside runs whose step is whole: pairs, changes, and what is said of them."""

import numpy as np
import pytest
import xarray as xr

from laws import make_sweep
from ntklens.analysis.convergence import AT_EQUAL_LOSS, COMPARED, LIMIT, Change, compare_steps
from ntklens.analysis.groups import DIVISOR, find_groups
from ntklens.analysis.study import analyse
from ntklens.recording.observables import find_resolution, measure_observables
from ntklens.report.tables import write_steps

WIDTHS = np.array([32.0, 128.0, 512.0, 2048.0])


def pair(change=1.0, seeds=3, jitter=0.0):
    """A sweep over the width, and the same with a third of the step: ΔTr is `change` times as large there.

    Members depart from that by −jitter, 0, jitter, ….
    """
    whole = make_sweep(WIDTHS, seeds=seeds)
    third = make_sweep(WIDTHS, seeds=seeds)
    factor = change + jitter * np.resize([-1, 0, 1], (len(WIDTHS), seeds))
    start = third["trace"].values[..., :1]
    third["trace"].values[...] = start + factor[..., None] * (third["trace"].values - start)
    third["minimum_trace"].values[...] = third["trace"].values[..., 30]
    renamed = third.assign_coords(run=[f"{run}-third" for run in third.run.values])
    both = xr.concat([whole, renamed], "run")
    return both.assign_coords({DIVISOR: ("run", np.repeat([1.0, 3.0], len(WIDTHS)))})


def test_a_change_beyond_the_limit_in_all_members_is_found_at_the_minimum_and_at_equal_loss():
    data = pair(change=1.2)
    changes = compare_steps(data, measure_observables(data))
    assert {one.observable for one in changes} == {*COMPARED, AT_EQUAL_LOSS}
    assert {(one.run, one.divided) for one in changes} == {(f"w{w:g}-0", f"w{w:g}-0-third") for w in WIDTHS}
    for name in ("trace_change", "trace_ratio", "adaptation_rate", AT_EQUAL_LOSS):
        own = [one for one in changes if one.observable == name]
        assert [one.mean for one in own] == pytest.approx([0.2] * len(WIDTHS), rel=1e-4)
        assert all(one.is_large and one.count == 3 for one in own)
    assert not any(one.is_large for one in changes if one.observable in ("minimum_loss", "minimum_effective_rank"))


def test_members_that_jitter_raise_no_alarm_and_one_alone_neither():
    data = pair(change=1.09, jitter=0.17)  # 5–17 % at the minimum: 9 ± 10 %
    assert not any(one.is_large for one in compare_steps(data, measure_observables(data)))
    alone = pair(change=1.5, seeds=1)
    changes = compare_steps(alone, measure_observables(alone))
    assert max(one.mean for one in changes) == pytest.approx(0.5, rel=1e-4)
    assert not any(one.is_large for one in changes)


def test_a_change_within_the_limit_is_small_however_sure():
    assert not Change("trace_change", "a", "b", 3.0, 0.9 * LIMIT, 1e-4, 3).is_large
    assert Change("trace_change", "a", "b", 3.0, -1.1 * LIMIT, 1e-4, 3).is_large
    assert not Change("trace_change", "a", "b", 3.0, 1.1 * LIMIT, 0.6 * LIMIT, 3).is_large


def test_at_equal_loss_a_minimum_that_comes_later_changes_nothing():
    """The same path, gone further: at the minimum ΔTr differs, at equal train loss it does not."""
    data = pair()
    last = data.sizes["run"] // 2
    for name in ("step", "train_loss", "trace", "selection_loss"):
        data[f"minimum_{name}"].values[last:] = data[name].values[last:, :, 36]
    changes = compare_steps(data, measure_observables(data))
    assert all(one.mean > 0.1 for one in changes if one.observable == "trace_change")
    assert [one.mean for one in changes if one.observable == AT_EQUAL_LOSS] == pytest.approx(
        [0] * len(WIDTHS), abs=1e-6
    )


def test_runs_with_a_divided_step_are_no_axis_and_in_no_law():
    data = pair(change=1.2)
    (group,) = find_groups(measure_observables(data))
    assert (group.axis, group.label, len(group.runs)) == ("model.width", "", len(WIDTHS))


@pytest.mark.parametrize(
    ("data", "severity", "words"),
    [
        (pair(1.2), "warning", "is not resolved: with the step over 3 "),
        (pair(1.0), "note", "The step is small enough"),
        (pair(1.5, seeds=1), "note", "one seed does not tell"),
        (pair(1.09, jitter=0.17), "note", "members scatter too much"),
    ],
)
def test_the_study_says_whether_the_step_is_small_enough_or_that_it_is_not_known(data, severity, words):
    own = [
        one for one in analyse(data).diagnoses if "protocol.step_divisor" in one.advice or "divided, " in one.sentence
    ]
    assert own
    assert {one.severity for one in own} == {severity}
    assert all(words in one.sentence and "nan" not in one.sentence for one in own)


def test_each_divisor_has_its_own_sentence():
    data = pair(1.2)
    tenth = data.isel(run=slice(len(WIDTHS), None))
    tenth = tenth.assign_coords(
        {"run": [f"{run}-tenth" for run in tenth.run.values], DIVISOR: ("run", np.full(len(WIDTHS), 10.0))}
    )
    sentences = [one.sentence for one in analyse(xr.concat([data, tenth], "run")).diagnoses]
    for divisor in ("3", "10"):
        own = [text for text in sentences if f"with the step over {divisor} " in text]
        assert len(own) == len(WIDTHS)
        assert all(text.count("χ") == 1 for text in own)


def test_runs_of_two_sweeps_are_compared_each_with_that_of_its_own_sweep_if_there_is_one():
    data = pair(change=1.2)
    half = len(WIDTHS)
    apart = data.assign_coords(sweep=("run", np.repeat(["whole", "divided"], half)))
    changes = compare_steps(apart, measure_observables(apart))
    assert {(one.run, one.divided) for one in changes} == {(f"w{w:g}-0", f"w{w:g}-0-third") for w in WIDTHS}
    again = data.isel(run=slice(half)).assign_coords(run=[f"w{w:g}-again" for w in WIDTHS])
    both = xr.concat([again, data], "run").assign_coords(sweep=("run", np.repeat(["b", "a", "a"], half)))
    changes = compare_steps(both, measure_observables(both))
    assert {(one.run, one.divided) for one in changes} == {(f"w{w:g}-0", f"w{w:g}-0-third") for w in WIDTHS}


def test_changes_are_written_one_a_row(tmp_path):
    study = analyse(pair())
    write_steps(tmp_path / "steps.csv", study)
    rows = (tmp_path / "steps.csv").read_text().splitlines()
    assert rows[0] == "observable,run,divided,divisor,mean,error,count,is_large"
    assert len(rows) == 1 + len(WIDTHS) * (len(COMPARED) + 1)


def test_an_early_minimum_is_unresolved_and_the_last_record_is_open():
    data = make_sweep(WIDTHS, seeds=3)
    data["minimum_step"].values[0, 0] = 29
    data["minimum_step"].values[0, 1] = data["step"].values[0, 1, -1]
    data["minimum_step"].values[0, 2] = np.nan
    assert find_resolution(data)[0].tolist() == ["unresolved", "open", ""]
    assert set(find_resolution(data)[1:].ravel()) == {"resolved"}


@pytest.mark.parametrize(("after", "word"), [(1.01, "open"), (1.08, "resolved")])
def test_a_minimum_next_to_the_last_record_is_open(after, word):
    """Records end …, 397, 400 where the last update is off their grid."""
    data = make_sweep(WIDTHS, seeds=3)
    data["minimum_step"].values[:] = data["step"].values[..., -1] / after
    assert set(find_resolution(data).ravel()) == {word}


def test_two_arms_are_two_groups_named_by_the_arm():
    """Whatever else differs between them: the step, the epochs."""
    first, second = make_sweep(WIDTHS), make_sweep(WIDTHS)
    both = xr.concat([first, second.assign_coords(run=[f"{run}-b" for run in second.run.values])], "run")
    half = len(WIDTHS)
    both = both.assign_coords(
        {
            "protocol.arm": ("run", np.repeat(["paper", "resolved"], half)),
            "optimizer.learning_rate": ("run", np.repeat([1e-3, np.nan], half)),
            "training.epochs": ("run", np.repeat([1000, 2000], half)),
        }
    )
    groups = [one for one in find_groups(measure_observables(both)) if one.axis == "model.width"]
    assert [one.label for one in groups] == ["protocol.arm=paper", "protocol.arm=resolved"]
