"""What a notebook shows of fits: a line each, a table of HTML."""

import math
from dataclasses import replace

import numpy as np
import pytest

from laws import CURVES, WIDTHS, draw_values
from ntklens.stats.powerlaw import CANDIDATES, NOTHING, Interval, fit_form, fit_law
from ntklens.stats.samples import summarise
from ntklens.stats.surface import fit_surface
from ntklens.stats.transition import find_transition


@pytest.fixture(scope="module")
def samples():
    return summarise(WIDTHS, draw_values(CURVES["affine"](WIDTHS), np.random.default_rng(0), 5)[:, 0])


@pytest.fixture(scope="module")
def law(samples):
    return fit_law(samples, "initial_trace", "model.width", "model.depth=<2>")


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        (Interval(-0.512345, -0.6, -0.4), "Interval(-0.5123 [-0.6, -0.4])"),
        (Interval(3.2, 6.4e-227, math.inf), "Interval(3.2 [0, ∞])"),
        (Interval(0.0, -math.inf, 1.0), "Interval(0 [-∞, 1])"),
        (Interval(1e-12, 1e-13, 2e-12), "Interval(1e-12 [1e-13, 2e-12])"),
        (NOTHING, "Interval(no value)"),
    ],
)
def test_an_interval_is_its_numbers(interval, text):
    assert repr(interval) == text


def test_a_law_is_its_finding_the_form_and_its_parameters(law):
    text = repr(law)
    assert law.preferred == "affine"
    scale = law.fits["affine"].parameters["scale"]
    assert text.startswith(f"Law(initial_trace along model.width at model.depth=<2>: {law.finding}; affine: intercept ")
    assert f"scale {scale.value:.4g} [{scale.low:.4g}, {scale.high:.4g}]" in text
    assert "7 means at x = 16 … 1024 of 35 values" in text
    assert "\n" not in text
    assert len(text) < 600


def test_a_law_is_a_table_of_its_forms_in_which_names_are_text(law):
    html = law._repr_html_()
    assert html.count("<tr>") == 1 + len(CANDIDATES)
    assert "<td>affine (preferred)</td>" in html
    assert html.index("affine (preferred)") < html.index("<td>power</td>")
    assert "model.depth=&lt;2&gt;" in html
    assert "<2>" not in html


def test_a_law_that_was_not_fitted_gives_the_reason():
    law = fit_law(summarise(WIDTHS[:3], np.ones((3, 5))), "minimum_loss", "model.width")
    assert repr(law) == "Law(minimum_loss along model.width: no fit: needs 4 points along the axis, there are 3)"
    assert "no fit: needs 4 points" in law._repr_html_()


def test_whatever_holds_arrays_is_short(samples, law):
    fit = fit_form(samples, "power")
    grid = np.array([(m, d) for m in (16, 32, 64, 128) for d in (50, 100, 200, 400)], float)
    surface = fit_surface(
        grid, 3 * grid[:, 0] ** -0.5 + 20 * grid[:, 1] ** -0.7, "minimum_loss", ("m", "D"), "additive"
    )
    transition = find_transition(samples, "initial_trace", "model.width")
    for one, word in (
        (samples, "35 values"), (fit, "exponent "), (surface, "16 points"), (transition, transition.sentence),
    ):  # fmt: skip
        assert repr(one).startswith(f"{type(one).__name__}(")
        assert word in repr(one)
        assert "array" not in repr(one)
        assert len(repr(one)) < 600
    assert fit._repr_html_().count("<tr>") == 1 + len(fit.parameters)
    assert samples._repr_html_().count("<tr>") == 1 + len(samples.x)
    assert "0 means" in repr(samples.select(np.zeros(len(WIDTHS), bool)))
    assert replace(fit) == fit
