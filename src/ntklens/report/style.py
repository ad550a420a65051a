"""How everything of a report looks: colours, marks, symbols and numbers; one style for page and paper."""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

from ntklens.analysis.settings import name_optimiser

COLUMN, TWO_COLUMNS = 3.35, 7.0  # inches: widths of figures in a paper of two columns
# Okabe & Ito's palette, distinct to colour-blind readers; neighbours differ in grey. Yellow is left out, white paper
# swallows it. On dark ground black gives way to white.
BLUE, ORANGE = "#0072B2", "#D55E00"
CATEGORIES = ("#000000", ORANGE, BLUE, "#E69F00", "#009E73", "#56B4E9", "#CC79A7")
CATEGORIES_DARK = ("#F2F2F2", "#F0843C", "#56B4E9", "#F5C04A", "#2FC49A", "#A8DCF7", "#E3A3C6")
# Viridis, perceptually uniform; its ends would vanish on white and on black.
RAMP, RAMP_LIGHT, RAMP_DARK = "viridis", (0.0, 0.86), (0.28, 1.0)
RAMP_STEPS = 33
MOST_DECIMALS = 5
DIGITS = ((1,), (1, 2, 5), (1, 2, 3, 5), (1, 2, 3, 4, 6, 8))  # of the numbers along a logarithmic axis
LEAST_TICKS = 3  # numbers along an axis
NARROW = 0.75  # decades below which round numbers say more than powers of ten
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
PLOTLY_MARKERS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x")
# Override → (as an axis, as the label of one value, symbol); others are named by their last word.
SETTINGS = {
    "model.width": ("width m", "width {}", "m"),
    "model.depth": ("depth", "depth {}", "depth"),
    "dataset.train_size": ("training samples D", "D = {}", "D"),
    "optimizer.learning_rate": ("learning rate η", "η = {}", "η"),
    "protocol.arm": ("protocol", "{}", "protocol"),
    "training.loss": ("loss", "{}", "loss"),
    "model.parameterization": ("parameterisation", "{}", "parameterisation"),
    "dataset.probe_size": ("probe size N", "N = {}", "N"),
}
VALUES = {  # of settings, in words
    "cross_entropy": "cross-entropy", "mse": "mean squared error",
}  # fmt: skip
SPEAKING = ("name", "sweep", "_target_", "activation")  # last words of settings whose value says what it is of
PARAMETERS = {
    "font.family": "STIXGeneral",
    "mathtext.fontset": "stix",
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.titlesize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.title_fontsize": 8,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "lines.linewidth": 1.1,
    "lines.markersize": 4,
    "errorbar.capsize": 0,
    "pdf.fonttype": 42,  # letters stay letters in the PDF
    "axes.unicode_minus": True,
}


@contextmanager
def apply_style() -> Iterator[None]:
    """Give matplotlib the style of the report for a while."""
    import matplotlib

    with matplotlib.rc_context(PARAMETERS):  # type: ignore[arg-type]
        yield


@cache
def list_ramp(dark: bool) -> tuple[str, ...]:
    """Return the colours of an ordered axis, `#rrggbb`, from its smallest value to its largest.

    Args:
      dark: for dark ground.
    """
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    first, last = RAMP_DARK if dark else RAMP_LIGHT
    steps = [first + (last - first) * step / (RAMP_STEPS - 1) for step in range(RAMP_STEPS)]
    return tuple(to_hex(colormaps[RAMP](step)) for step in steps)


def pick_colour(place: float | None, number: int) -> str:
    """Return a key's colour on white: along the ramp, or by number where keys have no order."""
    if place is None:
        return CATEGORIES[number % len(CATEGORIES)]
    return list_ramp(False)[round(place * (RAMP_STEPS - 1))]


