"""Charts on paper: PDF, PNG and the numbers drawn."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ntklens.report.chart import FIT_ROLES, Cells, Chart, Key, Panel, Series
from ntklens.report.style import (
    MARKERS,
    TWO_COLUMNS,
    apply_style,
    format_number,
    list_ramp,
    mark_axis,
    pick_colour,
    to_math,
)
from ntklens.report.tables import write_chart

DPI = 200
MOST_KEYS = 8  # in a legend; more along an axis get a colour bar
MOST_NAMES = 14  # in a legend of keys without order
MOST_NOTES = 3  # on fits, above a panel
PANEL_HEIGHT, LINE_HEIGHT = 2.15, 0.17  # inches
LEGEND_LETTERS = 75  # in a row


def draw_chart(chart: Chart, folder: Path) -> list[Path]:
    """Draw a chart as PDF and PNG, and write what is drawn as CSV.

    Args:
      chart: what to draw.
      folder: where; files are named by the chart's stem.

    Returns:
      The files.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    chart = chart.select_static()
    count = len(chart.panels) + len(chart.cells)
    columns, rows = choose_grid(count)
    width = TWO_COLUMNS * min(1.0, max(0.62, columns / 3))
    with apply_style():
        height = PANEL_HEIGHT * rows + 0.3 + LINE_HEIGHT * count_legend_rows(chart)
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = list(np.ravel(figure.subplots(rows, columns, squeeze=False)))
        for place, panel in zip(axes, chart.panels, strict=False):
            _draw_panel(place, panel, chart.keys)
        for place, cells in zip(axes, chart.cells, strict=False):
            _draw_cells(figure, place, cells)
        spare = axes[count:]
        for place in spare:
            place.set_axis_off()
        _add_legend(figure, axes[:count], spare, chart)
        return _save(figure, chart, folder)


def choose_grid(count: int) -> tuple[int, int]:
    """Return columns and rows for so many panels."""
    columns = {1: 1, 2: 2, 4: 2}.get(count, 3)
    return columns, math.ceil(count / columns)


def _save(figure: Any, chart: Chart, folder: Path) -> list[Path]:
    paths = [folder / f"{chart.stem}.{ending}" for ending in ("pdf", "png", "csv")]
    figure.savefig(paths[0], metadata={"CreationDate": None, "Title": chart.title})
    figure.savefig(paths[1], dpi=DPI)
    write_chart(paths[2], chart)
    return paths


def _draw_panel(axes: Any, panel: Panel, keys: Sequence[Key]) -> None:
    known = {key.name: key for key in keys}
    _set_scales(axes, panel)
    for series in sorted(
        panel.series, key=lambda s: ("seed", "rival", "fit", "reference", "mean", "minimum").index(s.role)
    ):
        _draw_series(axes, series, known[series.key], panel)
    axes.set_xlabel(to_math(panel.x_label))
    axes.set_ylabel(to_math(panel.y_label))
    notes = panel.note.split("\n")
    if panel.note and len(notes) <= MOST_NOTES:  # more would leave no room for the panel; fits.csv has them
        text = "\n".join(_wrap(to_math(line)) for line in notes)
        axes.set_title(text, fontsize=6.5, loc="left", color="0.25")
    if panel.x_reversed:
        axes.invert_xaxis()


def _wrap(line: str, width: int = 44) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(line, width)[:2])


def _draw_series(axes: Any, series: Series, key: Key, panel: Panel) -> None:
    colour = pick_colour(key.place, key.number)
    marker = MARKERS[key.number % len(MARKERS)]
    if series.role == "seed":
        if series.points:
            axes.plot(series.x, series.y, ls="", marker=".", ms=4.5, mew=0, color=colour, alpha=0.3)
        else:
            axes.plot(series.x, series.y, lw=0.4, color=colour, alpha=0.35)
    elif series.role == "minimum":
        axes.plot(series.x, series.y, ls="", marker=marker, ms=4.5, mfc=colour, mec="white", mew=0.6, zorder=5)
    elif series.points:
        errors = None
        if series.low is not None and series.high is not None:
            errors = np.stack([series.y - series.low, series.high - series.y])
        face = "white" if series.hollow else colour
        axes.errorbar(
            series.x, series.y, errors, ls="", marker=marker, ms=3.8, color=colour, mfc=face, elinewidth=0.9, zorder=4
        )
    else:
        style = "--" if series.dashed else "-"
        width = 0.9 if series.role in FIT_ROLES else 1.1
        own = marker if series.role == "mean" and len(series.x) <= 12 else None
        there = np.isfinite(series.y)
        axes.plot(series.x[there], series.y[there], style, color=colour, lw=width, marker=own, ms=3.5)
        if series.low is not None and series.high is not None:
            axes.fill_between(series.x[there], series.low[there], series.high[there], color=colour, alpha=0.18, lw=0)


