"""The rule that chooses a step, on curves whose minimum is known."""

import math

import pytest

from ntklens.errors import InputError
from ntklens.training.resolution import (
    DIVERGED,
    FOUND,
    HIGH,
    LAST,
    LATE,
    LOW,
    NO_MINIMUM,
    RECORD_RATIO,
    ROUNDS,
    UNSETTLED,
    Round,
    Start,
    Watch,
    search_step,
    start_adam,
    start_curvature,
    start_descent,
)
from ntklens.training.schedule import make_geometric_steps


def fall_and_rise(length):
    """Losses after t updates: the train loss falls for ever, the selection loss is least at `length`."""

    def curve(t):
        return 2.3 * math.exp(-2 * t / length), 1 + 0.5 * (math.log((t + 0.05 * length) / (1.05 * length))) ** 2

    return curve


def knee(length):
    """Mean squared error's: the selection loss falls to a plateau, on which it creeps down."""
    return lambda t: (0.1 * math.exp(-3 * t / length), 0.04 + 0.06 * math.exp(-4 * t / length) - 1e-8 * t)


def follow(curve, rate=1.0):
    watch = Watch()
    for step in make_geometric_steps(LAST, RECORD_RATIO):
        if end := watch.look(int(step), *curve(int(step))):
            return watch.finish(rate, end, int(step))
    raise AssertionError("a round ends at the latest with its last update")


def search(start, curve_of):
    return search_step(start, lambda rate: follow(curve_of(rate), rate))


def on_grid(rate):
    return math.isclose(2 * math.log2(rate), round(2 * math.log2(rate)), abs_tol=1e-9)


@pytest.mark.parametrize("length", [20, 60, 170, 300])
def test_a_round_ends_soon_after_the_minimum(length):
    one = follow(fall_and_rise(length))
    assert one.end == FOUND
    assert length / 1.25 <= one.minimum <= 1.25 * length
    assert one.near <= one.minimum
    assert one.updates < 2.4 * length + 10


def test_a_round_ends_behind_the_knee_of_a_plateau():
    """A rule that waits for the loss to rise would go on to the last update."""
    one = follow(knee(100))
    assert one.end == FOUND
    assert LOW < one.near < one.minimum == one.updates < LAST  # the lowest is the last: n1 is what means something


def learn_little(share):
    """Hard data: `fall_and_rise`, but the selection loss never falls further than by a share of itself."""

    def curve_of(length):
        train, selection = 0, 1
        first = fall_and_rise(length)(0)[selection]
        scale = share / (first - 1)
        return lambda t: (
            fall_and_rise(length)(t)[train],
            2.3 * (1 - share + scale * (fall_and_rise(length)(t)[selection] - 1)),
        )

    return curve_of


@pytest.mark.parametrize("share", [0.5, 0.09, 0.02, 0.005])
def test_the_rule_finds_the_minimum_however_little_there_is_to_learn(share):
    """Within 1 % of the minimum are all updates where the whole fall is less."""
    choice = search(Start(1e-2), lambda rate: learn_little(share)(0.2 / rate))
    assert choice.status == FOUND
    assert 0.3 <= choice.rounds[-1].near / choice.rounds[-1].minimum < 1


def test_where_the_fall_is_more_than_a_tenth_near_is_within_one_percent():
    curve = learn_little(0.12)(100)
    one = follow(curve)
    lowest = curve(one.minimum)[1]
    assert one.near == next(t for t in make_geometric_steps(LAST, RECORD_RATIO) if curve(int(t))[1] <= 1.01 * lowest)


def test_a_minimum_beyond_the_last_update_is_late():
    assert follow(fall_and_rise(2000)) == Round(1.0, LATE, follow(fall_and_rise(2000)).near, LAST, LAST)


def test_a_delay_before_anything_is_learnt_is_no_minimum():
    """Momentum's: for fifteen updates nothing moves, and then all does."""

    def delayed(t):
        train, selection = fall_and_rise(150)(max(0, t - 15))
        return (2.3, selection) if t <= 15 else (train, selection)

    one = follow(delayed)
    assert one.end == FOUND
    assert one.near > LOW


@pytest.mark.parametrize(
    "curve",
    [
        lambda t: (2.3 * 1.5**t, 2.3 * 1.5**t),
        lambda t: (math.nan, 1.0) if t > 3 else (2.3, 2.3),
        lambda t: (1.0, math.inf) if t > 40 else (2.3, 2.3 - 0.01 * t),
    ],
)
def test_divergence(curve):
    assert follow(curve).end == DIVERGED