def compute_luminance(colour: str) -> float:
    """Return the relative luminance of `#rrggbb`, 0 … 1, as WCAG 2 defines it: what is left of a colour in grey."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def label_axis(axis: str) -> str:
    """Return a swept parameter as an axis is labelled: `width m`."""
    return SETTINGS[axis][0] if axis in SETTINGS else name_setting(axis)


def name_setting(setting: str) -> str:
    """Return a setting in words: `output scale` of `model.output_scale`."""
    return setting.rpartition(".")[2].replace("_", " ").strip()


def find_symbol(axis: str) -> str:
    """Return the letter that formulas have for a swept parameter."""
    return SETTINGS[axis][2] if axis in SETTINGS else name_setting(axis)


SETTING = re.compile(r"(?:^|(?<=, ))([A-Za-z_][\w.]*)=((?:(?!, [A-Za-z_][\w.]*=).)*)", re.DOTALL)


def label_group(label: str, full_batch: bool = False) -> str:
    """Return the label of a group in words: `depth 2, D = 64` of `model.depth=2, dataset.train_size=64`.

    Args:
      label: `key=value`, joined by commas.
      full_batch: whether its runs take their steps on the whole training set, so that SGD is gradient descent.
    """
    return SETTING.sub(lambda m: label_setting(m[1], m[2], full_batch), label)


def label_setting(setting: str, value: str, full_batch: bool = False) -> str:
    """Return a setting with its value in words: `depth 2`."""
    last = setting.rpartition(".")[2]
    if last == "_target_":
        value = value.removesuffix(".load").rpartition(".")[2]
    value = VALUES.get(value, value)
    if setting.startswith("optimizer"):
        value = name_optimiser(value, full_batch)
    if setting in SETTINGS:
        return SETTINGS[setting][1].format(value)
    if last in SPEAKING:
        return value
    return f"{name_setting(setting)} {value}"


# A single letter, or Tr, with an index; `train_size` and `hidden_0` are names, not symbols.
MINUS = re.compile(r"(?<=[\s\[(])-(?=\d)")  # not that of a name or a range
SUBSCRIPT = re.compile(r"(?<![A-Za-z0-9_.])(Tr|[A-Za-zΑ-Ωα-ω])_([A-Za-z0-9∞ℓ]+)(?![A-Za-z0-9_.]*=)")
SUPERSCRIPT = re.compile(r"\^(?:\(([^()]*)\)|(−?[A-Za-z0-9α-ω]+))")  # ^α, ^(α′−α)


def to_math(text: str) -> str:
    """Return text with symbols such as `Γ_min` as matplotlib's math."""

    def set_symbol(found: re.Match[str]) -> str:
        letter, index = found[1], found[2]
        letter = r"\mathrm{Tr}" if letter == "Tr" else letter
        index = r"\ell" if index == "ℓ" else rf"\mathrm{{{index}}}"
        return f"${letter}_{{{index}}}$"

    return SUBSCRIPT.sub(set_symbol, text.replace("$", r"\$"))


def to_markup(text: str) -> str:
    """Return text as HTML: escaped, indices as in `Γ_min` lowered, powers raised, minus signs before numbers."""
    from markupsafe import escape

    lowered = SUBSCRIPT.sub(lambda m: f"{m[1]}<sub>{m[2]}</sub>", str(escape(text)))
    return MINUS.sub("−", SUPERSCRIPT.sub(lambda m: f"<sup>{m[1] or m[2]}</sup>", lowered))


def format_number(value: float, digits: int = 3) -> str:
    """Return a number to some significant digits, – for none: 0.482, 1,280, 3.2e−5."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    size = abs(value)
    if size and not 1e-3 <= size < 1e6:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa}e{int(exponent)}".replace("-", "−")
    decimals = max(0, digits - 1 - math.floor(math.log10(size))) if size else 0
    return f"{value:,.{decimals}f}".replace("-", "−")


def format_interval(value: float, low: float, high: float, digits: int = 3) -> str:
    """Return a number with its interval, all to two digits of half the interval's width: 0.482 [0.455, 0.509]."""
    if math.isnan(value):
        return "–"
    if math.isnan(low) or math.isnan(high):
        return format_number(value, digits)
    size = max(abs(number) for number in (value, low, high) if math.isfinite(number))
    width = high - low if math.isfinite(high - low) and high > low else size * 10.0 ** (2 - digits)
    decimals = max(0, 1 - math.floor(math.log10(width / 2))) if width else 0
    if size >= 1e6 or decimals > MOST_DECIMALS:
        return f"{format_number(value, digits)} [{format_number(low, digits)}, {format_number(high, digits)}]"

    def show(number: float) -> str:
        if not math.isfinite(number):
            return format_number(number)
        return f"{round(number, decimals) + 0.0:,.{decimals}f}".replace("-", "−")  # no −0.00

    return f"{show(value)} [{show(low)}, {show(high)}]"


