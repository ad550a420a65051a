import itertools
import json
import math
import re

import numpy as np
import pytest

from laws import WIDTHS, make_sweep
from ntklens.analysis.claims import find_papers
from ntklens.analysis.groups import arrange_samples, find_groups
from ntklens.analysis.sensitivity import compare_settings
from ntklens.analysis.study import analyse
from ntklens.recording.observables import OBSERVABLES, Observable, measure_observables


@pytest.fixture(scope="module")
def study():
    return analyse(make_sweep(seeds=8), ["made_up"])


def find_law(study, name, group=""):
    return next(law for law in study.laws if (law.observable, law.group) == (name, group))


def find_claim(study, words):
    return next(claim for claim in study.claims if words in claim.claim)


def combine(*sweeps):
    """Sweeps side by side along run."""
    import xarray as xr

    renamed = [
        sweep.assign_coords(run=[f"{index}-{run}" for run in sweep.run.values]) for index, sweep in enumerate(sweeps)
    ]
    return xr.concat(renamed, "run")


def test_laws_of_a_made_up_sweep_are_found(study):
    exponents = {"minimum_loss": -0.3, "minimum_effective_rank": 0.1, "trace_change": 0.0}
    for name, truth in exponents.items():
        interval = find_law(study, name).fits["power"].exponent
        assert interval.low <= truth <= interval.high, name
        assert interval.high - interval.low < 0.1
    initial = find_law(study, "initial_trace")
    assert initial.preferred == "affine"
    scale = initial.fits["affine"].parameters["scale"]
    assert scale.low <= 300 <= scale.high


def test_the_ratio_is_told_to_be_the_trace_before_training(study):
    """β falls only because Tr Θ_0 grows: the summary must say so, and give the affine law's scale."""
    text = " ".join(study.summary)
    assert "Tr Θ_0 alone" in text
    assert "affine law Tr Θ_0 = a + b m" in text


def test_laws_know_how_transitions_were_looked_for(study):
    assert {one.observable: one.power_p for one in study.transitions} == {
        law.observable: law.crossover_p for law in study.laws if OBSERVABLES[law.observable].transition
    }


