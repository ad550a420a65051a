"""Colours, symbols, numbers."""

import math
from itertools import pairwise

import numpy as np
import pytest

from ntklens.report.draw import to_latex
from ntklens.report.style import (
    CATEGORIES,
    compute_luminance,
    format_interval,
    format_number,
    list_ramp,
    to_markup,
    to_math,
)


@pytest.mark.parametrize("dark", [False, True])
def test_an_ordered_axis_is_ordered_in_grey_too(dark):
    grey = [compute_luminance(colour) for colour in list_ramp(dark)]
    assert np.all(np.diff(grey) > 0)
    assert max(grey) - min(grey) > 0.4


def test_a_rainbow_would_not_be():
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    grey = [compute_luminance(to_hex(colormaps["jet"](step))) for step in np.linspace(0, 1, 33)]
    assert not np.all(np.diff(grey) > 0)


def test_neighbouring_categories_differ_in_grey():
    grey = [compute_luminance(colour) for colour in CATEGORIES]
    assert min(abs(a - b) for a, b in pairwise(grey)) > 0.05


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (0.482, 0.455, 0.509, "0.482 [0.455, 0.509]"),
        (-0.02, -0.05, 0.01, "−0.020 [−0.050, 0.010]"),
        (1327.3, 1260.1, 1393.4, "1,327 [1,260, 1,393]"),
        (310.0, 180.0, math.inf, "310 [180, ∞]"),
        (0.5, math.nan, math.nan, "0.500"),
        (math.nan, math.nan, math.nan, "–"),
    ],
)
def test_intervals_are_written_to_the_digits_they_have(value, low, high, text):
    assert format_interval(value, low, high) == text


def test_numbers_of_any_size():
    assert [format_number(x) for x in (0.0, 0.48211, 1280.0, 3.2e-5, -2.5e7, math.inf)] == [
        "0", "0.482", "1,280", "3.20e−5", "−2.50e7", "∞",
    ]  # fmt: skip


def test_symbols_are_lowered_and_names_are_not():
    assert to_math("Γ_min") == r"$Γ_{\mathrm{min}}$"
    assert to_math("exponent of ΔTr_ℓ") == r"exponent of Δ$\mathrm{Tr}_{\ell}$"  # an upright l would look like 1
    assert to_latex("β_ℓ of layer ℓ") == r"$\beta_{\ell}$ of layer $\ell$"
    assert to_markup("β_ℓ of Tr_ℓ Θ_0") == "β<sub>ℓ</sub> of Tr<sub>ℓ</sub> Θ<sub>0</sub>"
    assert to_markup("Tr Θ_0 of L_train") == "Tr Θ<sub>0</sub> of L<sub>train</sub>"
    assert to_markup("dataset.train_size=100, hidden_0") == "dataset.train_size=100, hidden_0"
    assert to_markup("<b>&") == "&lt;b&gt;&amp;"