def glue(text: str) -> str:
    """Return text that no line break divides."""
    return text.replace(" ", "\u00a0")


def mark_axis(axis: Any, values: np.ndarray, label: str) -> None:
    """Label a logarithmic axis, and number it: powers of ten, more where it spans little.

    Long numbers of an axis that spans little are written without a power of ten that they share, which the label names:
    `ΔTr / 10⁵`.

    Args:
      axis: matplotlib's.
      values: what is drawn along it.
      label: what it is of.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

    axis.set_label_text(to_math(label))
    positive = values[values > 0]
    if not len(positive):
        return
    decades = math.log10(positive.max() / positive.min())
    plain = positive.min() >= 1e-3 and positive.max() < 2e4
    wide = decades >= NARROW  # the extent of a narrow axis is not settled before its locator is
    extent = axis.get_view_interval() if wide and axis.get_scale() == "log" else (1.0, 10.0**decades)
    digits = _choose_digits(*extent)
    shared = 0 if plain or decades >= 2 else math.floor(math.log10(positive.max()))
    if shared:
        axis.set_label_text(rf"{to_math(label)} / $10^{{{shared}}}$")

    def write(value: float, _: int | None = None) -> str:
        if value <= 0:
            return "0" if value == 0 else ""
        power = math.floor(math.log10(value) + 1e-9)
        digit = value / 10.0**power
        if wide and min(abs(digit - d) for d in digits) > 1e-6:
            return ""
        if plain or shared:
            return f"{value / 10.0**shared:.6g}"
        return rf"${digit:.3g} \cdot 10^{{{power}}}$" if abs(digit - 1) > 1e-6 else rf"$10^{{{power}}}$"

    axis.set_major_formatter(FuncFormatter(write))
    axis.set_minor_formatter(NullFormatter())
    if axis.get_scale() != "log":
        return
    if not wide:
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], min_n_ticks=LEAST_TICKS))
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_locator(LogLocator(10, subs=digits, numticks=8))
        axis.set_minor_locator(LogLocator(10, subs=(2, 3, 4, 5, 6, 7, 8, 9), numticks=60))


def _choose_digits(low: float, high: float) -> tuple[int, ...]:
    """Return the fewest leading digits whose ticks number a logarithmic axis of this extent at three places."""
    ends = min(low, high), max(low, high)
    powers = 10.0 ** np.arange(math.floor(math.log10(ends[0])), math.ceil(math.log10(ends[1])) + 1)
    for digits in DIGITS:
        ticks = np.outer(powers, digits)
        if np.sum((ticks >= ends[0]) & (ticks <= ends[1])) >= LEAST_TICKS:
            break
    return digits


def mark_linear(axis: Any, values: np.ndarray, label: str) -> None:
    """Label a linear axis, and number it, without a power of ten that long numbers share: the label names it.

    Args:
      axis: matplotlib's.
      values: what is drawn along it.
      label: what it is of.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_label_text(to_math(label))
    axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], min_n_ticks=LEAST_TICKS))
    size = float(np.abs(values).max(initial=0.0))
    if size == 0 or 1e-2 <= size < 2e4:
        return
    shared = math.floor(math.log10(size))
    axis.set_label_text(rf"{to_math(label)} / $10^{{{shared}}}$")
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 10.0**shared:.6g}".replace("-", "−")))
