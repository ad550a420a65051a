"""Joint laws over width and data: their intervals hold the truth, and have no end where the sweep sets none."""

import math

import numpy as np
import pytest

from ntklens.stats.surface import describe_surface, fit_surface

AXES = ("model.width", "dataset.train_size")


def make_grid(widths, sizes):
    return np.array([(width, size) for width in widths for size in sizes], float)


def combine(x, A, a, B, b):
    width, data = x.T
    return ((A * width**-a) ** (1 / b) + B ** (1 / b) / data) ** b


@pytest.mark.slow
def test_intervals_hold_the_truth():
    truth = {"A": 2.0, "a": 0.3, "B": 10.0, "b": 0.4}
    x = make_grid((16, 64, 256), (100, 400, 1600))
    generator, held = np.random.default_rng(0), 0
    for _ in range(30):
        noisy = combine(x, **truth) * np.exp(0.02 * generator.standard_normal(len(x)))
        surface = fit_surface(x, noisy, "minimum_loss", AXES, "combined")
        held += sum(surface.parameters[name].low <= truth[name] <= surface.parameters[name].high for name in truth)
    assert 0.9 <= held / 120 < 1


def test_an_exponent_that_only_the_narrowest_width_shows_has_no_upper_end():
    x = make_grid((16, 64, 256), (100, 400, 1600))
    y = combine(x, 2.0 * 16**6, 6.0, 10.0, 0.4) * np.exp(0.02 * np.random.default_rng(1).standard_normal(len(x)))
    surface = fit_surface(x, y, "minimum_loss", AXES, "combined")
    assert surface.parameters["a"].high == surface.parameters["A"].high == math.inf
    assert 0.5 < surface.parameters["a"].low < 6.0
    assert "∞]" in describe_surface(surface)


def test_points_on_the_surface_leave_no_doubt():
    truth = {"A": 2.0, "a": 0.3, "B": 10.0, "b": 0.4}
    x = make_grid((16, 64, 256), (100, 400, 1600))
    surface = fit_surface(x, combine(x, **truth), "minimum_loss", AXES, "combined")
    for name, value in truth.items():
        assert surface.parameters[name].low == pytest.approx(value, rel=1e-4)
        assert surface.parameters[name].high == pytest.approx(value, rel=1e-4)


def test_seven_points_that_bound_nothing_say_so():
    """Of MNIST networks, of which two configurations were unresolved."""
    x = np.array([(16, 100), (64, 100), (16, 400), (64, 400), (16, 1600), (64, 1600), (256, 1600)], float)
    y = np.array([1.5368, 1.3392, 0.9507, 0.7958, 0.659, 0.5568, 0.5904])
    surface = fit_surface(x, y, "minimum_loss", AXES, "combined")
    assert (surface.parameters["a"].low, surface.parameters["a"].high) == (-math.inf, math.inf)
    assert 0 < surface.parameters["b"].low < surface.parameters["b"].high < 1


def test_a_term_that_may_be_absent_has_no_least_size():
    x = make_grid((16, 32, 64, 128, 256), (100, 300, 1000, 3000))
    generator = np.random.default_rng(0)
    generator.normal(size=40)
    y = (0.02 + 3 * x[:, 1] ** -0.4) * np.exp(0.02 * generator.normal(size=len(x)))
    surface = fit_surface(x, y, "minimum_loss", AXES, "additive")
    assert surface.parameters["A"].low == 0
    assert (surface.parameters["a"].low, surface.parameters["a"].high) == (-math.inf, math.inf)
    assert surface.parameters["b"].low <= 0.4 <= surface.parameters["b"].high
    assert surface.parameters["E"].low <= 0.02 <= surface.parameters["E"].high
