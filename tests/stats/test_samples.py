import numpy as np
import pytest

from laws import CURVES, WIDTHS, draw_values
from ntklens.errors import InputError
from ntklens.stats.samples import squeeze_variances, summarise


def test_means_and_standard_errors_are_those_of_the_seeds():
    rng = np.random.default_rng(0)
    y = np.array([1.0, 10.0, 100.0])[:, None] * np.exp(0.1 * rng.standard_normal((3, 4000)))
    samples = summarise(np.array([1.0, 2.0, 4.0]), y)
    np.testing.assert_allclose(samples.mean, y.mean(axis=1))
    np.testing.assert_allclose(np.sqrt(samples.variance), 0.1 / np.sqrt(4000), rtol=0.1)
    assert samples.common == 0


def test_points_are_sorted_and_empty_ones_left_out():
    samples = summarise(np.array([4.0, 1.0, 2.0]), np.array([[4.0, 4.2], [1.0, np.nan], [np.nan, np.nan]]))
    assert samples.x.tolist() == [1, 4]
    assert samples.count.tolist() == [1, 2]


def test_values_of_one_network_on_several_probes_count_as_one():
    y = np.random.default_rng(0).lognormal(size=(5, 2, 3, 4))  # draws, probes, seeds
    y[0, 0, :, 1] = np.nan
    y[1, 0, :2, 1] = np.nan
    assert summarise(np.arange(1, 6), y, ("draw", "probe", "seed")).count.tolist() == [7, 8, 8, 8, 8]


def test_negative_observables_are_turned_and_mixed_ones_refused():
    x = np.array([1.0, 2.0])
    assert summarise(x, np.array([[-1.0], [-2.0]])).sign == -1
    with pytest.raises(InputError, match="not of one sign"):
        summarise(x, np.array([[-1.0], [2.0]]))


def test_what_draws_have_in_common_is_kept_apart():
    """Averaged over many repeats: the variance of a mean, and the part of it that all points share."""
    common, own = [], []
    for repeat in range(200):
        y = draw_values(CURVES["power"](WIDTHS), np.random.default_rng(repeat), seeds=5, draws=6)
        samples = summarise(WIDTHS, y, ("draw", "seed"))
        common.append(samples.common)
        own.append(samples.variance)
    assert np.mean(common) == pytest.approx(0.08**2 / 6, rel=0.2)
    spread = 0.05 * np.linspace(1.5, 0.5, 7)
    np.testing.assert_allclose(np.mean(own, axis=0), 0.02**2 / 6 + spread**2 / 30, rtol=0.35)


def test_variances_of_a_few_seeds_are_drawn_to_their_trend():
    x = 2.0 ** np.arange(8)
    truth, before, after = x**-1.0, [], []
    for repeat in range(100):
        variance = truth * np.random.default_rng(repeat).chisquare(3, 8) / 3
        before.append(np.log(variance / truth))
        after.append(np.log(squeeze_variances(variance, np.full(8, 3), x) / truth))
    assert np.std(after) < np.std(before) / 1.5


def test_variances_that_truly_differ_stay_apart():
    variance = np.array([1.0, 100.0, 1.0, 100.0, 1.0, 100.0])
    squeezed = squeeze_variances(variance, np.full(6, 200), 2.0 ** np.arange(6))
    np.testing.assert_allclose(squeezed, variance, rtol=0.1)


def test_one_seed_tells_nothing_of_the_variance():
    assert summarise(np.array([1.0, 2.0]), np.array([[1.0], [2.0]])).variance.tolist() == [0, 0]


def test_the_same_networks_along_the_axis_move_together():
    """As along the amount of data: what a seed does at all points moves the size of y, not its exponent."""
    rng = np.random.default_rng(0)
    common = 0.1 * rng.standard_normal((1, 40))
    y = CURVES["power"](WIDTHS)[:, None] * np.exp(common + 0.01 * rng.standard_normal((7, 40)))
    samples = summarise(WIDTHS, y, ("same seed",))
    np.testing.assert_allclose(np.sqrt(samples.variance), 0.01 / np.sqrt(40), rtol=0.3)
    assert samples.common == pytest.approx(0.1**2 / 40, rel=0.4)
    exact = summarise(WIDTHS, np.ones((7, 1)) * np.exp(common), ("same seed",))
    assert exact.variance.max() < 1e-20


def test_seeds_that_are_not_complete_still_tell_what_they_have_in_common():
    rng = np.random.default_rng(0)
    common = 0.1 * rng.standard_normal((1, 7))
    y = CURVES["power"](WIDTHS)[:, None] * np.exp(common + 0.01 * rng.standard_normal((7, 7)))
    whole = summarise(WIDTHS, y, ("same seed",))
    y[np.arange(7), np.arange(7)] = np.nan  # no seed is there at every point
    part = summarise(WIDTHS, y, ("same seed",))
    assert part.common == pytest.approx(whole.common, rel=0.4)
    assert np.sqrt(part.variance).max() < 0.05