def test_draws_are_a_random_factor_and_no_axis():
    observables = measure_observables(make_sweep(draws=3))
    groups = find_groups(observables)
    assert [group.axis for group in groups] == ["model.width"]
    x, y, factors = arrange_samples(observables, groups[0], "minimum_loss")
    assert x.tolist() == WIDTHS.tolist()
    assert y.shape == (7, 3, 1, 5)
    assert factors == ("draw", "probe", "seed")
    for row, name in enumerate(groups[0].runs):
        at = np.flatnonzero(observables.run.values == name)[0]
        draw = int(observables["dataset.data_seed"].values[at])
        np.testing.assert_array_equal(y[row // 3, draw, 0], observables.minimum_loss.values[at])


def test_probes_are_a_random_factor_that_looks_at_the_same_networks():
    """Γ of each probe lies high or low at all widths: its size is less sure, its exponent is not, nor is L_min."""
    one, effects = make_sweep(), (-0.2, 0.0, 0.2)
    parts = []
    for probe, effect in enumerate(effects):
        part = one.copy(deep=True)
        part["minimum_effective_rank"] *= np.exp(effect)
        parts.append(part.assign_coords({"dataset.probe_seed": ("run", np.full(len(WIDTHS), probe))}))
    alone, several = analyse(one), analyse(combine(*parts))
    assert [group.axis for group in several.groups] == ["model.width"]
    assert not any("one probe" in diagnosis.sentence for diagnosis in several.diagnoses)
    for name in ("minimum_loss", "minimum_effective_rank"):
        first, second = (find_law(study, name).fits["power"] for study in (alone, several))
        assert second.count.tolist() == first.count.tolist()  # networks, not networks times probes
        assert second.aicc == pytest.approx(first.aicc, rel=1e-6)
        ends = [[one.exponent.value, one.exponent.low, one.exponent.high] for one in (first, second)]
        np.testing.assert_allclose(ends[1], ends[0], rtol=1e-6)
    laws = [find_law(study, "minimum_effective_rank") for study in (alone, several)]
    sizes = [law.fits["power"].parameters["amplitude"] for law in laws]
    assert sizes[1].high / sizes[1].low > 1.5 * sizes[0].high / sizes[0].low
    compared = compare_settings(several.data, several.observables, several.groups, several.laws, several.claims)
    assert [one.draw for one in compared[0].settings] == ["", "probe 0", "probe 1", "probe 2"]


def test_other_settings_make_groups_and_tied_ones_are_said():
    shallow, deep = make_sweep(), make_sweep(seed=1)
    both = combine(
        shallow.assign_coords({"model.depth": ("run", [2] * 7)}), deep.assign_coords({"model.depth": ("run", [4] * 7)})
    )
    groups = [group for group in find_groups(measure_observables(both)) if group.axis == "model.width"]
    assert [group.label for group in groups] == ["model.depth=2", "model.depth=4"]
    rate = 1 / shallow["model.width"].values
    tied = analyse(shallow.assign_coords({"optimizer.learning_rate": ("run", rate)}))
    assert [group.axis for group in tied.groups] == ["model.width"]
    assert any("other settings change too: optimizer.learning_rate" in one.sentence for one in tied.diagnoses)


@pytest.mark.slow
def test_what_must_not_count_does_not_count():
    """Diverged, dead and unresolved seeds leave every fit as it would be without them."""
    clean = make_sweep(seeds=8)
    spoilt = clean.copy(deep=True)
    state = np.full((7, 8), "done", dtype="<U10")
    state[:, 0] = "diverged"
    spoilt = spoilt.assign_coords(state=(("run", "seed"), state))
    spoilt["constant_output"] = (("run", "seed"), np.zeros((7, 8)))
    spoilt.constant_output[:, 1] = 1
    spoilt.minimum_step[:, 2] = 3
    for name in ("minimum_test_loss", "minimum_effective_rank"):
        spoilt[name][:, :3] = 1e6
    rest = analyse(clean.isel(seed=slice(3, None)))
    study = analyse(spoilt)
    for name in ("minimum_loss", "minimum_effective_rank"):
        ours, theirs = (find_law(one, name).fits["power"].exponent for one in (study, rest))
        np.testing.assert_allclose(
            [ours.value, ours.low, ours.high], [theirs.value, theirs.low, theirs.high], rtol=1e-9
        )
    text = " ".join(diagnosis.sentence for diagnosis in study.diagnoses)
    for words in (
        "7 of 56 seeds diverged",
        "7 of 49 seeds are dead",
        "7 of 49 seeds reach their minimum before update 30",
    ):
        assert words in text


def test_an_unfinished_sweep_says_so():
    states = {"done": 30, "failed": 2, "queued": 20, "diverged": 3, "running": 1}
    study = analyse(make_sweep(), ["s"], states, ["RuntimeError: no such luck"])
    severe = {diagnosis.severity for diagnosis in study.diagnoses}
    text = " ".join(diagnosis.sentence for diagnosis in study.diagnoses)
    assert "error" in severe
    assert "2 of 56 seeds failed (RuntimeError: no such luck)" in text
    assert "21 of 56 seeds are still to come" in text
    assert "30 of 56 seeds done" in study.summary[0]


@pytest.mark.slow
def test_the_minimum_at_the_last_record_is_said():
    data = make_sweep()
    data["minimum_step"][:] = data.step.isel(record=-1)
    study = analyse(data)
    text = " ".join(diagnosis.sentence for diagnosis in study.diagnoses)
    assert "35 of 35 seeds have their minimum at the last record or next to it (open)" in text
    assert study.summary[1].startswith("In 35 of 35 seeds training ended before the test loss rose")


def test_one_of_a_thing_is_singular():
    data = make_sweep()
    data["minimum_step"][0, 0] = data.step.isel(record=-1)[0, 0]
    study = analyse(data)
    text = " ".join(diagnosis.sentence for diagnosis in study.diagnoses)
    assert "1 of 35 seeds has its minimum at the last record or next to it (open)" in text
    assert "In 1 of 35 seeds training ended" in study.summary[1]
    assert "training ended" not in " ".join(analyse(make_sweep()).summary)


def test_a_minimum_at_the_last_record_asks_for_longer_training_alone():
    """Training that stopped before update 30 has its minimum too early, but a smaller step would not help."""
    data = make_sweep()
    data["minimum_step"][:] = data.step.isel(record=-1)
    data["step"][:] = data.step * (20 / data.step.max())
    data["minimum_step"][:] = data.step.isel(record=-1)
    data["minimum_step"][:2] = 3
    diagnoses = analyse(data).diagnoses
    text = " ".join(diagnosis.sentence for diagnosis in diagnoses)
    assert "25 of 35 seeds have their minimum at the last record or next to it (open)" in text
    assert "10 of 35 seeds reach their minimum before update 30" in text


@pytest.mark.slow
def test_the_three_signatures_of_failure():
    rising = analyse(make_sweep(exponents=(-0.3, 0.3)))
    assert any("Γ_min rises without saturating" in one.sentence for one in rising.diagnoses)
    flat = make_sweep()
    flat["trace"] = flat.trace - flat.trace.isel(record=0) + 4e4  # the same Tr Θ_0 at every width
    flat["minimum_trace"] = flat.trace.isel(record=30)
    assert any("β does not fall" in one.sentence for one in analyse(flat).diagnoses)


def test_the_split_of_beta_adds_up(study):
    sentence = next(one for one in study.summary if "by Tr Θ_0 alone" in one)
    total, grown, started = (float(number) for number in re.findall(r"[-+]\d\.\d\d(?= \[[^]]+\](?: by|:))", sentence))
    assert total == pytest.approx(grown + started, abs=0.011)
    assert started < -0.2


@pytest.mark.slow
def test_a_negative_ratio_supports_nothing():
    """β = −0.5 (m/16)^−0.75: its size falls as the paper says, but the kernel shrinks."""
    data = make_sweep()
    start = data.trace.isel(record=0)
    ratio = -0.5 * (data["model.width"] / 16) ** -0.75
    data["minimum_trace"] = start * (1 + ratio)
    study = analyse(data)
    claim = find_claim(study, "β falls")
    assert claim.verdict not in ("supported", "contradicted")
    assert "negative" in claim.reason
    assert any("β is negative" in one.sentence for one in study.diagnoses)


@pytest.mark.slow
def test_joint_laws_do_not_mix_other_settings():
    sweeps = []
    for depth, size in itertools.product((1, 4), (128, 256, 512, 1024)):
        sweep = make_sweep(widths=np.array([16.0, 32, 64, 128]), seed=size)
        sweep["minimum_test_loss"] = sweep.minimum_test_loss * 0 + depth * (
            3 * sweep["model.width"] ** -0.5 + 20 * size**-0.7
        )
        # Two settings that go together: one of them names the groups.
        settings = {"dataset.train_size": size, "model.depth": depth, "model.output_scale": float(depth)}
        sweeps.append(sweep.assign_coords({name: ("run", [value] * 4) for name, value in settings.items()}))
    surfaces = [one for one in analyse(combine(*sweeps)).surfaces if one.form == "combined"]
    assert [one.group for one in surfaces] == ["model.depth=1", "model.depth=4"]
    assert all(one.n == 16 for one in surfaces)


def test_zero_has_no_place_on_an_axis():
    data = make_sweep(widths=np.array([16.0, 32, 64, 128, 256]))
    noise = np.array([0.0, 0.1, 0.2, 0.4, 0.8])
    data = data.drop_vars("model.width").assign_coords({"dataset.label_noise": ("run", noise)})
    study = analyse(data)
    assert [group.axis for group in study.groups] == ["dataset.label_noise"]
    assert len(study.groups[0].runs) == 4
    assert any("no place on a logarithmic axis" in one.sentence for one in study.diagnoses)


@pytest.mark.slow
def test_draws_that_change_along_with_the_axis_are_said():
    data = make_sweep().assign_coords({"dataset.data_seed": ("run", np.arange(7))})
    assert any("change together" in one.sentence for one in analyse(data).diagnoses)


def test_draws_that_are_not_complete_still_count():
    """Each of four draws lacks one width: what they have in common must widen the interval of the size."""
    from ntklens.stats.samples import summarise

    full = arrange_samples(
        measure_observables(make_sweep(draws=4)),
        find_groups(measure_observables(make_sweep(draws=4)))[0],
        "minimum_loss",
    )
    x, y, factors = full
    y = y * np.exp(0.2 * np.array([-1.5, -0.5, 0.5, 1.5]))[None, :, None, None]
    for draw in range(4):
        y[draw, draw] = np.nan
    assert summarise(x, y, factors).common == pytest.approx(0.2**2 * 5 / 3 / 4, rel=0.5)


def test_trajectories_that_hold_less_than_todays():
    study = analyse(make_sweep().drop_vars(["minimum_step", "effective_rank", "minimum_selection_loss"]))
    assert find_law(study, "initial_trace").fits


@pytest.mark.slow
def test_rounding_in_the_spectrum_is_said():
    data = make_sweep()
    data["minimum_eigenvalues"][..., -1] = -0.5
    assert any("Eigenvalues below zero" in one.sentence for one in analyse(data).diagnoses)
    assert not any("Eigenvalues below zero" in one.sentence for one in analyse(make_sweep()).diagnoses)


@pytest.mark.parametrize("widths", [[16], [16, 32], [16, 32, 64]])
def test_a_few_widths_give_no_number_that_pretends(widths):
    study = analyse(make_sweep(widths=np.array(widths, float)))
    assert all(not law.fits for law in study.laws)
    assert {claim.verdict for claim in study.claims} <= {"outside", "not swept"}


def test_one_trajectory_is_no_sweep_and_no_error():
    study = analyse(make_sweep(widths=np.array([16.0]), seeds=1))
    assert study.groups == []
    assert "no axis" in " ".join(study.summary)


def test_all_seeds_diverged():
    study = analyse(make_sweep(state="diverged"))
    assert all(not law.fits for law in study.laws)


def test_a_joint_sweep_has_a_surface():
    widths, sizes = np.array([16.0, 32, 64, 128]), [128, 256, 512, 1024]
    sweeps = []
    for size in sizes:
        sweep = make_sweep(widths=widths, seed=size)
        sweep["minimum_test_loss"] = (
            sweep.minimum_test_loss * 0 + 0.2 + 3 * sweep["model.width"] ** -0.5 + 20 * size**-0.7
        )
        sweeps.append(sweep.assign_coords({"dataset.train_size": ("run", [size] * 4)}))
    study = analyse(combine(*sweeps))
    surface = next(surface for surface in study.surfaces if surface.form == "additive")
    for name, truth in {"a": 0.5, "b": 0.7, "E": 0.2, "A": 3.0, "B": 20.0}.items():
        assert surface.parameters[name].value == pytest.approx(truth, rel=0.02), name
    assert any("Joint law" in sentence for sentence in study.summary)


@pytest.mark.slow
def test_a_report_is_the_same_twice():
    first, second = (analyse(make_sweep()) for _ in range(2))
    bootstraps = [
        {(law.observable, form): fit.bootstrap for law in study.laws for form, fit in law.fits.items()}
        for study in (first, second)
    ]
    assert bootstraps[0]
    assert bootstraps[0] == bootstraps[1]
    assert json.dumps(first.summary) == json.dumps(second.summary)


def test_an_observable_that_is_fitted_and_charted_is_one_entry(monkeypatch):
    from ntklens.report.charts.laws import chart_laws

    entry = Observable(
        "minimum_train_loss", "L_train,min", "train loss at the minimum",
        lambda data: data["minimum_trace"].values, fitted=True, summarised=True, charted=True,
    )  # fmt: skip
    monkeypatch.setitem(OBSERVABLES, entry.name, entry)
    study = analyse(make_sweep(widths=WIDTHS[:5], seeds=3))
    assert find_law(study, entry.name).fits
    assert any(sentence.startswith(entry.symbol) for sentence in study.summary)
    (chart,) = chart_laws(study)
    assert entry.name in [panel.name for panel in chart.panels]


def test_the_summary_and_the_claims_give_one_number(study):
    checked = 0
    for claim in study.claims:
        statement = next((s for paper in find_papers() for s in paper.statements if s.text == claim.claim), None)
        law = next((law for law in study.laws if law.observable == getattr(statement, "observable", "")), None)
        if claim.axis == "model.width" and law and law.preferred == "power" and math.isfinite(claim.measured.value):
            assert f"{claim.measured.value:.3f} [{claim.measured.low:.3f}, {claim.measured.high:.3f}]" in law.finding
            assert law.finding in " ".join(study.summary)
            checked += 1
    assert checked >= 2
