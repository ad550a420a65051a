import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntklens.recording.observables import compute_adaptation_rate, compute_observables, fit_path_slope, list_observables
from trajectories import make_trajectory


def make_path(log_loss, trace):
    return make_trajectory(records=len(trace), train_loss=np.exp(log_loss), trace=np.asarray(trace, float))


def test_a_straight_line_has_its_slope_and_r2_of_one():
    log_loss = np.log([2.3, 1.7, 0.9, 0.3])
    rate = compute_adaptation_rate(make_path(log_loss, 5 - 7 * log_loss))
    assert rate.slope == pytest.approx(-7)
    assert rate.r2 == pytest.approx(1)


def test_equals_least_squares_over_points_equally_spaced_in_log_loss():
    x, y = np.array([0.8, 0.5, -0.3, -2.0]), np.array([1.0, 1.5, 4.0, 4.5])
    dense = np.linspace(x[-1], x[0], 200_001)
    values = np.interp(dense, x[::-1], y[::-1])
    slope, intercept = np.polyfit(dense, values, 1)
    r2 = 1 - np.var(values - intercept - slope * dense) / np.var(values)
    fit = fit_path_slope(x, y)
    assert fit.slope == pytest.approx(slope, rel=1e-4)
    assert fit.r2 == pytest.approx(r2, rel=1e-4)


@given(st.lists(st.floats(0.01, 0.99), min_size=1, max_size=5))
def test_does_not_depend_on_the_schedule(cuts):
    """More records on the same path change nothing; an ordinary fit through the records would change."""
    x, y = np.array([1.0, 0.2, -1.5]), np.array([0.0, 3.0, 4.0])
    at = np.sort(np.concatenate([np.arange(3), cuts]))
    finer = fit_path_slope(np.interp(at, range(3), x), np.interp(at, range(3), y))
    assert finer.slope == pytest.approx(fit_path_slope(x, y).slope, rel=1e-9)


def test_only_the_path_to_the_minimum_counts():
    log_loss, trace = np.array([0.0, -1.0, -2.0, -3.0]), np.array([0.0, 1.0, 2.0, 50.0])
    trajectory = make_path(log_loss, trace)
    trajectory["minimum_step"] = 2.0
    assert compute_adaptation_rate(trajectory).slope == pytest.approx(-1)


def test_no_path_no_rate():
    trajectory = make_path(np.array([0.0, -1.0]), np.array([0.0, 1.0]))
    trajectory["minimum_step"] = 0.0
    assert np.isnan(compute_adaptation_rate(trajectory).slope)


def test_names_and_signs():
    observables = compute_observables(make_path(np.log([2.0, 1.0]), [10.0, 30.0]))
    assert observables["trace_change"] == 20
    assert observables["trace_ratio"] == 2
    assert observables["adaptation_rate"] == pytest.approx(-20 / np.log(2))


def test_each_use_of_an_observable_is_a_flag_of_its_entry():
    linear = list_observables("linear")
    assert linear == ("minimum_accuracy",)
    assert [name for name in list_observables("charted") if name not in linear] == list(list_observables("summarised"))
    assert list_observables("joint") == ("minimum_loss",)
    assert list_observables("transition") == ("trace_ratio", "minimum_effective_rank")
    assert set(list_observables("summarised")) | set(list_observables("transition")) <= set(list_observables("fitted"))
    assert set(list_observables("tabled")) | set(list_observables("dashboard")) <= set(list_observables("main"))
