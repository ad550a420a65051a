import numpy as np
import pytest

from laws import CURVES, WIDTHS, draw_values
from ntklens.analysis.transitions import compare_transitions
from ntklens.stats.forms import FORMS
from ntklens.stats.powerlaw import fit_form
from ntklens.stats.profile import profile
from ntklens.stats.samples import summarise
from ntklens.stats.transition import check_break, find_peak, find_transition, measure_least, reject_form


def draw(curve, repeat, seeds=20, misfit=0.03):
    return summarise(WIDTHS, draw_values(curve, np.random.default_rng(repeat), seeds, misfit)[:, 0])


def find(curve, repeat, name="trace_ratio", **options):
    return find_transition(draw(curve, repeat, **options), name, "model.width", rng=np.random.default_rng(repeat))


BENT = ("plateau_power", "power_plateau")
BROKEN = np.where(WIDTHS < 128, WIDTHS**-0.05, 128**-0.05 * (WIDTHS / 128) ** -1.0)
SMOOTH = 20 * WIDTHS**-0.1 * (1 + WIDTHS / 200) ** -0.8


@pytest.mark.slow
@pytest.mark.parametrize("curve", ["power", "affine", "inverse_affine", "plateau_power", "sharp", SMOOTH], ids=str)
def test_smooth_truth_has_no_break(curve):
    curve = CURVES[curve](WIDTHS) if isinstance(curve, str) else curve
    repeats = 100
    found = sum(check_break(draw(curve, repeat), np.random.default_rng(repeat))[1] < 0.05 for repeat in range(repeats))
    assert found <= 0.05 * repeats + 2


@pytest.mark.slow
def test_the_twin_a_break_is_found():
    found = sum(
        check_break(draw(BROKEN, repeat, misfit=0.01), np.random.default_rng(repeat))[1] < 0.05 for repeat in range(20)
    )
    assert found >= 15


def test_rounding_is_no_break():
    """β equal at every width but for float32: no form is rejected by errors of rounding."""
    values = np.float32(0.7) * np.ones((7, 5), np.float32)
    values[:, 0] = np.nextafter(values[:, 0], np.float32(1))
    transition = find_transition(summarise(WIDTHS, values), "trace_ratio", "model.width")
    assert not transition.within
    assert not transition.break_p < 0.05


@pytest.mark.slow
def test_a_power_law_has_no_transition():
    found = [find(CURVES["power"](WIDTHS), repeat) for repeat in range(25)]
    assert sum(transition.within for transition in found) <= 2
    assert any("none within the sweep" in transition.sentence for transition in found)


@pytest.mark.slow
def test_the_scale_of_a_smooth_crossover_is_found():
    found = [find(CURVES["inverse_affine"](WIDTHS), repeat) for repeat in range(25)]
    claimed = [transition for transition in found if transition.within]
    assert len(claimed) >= 20
    assert sum(t.scale.low <= 400 <= t.scale.high for t in claimed) >= 0.9 * len(claimed)
    assert {transition.method for transition in claimed} == {"plateau → power"}


def test_saturation_is_told_from_falling():
    found = find(CURVES["power_plateau"](WIDTHS), 0, "minimum_effective_rank", misfit=0.005)
    assert found.method == "power → plateau"
    assert found.scale.low <= 300 <= found.scale.high


def test_too_few_points_say_how_many():
    samples = summarise(WIDTHS[:4], draw_values(CURVES["power"](WIDTHS[:4]), np.random.default_rng(0), 5)[:, 0])
    transition = find_transition(samples, "trace_ratio", "model.width")
    assert not transition.within
    assert "needs 5 along the axis, there are 4" in transition.sentence


def test_a_maximum_inside_is_found_and_a_plateau_is_none():
    hill = np.exp(-0.1 * np.log(WIDTHS / 200) ** 2)
    peak = find_peak(draw(hill, 0, misfit=0.01))
    assert peak.low < 200 < peak.high
    flat = [find_peak(draw(CURVES["power_plateau"](WIDTHS), repeat, misfit=0.01)) for repeat in range(20)]
    assert sum(np.isfinite(one.value) for one in flat) <= 1


@pytest.mark.parametrize("points", [7, pytest.param(5, marks=pytest.mark.slow)])
def test_p_values_of_a_true_form_are_uniform_also_against_two_curves(points):
    """The twin: the better curve, chosen after looking, rejects more often than it says."""
    p, chosen = [], []
    for repeat in range(40 if points == 7 else 200):
        values = draw_values(CURVES["power"](WIDTHS[:points]), np.random.default_rng(repeat), 5, 0.03)[:, 0]
        null = fit_form(summarise(WIDTHS[:points], values), "power")
        p.append(reject_form(null, BENT, np.random.default_rng(repeat), 49))
        chosen.append(min(reject_form(null, (one,), np.random.default_rng(repeat), 49) for one in BENT))
    assert np.mean(np.array(p) < 0.05) <= 0.12
    assert np.mean(p) == pytest.approx(0.5, abs=0.13)
    assert np.mean(chosen) < np.mean(p) - 0.1


def test_least_squares_for_many_data_are_those_for_each():
    samples = draw(CURVES["inverse_affine"](WIDTHS), 0)
    for form in ("power", "affine", "plateau_power", "broken_power"):
        logs, weights = np.log(samples.mean), 1 / (samples.variance + 0.03**2)
        least = measure_least(form, WIDTHS, logs[None], weights)
        assert least[0] == pytest.approx(profile(FORMS[form], WIDTHS, logs, weights).loss.min(), rel=0.02)


def test_agreement_is_said():
    beta = find(CURVES["inverse_affine"](WIDTHS), 0)
    gamma = find(CURVES["power_plateau"](WIDTHS), 0, "minimum_effective_rank", misfit=0.005)
    none = find(CURVES["power"](WIDTHS), 1, "minimum_effective_rank")
    assert "β and Γ_min do not differ" in compare_transitions(beta, gamma)
    assert "only β shows a crossover" in compare_transitions(beta, none)
