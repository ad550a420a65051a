import json

import numpy as np
import pytest

from laws import WIDTHS, make_sweep
from ntklens.analysis.claims import CONTRADICTED, NOT_TESTABLE, SUPPORTED, name_protocol
from ntklens.analysis.groups import arrange_samples, find_groups
from ntklens.analysis.observables import measure_observables
from ntklens.analysis.study import analyse


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
    assert "Of β's exponent" in text
    assert "affine law Tr Θ_0 = a + b m" in text
    assert find_claim(study, "β falls").verdict in (CONTRADICTED, NOT_TESTABLE)
    assert find_claim(study, "Tr Θ_0 grows in proportion").verdict == CONTRADICTED


def test_verdicts_follow_the_rules(study):
    assert find_claim(study, "Γ(Θ_min) grows with the width").verdict == SUPPORTED
    assert find_claim(study, "χ is constant in the width").verdict == SUPPORTED
    loss = find_claim(study, "L_min falls with width")
    assert loss.verdict == CONTRADICTED
    assert "-0.3" in loss.reason
    data = find_claim(study, "Γ(Θ_min) falls with the amount of data")
    assert data.verdict == NOT_TESTABLE
    assert "-m experiment=mnist_data" in data.reason


def test_a_claim_is_supported_where_it_is_true():
    study = analyse(make_sweep(seeds=8, exponents=(-0.5, 0.0)))
    assert find_claim(study, "L_min falls with width").verdict == SUPPORTED
    assert find_claim(study, "Γ(Θ_min) grows with the width").verdict != SUPPORTED


def test_the_arm_is_named_with_its_departures():
    config = {"optimizer": {"_target_": "optax.sgd", "learning_rate": 0.1}, "training": {"loss": "mse"}}
    data = make_sweep(**config)
    arm = name_protocol(data, list(data.run.values))
    assert arm == "paper, training.loss=mse, optimizer=optax.sgd, optimizer.learning_rate=0.1"
    assert name_protocol(make_sweep(), list(make_sweep().run.values)) == "paper"


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
    told = " ".join(diagnosis.sentence for diagnosis in study.diagnoses)
    for words in (
        "7 of 56 seeds diverged",
        "7 of 49 seeds are dead",
        "7 of 49 seeds reach their minimum before update 30",
    ):
        assert words in told


def test_an_unfinished_sweep_says_so():
    states = {"done": 30, "failed": 2, "queued": 20, "diverged": 3, "running": 1}
    study = analyse(make_sweep(), ["s"], states, ["RuntimeError: no such luck"])
    severe = {diagnosis.severity for diagnosis in study.diagnoses}
    told = " ".join(diagnosis.sentence for diagnosis in study.diagnoses)
    assert "error" in severe
    assert "2 of 56 seeds failed (RuntimeError: no such luck)" in told
    assert "21 of 56 seeds are still to come" in told
    assert "30 of 56 seeds done" in study.summary[0]


def test_the_minimum_at_the_last_record_is_said():
    data = make_sweep()
    data["minimum_step"][:] = data.step.isel(record=-1)
    told = " ".join(diagnosis.sentence for diagnosis in analyse(data).diagnoses)
    assert "35 of 35 seeds have their minimum at the last record" in told


def test_the_three_signatures_of_failure():
    rising = analyse(make_sweep(exponents=(-0.3, 0.3)))
    assert any("Γ_min rises without saturating" in one.sentence for one in rising.diagnoses)
    flat = make_sweep()
    flat["trace"] = flat.trace - flat.trace.isel(record=0) + 4e4  # the same Tr Θ_0 at every width
    flat["minimum_trace"] = flat.trace.isel(record=30)
    assert any("β does not fall" in one.sentence for one in analyse(flat).diagnoses)


def test_rounding_in_the_spectrum_is_said():
    data = make_sweep()
    data["minimum_eigenvalues"][..., -1] = -0.5
    assert any("Eigenvalues below zero" in one.sentence for one in analyse(data).diagnoses)
    assert not any("Eigenvalues below zero" in one.sentence for one in analyse(make_sweep()).diagnoses)


@pytest.mark.parametrize("widths", [[16], [16, 32], [16, 32, 64]])
def test_a_few_widths_give_no_number_that_pretends(widths):
    study = analyse(make_sweep(widths=np.array(widths, float)))
    assert all(not law.fits for law in study.laws)
    assert {claim.verdict for claim in study.claims} == {NOT_TESTABLE}


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


def test_a_report_is_the_same_twice():
    first, second = (analyse(make_sweep()) for _ in range(2))
    assert [law.fits["power"].bootstrap for law in first.laws] == [law.fits["power"].bootstrap for law in second.laws]
    assert json.dumps(first.summary) == json.dumps(second.summary)
