"""A forest plot on paper: rows of settings, columns of numbers with their intervals."""

import math
from typing import Any

import numpy as np

from ntklens.report.chart import Chart, Forest
from ntklens.report.style import MARKERS, TWO_COLUMNS, pick_colour, to_math

DPI = 200
ROW, PART = 0.19, 0.145  # inches: heights of a row, and of one that is part of another
HEAD, FOOT, LEGEND = 0.38, 0.24, 0.2  # inches: above the columns, below them, of the legend
GAP, EDGE = 0.13, 0.05  # inches: between columns, around the figure
MOST_COLUMNS = 6  # side by side; more are set below
SPREAD = 0.42  # of a row, that the marks of its keys take
BOUND = "0.45"
CROSS = "x"
MARGIN, MOST_TICKS = 0.08, 3  # share of an axis at its ends that has no tick; ticks of a column


def make_forest(chart: Chart, forest: Forest) -> Any:
    """Return a forest plot as a figure of matplotlib; the style of the report must be applied."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heights = np.array([PART if part else ROW for part in forest.parts])
    places = -(np.cumsum(heights) - heights / 2)  # in inches below the upper edge of the axes
    bands = math.ceil(len(forest.columns) / MOST_COLUMNS)
    across = math.ceil(len(forest.columns) / bands)
    body = float(heights.sum())
    legend = LEGEND if len(chart.keys) > 1 else 0.0
    height = 2 * EDGE + bands * (HEAD + body + FOOT) + legend
    figure = Figure(figsize=(TWO_COLUMNS, height), dpi=DPI)
    FigureCanvasAgg(figure)
    left = EDGE + _measure_labels(figure, forest) + 0.06
    width = (TWO_COLUMNS - EDGE - left - GAP * (across - 1)) / across
    for number in range(len(forest.columns)):
        band, column = divmod(number, across)
        floor = height - EDGE - (band + 1) * (HEAD + body) - band * FOOT
        bounds = (left + column * (width + GAP), floor, width, body)
        axes = figure.add_axes(tuple(np.array(bounds) / (TWO_COLUMNS, height, TWO_COLUMNS, height)))
        _draw_column(axes, chart, forest, number, places, heights)
        if column == 0:
            _label_rows(axes, forest, places)
    if legend:
        _add_legend(figure, chart)
    return figure


def _measure_labels(figure: Any, forest: Forest) -> float:
    """Return the width of the longest label in inches."""
    renderer = figure.canvas.get_renderer()
    widths = [0.0]
    for row, part in zip(forest.rows, forest.parts, strict=True):
        text = figure.text(0, 0, _indent(row, part), fontsize=_choose_size(part))
        widths.append(text.get_window_extent(renderer).width / DPI)
        text.remove()
    return max(widths)


def _indent(row: str, part: bool) -> str:
    return ("   " if part else "") + to_math(row)


def _choose_size(part: bool) -> float:
    return 7.0 if part else 8.0


def _label_rows(axes: Any, forest: Forest, places: np.ndarray) -> None:
    from matplotlib.transforms import blended_transform_factory

    for row, part, place in zip(forest.rows, forest.parts, places, strict=True):
        axes.text(
            EDGE / TWO_COLUMNS, place, _indent(row, part), va="center", fontsize=_choose_size(part),
            color="0.35" if part else "black",
            transform=blended_transform_factory(axes.figure.transFigure, axes.transData),
        )  # fmt: skip


def _draw_column(axes: Any, chart: Chart, forest: Forest, number: int, places: np.ndarray, heights: np.ndarray) -> None:
    from matplotlib.ticker import MaxNLocator

    column = forest.columns[number]
    low, high = forest.find_limits(number)
    axes.set_xlim(low, high)
    axes.set_ylim(-float(heights.sum()), 0)
    if column.stated:
        axes.axvspan(max(column.low, low), min(column.high, high), color="0.9", lw=0, zorder=0)
        for bound in (column.low, column.high):
            if math.isfinite(bound):
                axes.axvline(bound, color=BOUND, lw=0.7, ls="--", zorder=1)
    if low < 0 < high:
        axes.axvline(0, color="0.75", lw=0.5, zorder=0.5)
    for row in np.flatnonzero(~np.array(forest.parts))[1:]:
        axes.axhline(places[row] + heights[row] / 2, color="0.85", lw=0.4, zorder=0.5)
    for order, key in enumerate(chart.keys):
        shift = SPREAD * ((len(chart.keys) - 1) / 2 - order) / max(1, len(chart.keys) - 1)
        colour, marker = pick_colour(None, key.number), MARKERS[key.number % len(MARKERS)]
        for row, (place, size) in enumerate(zip(places, heights, strict=True)):
            value, start, end = forest.values[key.name][row, number]
            if not math.isfinite(value):
                continue
            y, part = place + shift * size, forest.parts[row]
            start, end = (value if math.isnan(edge) else edge for edge in (start, end))
            axes.plot([max(start, low), min(end, high)], [y, y], color=colour, lw=0.7 if part else 1.1, zorder=2,
                      solid_capstyle="butt")  # fmt: skip
            for edge, limit, arrow in ((start, low, "<"), (end, high, ">")):
                if (edge < limit) if arrow == "<" else (edge > limit):
                    axes.plot([limit], [y], arrow, color=colour, ms=3, mew=0, clip_on=False, zorder=3)
            crossed = forest.crossed[key.name][row, number]
            axes.plot([value], [y], CROSS if crossed else marker, color=colour, ms=2.6 if part else 4, zorder=4,
                      mew=0.7, mfc="white" if forest.hollow[key.name][row, number] else colour)  # fmt: skip
    axes.set_title(to_math(column.label), fontsize=9, pad=13)
    if column.stated:
        axes.text(0.5, 1.0, column.stated, ha="center", va="bottom", fontsize=6.5, color="0.35",
                  transform=axes.transAxes + _shift(axes, 2))  # fmt: skip
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    for most in (MOST_TICKS, MOST_TICKS + 2, MOST_TICKS + 4):  # until two are far enough from the ends
        ticks = np.asarray(MaxNLocator(nbins=most, steps=[1, 2, 5, 10]).tick_values(low, high))
        inner = ticks[(ticks > low + MARGIN * (high - low)) & (ticks < high - MARGIN * (high - low))]
        if len(inner) > 1:
            break
    axes.set_xticks(inner, [f"{tick:g}".replace("-", "−") for tick in inner.round(9)])
    axes.tick_params(axis="x", labelsize=7, length=2.5)


def _shift(axes: Any, points: float) -> Any:
    from matplotlib.transforms import ScaledTranslation

    return ScaledTranslation(0, points / 72, axes.figure.dpi_scale_trans)


def _add_legend(figure: Any, chart: Chart) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=pick_colour(None, key.number), marker=MARKERS[key.number % len(MARKERS)], ms=4, lw=1.1)
        for key in chart.keys
    ]
    title = f"{chart.key_title}: " if chart.key_title else ""
    labels = [(title if not number else "") + to_math(key.label) for number, key in enumerate(chart.keys)]
    figure.legend(handles, labels, ncols=len(labels), loc="lower center", borderaxespad=0.2)