def _set_scales(axes: Any, panel: Panel) -> None:
    """Set the axes' scales; a logarithmic axis that holds epoch 0 is linear up to its next point."""
    x = np.concatenate([s.x for s in panel.series]) if panel.series else np.zeros(0)
    x = x[np.isfinite(x)]
    if panel.x_log and len(x):
        if (x > 0).all():
            axes.set_xscale("log")
        else:
            positive = x[x > 0]
            axes.set_xscale("symlog", linthresh=positive.min() if len(positive) else 1.0, linscale=0.4)
            axes.set_xlim(0, x.max() * 1.1)
    if panel.y_log:
        axes.set_yscale("log")
    axes.autoscale_view()
    for axis, limits, is_log in ((axes.xaxis, x, panel.x_log), (axes.yaxis, _find_extent(panel), panel.y_log)):
        if is_log and len(limits):
            mark_axis(axis, limits)


def _find_extent(panel: Panel) -> np.ndarray:
    ends = [a for s in panel.series for a in (s.y, s.low, s.high) if a is not None]
    values = np.concatenate(ends) if ends else np.zeros(0)
    return values[np.isfinite(values)]


def _draw_cells(figure: Any, axes: Any, cells: Cells) -> None:
    from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize

    finite = cells.values[np.isfinite(cells.values)]
    axes.set_title(to_math(cells.label))
    axes.set_xlabel(to_math(cells.x_label))
    axes.set_ylabel(to_math(cells.y_label))
    axes.set_xticks(range(len(cells.x)), cells.x, rotation=45 if len(cells.x) > 5 else 0)
    axes.set_yticks(range(len(cells.y)), cells.y)
    axes.tick_params(length=0, which="both")
    if not len(finite):
        return
    ramp = LinearSegmentedColormap.from_list("ramp", list_ramp(False))
    same = finite.max() <= finite.min()
    norm = LogNorm if cells.log and not same else Normalize
    scale = norm(finite.min() - (0.5 if same else 0), finite.max() + (0.5 if same else 0))
    axes.imshow(np.ma.masked_invalid(cells.values), origin="lower", cmap=ramp, norm=scale, aspect="auto")
    size = max(4.0, min(8.0, 44 / max(1, len(cells.x))))
    for (row, column), value in np.ndenumerate(cells.values):
        if np.isfinite(value):
            dark = scale(value) < 0.6
            axes.text(column, row, format_number(float(value)), ha="center", va="center", fontsize=size,
                      color="white" if dark else "black")  # fmt: skip


def _add_legend(figure: Any, axes: Sequence[Any], spare: Sequence[Any], chart: Chart) -> None:
    if len(chart.keys) < 2:
        return
    if chart.is_ordered and len(chart.keys) > MOST_KEYS:
        _add_colour_bar(figure, axes, chart)
        return
    from matplotlib.lines import Line2D

    handles = []
    lines = any(not s.points and s.role == "mean" for p in chart.panels for s in p.series)
    for key in chart.keys[:MOST_NAMES]:
        colour = pick_colour(key.place, key.number)
        marker = MARKERS[key.number % len(MARKERS)]
        handles.append(
            Line2D([], [], color=colour, ls="-" if lines else "", marker=marker, ms=4, label=to_math(key.label))
        )
    if len(chart.keys) > MOST_NAMES:
        handles.append(Line2D([], [], ls="", label=f"and {len(chart.keys) - MOST_NAMES} more"))
    title = to_math(chart.key_title) or None
    if spare:
        spare[0].legend(handles=handles, title=title, loc="center left")
    else:
        columns = -(-len(handles) // count_legend_rows(chart))
        figure.legend(handles=handles, title=title, loc="outside lower center", ncols=columns)


def count_legend_rows(chart: Chart) -> int:
    """Return how many rows a legend below the panels needs; 0 without one."""
    names = min(len(chart.keys), MOST_NAMES + 1)
    if names < 2 or (chart.is_ordered and names > MOST_KEYS):
        return 0
    longest = max(len(key.label) for key in chart.keys[:MOST_NAMES])
    return math.ceil(names / max(1, LEGEND_LETTERS // (longest + 6)))


def _add_colour_bar(figure: Any, axes: Sequence[Any], chart: Chart) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    ramp = LinearSegmentedColormap.from_list("ramp", list_ramp(False))
    mappable = ScalarMappable(Normalize(0, 1), ramp)
    bar = figure.colorbar(mappable, ax=list(axes), label=to_math(chart.key_title), pad=0.01, aspect=30, fraction=0.04)
    ticks = [chart.keys[n] for n in np.unique(np.linspace(0, len(chart.keys) - 1, 6).round().astype(int))]
    bar.set_ticks([key.place for key in ticks], labels=[key.label for key in ticks])
    bar.outline.set_visible(False)