def test_a_spike_later_than_ten_updates_is_no_divergence():
    assert follow(lambda t: (50.0, 2.0) if t == 18 else fall_and_rise(170)(t)).end == FOUND


def test_a_step_that_fits_is_taken_as_it_is():
    choice = search(Start(2**-8), lambda rate: fall_and_rise(200 * 2**-8 / rate))
    assert (choice.learning_rate, choice.status, len(choice.rounds)) == (2**-8, FOUND, 1)


@pytest.mark.parametrize("off", [1 / 8, 1 / 3, 3, 8])
def test_a_start_that_is_off_is_corrected(off):
    choice = search(Start(2**-8 * off), lambda rate: fall_and_rise(200 * 2**-8 / rate))
    assert choice.status == FOUND
    assert len(choice.rounds) <= 3
    assert LOW <= choice.rounds[-1].near <= HIGH
    assert on_grid(choice.learning_rate)


def test_a_step_that_diverges_is_quartered_and_half_of_it_is_never_passed():
    tried = []

    def curve_of(rate):
        tried.append(rate)
        return fall_and_rise(170 * 2**-8 / rate * 40) if rate < 2**-8 else (lambda t: (math.nan, math.nan))

    choice = search(Start(2**-8), curve_of)
    assert tried[1] == 2**-10
    assert all(rate <= 2**-9 for rate in tried[1:])
    assert choice.rounds[0].end == DIVERGED


def test_no_step_above_the_top_is_tried_and_one_tried_before_ends_the_search():
    choice = search(Start(2**-4, top=2**-4), lambda _rate: fall_and_rise(5000))
    assert (choice.learning_rate, choice.status) == (2**-4, NO_MINIMUM)
    assert [one.learning_rate for one in choice.rounds] == [2**-4]


def test_a_top_off_the_grid_is_not_passed_by_rounding():
    choice = search(Start(0.0621, top=0.0622), lambda _rate: fall_and_rise(5000))
    assert choice.learning_rate == 2**-4.5 < 0.0622


def test_late_in_all_rounds_is_no_minimum_at_the_largest_stable_step():
    choice = search(Start(2**-8), lambda _rate: lambda t: (2.3 - 1e-4 * t, 2.3 - 1e-4 * t))
    assert choice.status == NO_MINIMUM
    assert len(choice.rounds) == ROUNDS
    assert choice.learning_rate == max(one.learning_rate for one in choice.rounds)


def test_of_rounds_that_all_miss_the_nearest_is_taken():
    lengths = iter([20, 1000, 60])
    choice = search(Start(2**-8), lambda _rate: fall_and_rise(next(lengths)))
    nearest = min(choice.rounds, key=lambda one: abs(math.log(one.near / 170)))
    assert (choice.status, choice.learning_rate) == (UNSETTLED, nearest.learning_rate)


def test_divergence_in_all_rounds_ends_below_them():
    choice = search(Start(1.0), lambda _rate: lambda t: (math.nan, math.nan))
    assert (choice.status, len(choice.rounds)) == (DIVERGED, ROUNDS)
    assert choice.learning_rate < min(one.learning_rate for one in choice.rounds)


@pytest.mark.parametrize("rate", [0.0, math.nan, math.inf, -1.0])
def test_without_a_step_to_begin_with_the_override_to_type_is_named(rate):
    with pytest.raises(InputError, match=r"optimizer\.learning_rate=NUMBER"):
        search_step(Start(rate), lambda _rate: pytest.fail("nothing to try"))


@pytest.mark.parametrize("start", [start_curvature("mse", 0.9, 0.0), start_descent("mse", 1.0, 0.0)])
def test_a_loss_without_slope_or_curvature_gives_no_step(start):
    with pytest.raises(InputError, match=f"no step to begin with .{start.method} gives inf"):
        search_step(start, lambda _rate: pytest.fail("nothing to try"))


def test_starts_are_those_of_the_note():
    assert start_adam(512, 100).learning_rate == pytest.approx(3.4e-3 * 512 ** (-2 / 3))
    assert start_adam(32, 1000).learning_rate == pytest.approx(3.4e-3 * 32 ** (-2 / 3) * 10**0.3)
    assert start_curvature("cross_entropy", 0.9, 2.0)[:2] == pytest.approx((0.005, 0.05))
    assert start_curvature("mse", 0.0, 4.0)[:2] == pytest.approx((0.175, 0.25))
    assert start_descent("mse", 0.1, 50.0).learning_rate == pytest.approx(1e-4)
