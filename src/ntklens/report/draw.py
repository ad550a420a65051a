"""Charts on paper: PDF, PNG, the numbers drawn, and the figure with its caption for LaTeX."""

import math
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ntklens.report.chart import FIT_ROLES, Cells, Chart, Key, Mark, Panel, Series
from ntklens.report.forest import make_forest
from ntklens.report.style import (
    MARKERS,
    TWO_COLUMNS,
    apply_style,
    format_number,
    list_ramp,
    mark_axis,
    mark_linear,
    pick_colour,
    to_math,
)
from ntklens.report.tables import write_chart

DPI = 200
MOST_KEYS = 8  # in a legend; more along an axis get a colour bar
MOST_NAMES = 14  # in a legend of keys without order
MOST_NOTES = 3  # on laws, above a panel
PANEL_HEIGHT = 1.55  # inches, without labels
REACH, LEAST_LABEL = 0.1, 6.5  # inches that the label of a y axis may be longer than its panel; its least size
GAP, EDGE = 0.12, 0.04  # inches: between panels, around the figure
BAR = 0.1  # inches: width of a colour bar
LETTERS, NOTE = 27.0, 6.2  # of a note, on an inch; its size in points
INDENT = "   "  # of what goes on from the line above
LEGEND_LETTERS = 15.0  # of a legend, on an inch
HANDLE = 4  # letters that a line or a symbol takes in a legend
FEW = 12  # points of a line that are marked
NEUTRAL = "0.3"  # the colour of what the legend says of all keys
DRAWING_ORDER = ("seed", "rival", "fit", "reference", "mean", "minimum")


def draw_chart(chart: Chart, folder: Path) -> list[Path]:
    """Draw a chart as PDF and PNG, and write what is drawn as CSV, and the caption as LaTeX.

    Args:
      chart: what to draw.
      folder: where; files are named by the chart's stem.

    Returns:
      The files.
    """
    chart = chart.select_static()
    with apply_style():
        figure = make_figure(chart)
        paths = [folder / f"{chart.stem}.{ending}" for ending in ("pdf", "png", "csv", "tex")]
        _save_png(figure, chart, paths[1])
        _save_pdf(figure, chart, paths[0])
    write_chart(paths[2], chart)
    paths[3].write_text(write_latex(chart), encoding="utf-8")
    return paths


def make_figure(chart: Chart) -> Any:
    """Return a chart as a figure of matplotlib, laid out; the style of the report must be applied."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if chart.forest is not None:
        return make_forest(chart, chart.forest)
    count = len(chart.panels) + len(chart.cells)
    columns, rows = choose_grid(count)
    width = TWO_COLUMNS * min(1.0, max(0.62, columns / 3))
    figure = Figure(figsize=(width, rows * (PANEL_HEIGHT + 0.6)), dpi=DPI)
    FigureCanvasAgg(figure)
    places = [
        figure.add_axes((column / columns, 1 - (row + 1) / rows, 0.8 / columns, 0.7 / rows))
        for row in range(rows)
        for column in range(columns)
        if row * columns + column < count
    ]
    for place, panel in zip(places, chart.panels, strict=False):
        _draw_panel(place, panel, chart.keys, width / columns - 0.5)
    for place, cells in zip(places, chart.cells, strict=False):
        _draw_cells(place, cells)
    _arrange(figure, places, columns, chart)
    return figure


def choose_grid(count: int) -> tuple[int, int]:
    """Return columns and rows for so many panels."""
    columns = {1: 1, 2: 2, 4: 2}.get(count, 3)
    return columns, math.ceil(count / columns)


def write_latex(chart: Chart) -> str:
    """Return a chart as a figure of LaTeX, with its caption and a label."""
    label = re.sub(r"[^A-Za-z0-9-]+", "-", chart.stem).strip("-")
    return "\n".join(
        (
            r"\begin{figure}",
            r"  \centering",
            rf"  \includegraphics[width=\linewidth]{{{chart.stem}.pdf}}",
            rf"  \caption{{{to_latex(f'{chart.title}. {chart.caption}')}}}",
            rf"  \label{{fig:{label}}}",
            r"\end{figure}",
            "",
        )
    )


GREEK = {
    "α": "alpha", "β": "beta", "χ": "chi", "η": "eta", "θ": "theta", "λ": "lambda", "Γ": "Gamma", "Δ": "Delta",
    "Θ": "Theta", "Σ": "Sigma", "∞": "infty", "∝": "propto", "±": "pm", "×": "times", "·": "cdot", "≈": "approx",
    "≤": "le", "≥": "ge", "⊗": "otimes", "…": "dots", "ε": "epsilon", "μ": "mu", "∂": "partial", "√": "surd",
    "ℓ": "ell", "‖": "Vert", "|": "vert", "⟨": "langle", "⟩": "rangle",
}  # fmt: skip
SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "ᵀ": r"\textsuperscript{T}",
    "²": r"\textsuperscript{2}",
}  # fmt: skip
HAT = re.compile("(\\w)\u0302")  # a letter with a combining circumflex
SYMBOL = re.compile(
    r"((?<![A-Za-z0-9_.])(?:Tr|[A-Za-zΑ-Ωα-ω])_[A-Za-z0-9∞ℓ]+(?![A-Za-z0-9_.]*=)"  # Γ_min
    r"|\^(?:\([^()]*\)|−?[A-Za-z0-9α-ω]+))"  # ^α, ^(α′−α)
)


def to_latex(text: str) -> str:
    """Return text as LaTeX: symbols such as `Γ_min` and Greek letters as mathematics, everything else escaped."""
    parts = SYMBOL.split(text)
    return "".join(_escape(part) if number % 2 == 0 else _set_symbol(part) for number, part in enumerate(parts))


def _set_symbol(text: str) -> str:
    if text.startswith("^"):
        return f"$^{{{''.join(f'{_set_letter(c)} ' if c in GREEK else _set_letter(c) for c in text[1:].strip('()'))}}}$"
    letter, index = text.split("_", 1)
    index = _set_letter(index) if index in GREEK else rf"\mathrm{{{index}}}" if len(index) > 1 else index
    return f"${_set_letter(letter)}_{{{index}}}$"


def _set_letter(letter: str) -> str:
    return rf"\{GREEK[letter]}" if letter in GREEK else {"−": "-", "′": "'", "Tr": r"\mathrm{Tr}"}.get(letter, letter)


def _escape(text: str) -> str:
    escaped = "".join(SPECIAL.get(c) or (f"\\{c}" if c in "#$%&_{}" else c) for c in text.replace("\u00a0", " "))
    set_letters = "".join(f"${_set_letter(c)}$" if c in GREEK or c in "−′" else c for c in escaped)
    return HAT.sub(r"$\\hat{\1}$", set_letters)


def _save_png(figure: Any, chart: Chart, path: Path) -> None:
    from matplotlib.image import imsave

    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]
    imsave(path, np.ascontiguousarray(pixels), dpi=DPI, format="png",
           metadata={"Title": chart.title, "Description": chart.caption}, pil_kwargs={"compress_level": 1})  # fmt: skip


def _save_pdf(figure: Any, chart: Chart, path: Path) -> None:
    """Write the figure as PDF; `savefig` would draw it a second time before."""
    from matplotlib.backends.backend_pdf import FigureCanvasPdf

    FigureCanvasPdf(figure).print_pdf(
        path, metadata={"CreationDate": None, "Title": chart.title, "Subject": chart.caption}
    )


def _draw_panel(axes: Any, panel: Panel, keys: Sequence[Key], width: float) -> None:
    known = {key.name: key for key in keys}
    _choose_scales(axes, panel)
    for series in sorted(panel.series, key=lambda s: DRAWING_ORDER.index(s.role)):
        _draw_series(axes, series, known[series.key])
    axes.set_xlabel(to_math(panel.x_label))
    axes.set_ylabel(to_math(panel.y_label))
    _mark_scales(axes, panel)
    notes = panel.note.split("\n") if panel.note else []
    if len(notes) > MOST_NOTES:  # they would leave no room for the panel; fits.csv has them
        notes = [panel.short] if panel.short else []
    text = "\n".join(to_math(line) for note in notes for line in _wrap(note, width))
    axes.set_title(text, fontsize=NOTE, loc="left", color="0.25", y=1.0, pad=4)
    if panel.x_reversed:
        axes.invert_xaxis()


def _wrap(note: str, width: float) -> list[str]:
    """Return a note as lines that fit, all but the first indented; what no-break spaces join, an interval, is whole."""
    return textwrap.wrap(
        note, int(LETTERS * width), subsequent_indent=INDENT, break_long_words=False, break_on_hyphens=False
    )


def _draw_series(axes: Any, series: Series, key: Key) -> None:
    colour = pick_colour(key.place, key.number)
    marker = MARKERS[key.number % len(MARKERS)]
    if series.points and series.role == "mean":
        errors = None
        if series.low is not None and series.high is not None:
            errors = np.stack([series.y - series.low, series.high - series.y])
        axes.errorbar(series.x, series.y, errors, **style_series(series, colour, marker), elinewidth=0.9)
        return
    there = np.ones(len(series.y), bool) if series.role == "seed" else np.isfinite(series.y)
    axes.plot(series.x[there], series.y[there], **style_series(series, colour, marker))
    if series.low is not None and series.high is not None:
        axes.fill_between(series.x[there], series.low[there], series.high[there], color=colour, alpha=0.18, lw=0)


def style_series(series: Series, colour: str, marker: str) -> dict[str, Any]:
    """Return how the line or the points of a series are drawn, in the panel and in the legend."""
    if series.role == "seed" and series.points:
        return {"ls": "", "marker": ".", "ms": 4.5, "mew": 0, "color": colour, "alpha": 0.3}
    if series.role == "seed":
        return {"ls": "-", "lw": 0.4, "color": colour, "alpha": 0.35}
    if series.role == "minimum":
        return {"ls": "", "marker": marker, "ms": 4.5, "mfc": colour, "mec": "white", "mew": 0.6, "zorder": 5}
    if series.points:
        face = "white" if series.hollow else colour
        return {"ls": "", "marker": marker, "ms": 3.8, "color": colour, "mfc": face, "zorder": 4}
    styles = (":", "-.") if series.role == "reference" else ("-", "--")
    style = styles[series.dashed]
    own = marker if _is_marked(series) else None
    return {"ls": style, "color": colour, "lw": 0.9 if series.role in FIT_ROLES else 1.1, "marker": own, "ms": 3.5}


def _is_marked(series: Series) -> bool:
    """Return whether the points of a line are marked."""
    return series.role == "mean" and not series.bare and len(series.x) <= FEW


def _choose_scales(axes: Any, panel: Panel) -> None:
    """Set the axes' scales; a logarithmic axis that holds epoch 0 is linear up to its next point.

    Values none of which is positive have no place on a logarithmic axis: theirs is linear.
    """
    x = _join_x(panel)
    if panel.x_log and len(x):
        if (x > 0).all():
            axes.set_xscale("log")
        else:
            positive = x[x > 0]
            axes.set_xscale("symlog", linthresh=positive.min() if len(positive) else 1.0, linscale=0.4)
            marked = any(_is_marked(series) for series in panel.series)
            axes.set_xlim(-0.3 * positive.min() if marked and len(positive) else 0, x.max() * 1.1)
    if panel.y_log and (_find_extent(panel) > 0).any():
        axes.set_yscale("log")


def _mark_scales(axes: Any, panel: Panel) -> None:
    """Number the axes, now that it is known how far they reach."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    for axis, values, is_log, label in (
        (axes.xaxis, _join_x(panel), panel.x_log, panel.x_label),
        (axes.yaxis, _find_extent(panel), panel.y_log, panel.y_label),
    ):
        if axis is axes.xaxis and panel.x_ticks is not None:
            axis.set_major_locator(FixedLocator(panel.x_ticks))
            axis.set_major_formatter(FixedFormatter([f"{tick:g}" for tick in panel.x_ticks]))
            axis.set_minor_locator(NullLocator())
            _show_ticks(axes, panel.x_ticks)
        elif is_log and len(values):
            mark_axis(axis, values, label)
            _add_minor_ticks(axes, axis)
        else:
            mark_linear(axis, values, label)


def _show_ticks(axes: Any, ticks: Sequence[float]) -> None:
    """Let an axis reach to all its ticks: slopes lie between its values, and its ends would not be numbered."""
    low, high = axes.get_xlim()
    if ticks[0] < low or ticks[-1] > high:
        axes.update_datalim([(ticks[0], axes.dataLim.y0), (ticks[-1], axes.dataLim.y1)], updatey=False)
        axes.autoscale_view(scaley=False)


def _add_minor_ticks(axes: Any, axis: Any) -> None:
    """Draw the minor ticks as one line of symbols: as ticks of matplotlib they would take half of the time."""
    from matplotlib.lines import Line2D
    from matplotlib.markers import TICKDOWN, TICKLEFT, MarkerStyle
    from matplotlib.ticker import NullLocator

    low, high = axis.get_view_interval()
    positions = np.asarray(axis.get_minor_locator().tick_values(low, high) if axis.get_scale() == "log" else ())
    axis.set_minor_locator(NullLocator())
    positions = positions[(positions >= low) & (positions <= high)]
    if not len(positions):
        return
    across = axis is axes.xaxis
    at, zero = positions, np.zeros(len(positions))
    transform = axes.get_xaxis_transform(which="tick1") if across else axes.get_yaxis_transform(which="tick1")
    line = Line2D(at if across else zero, zero if across else at, ls="", ms=2, mew=0.4, color="black", clip_on=False)
    line.set_marker(MarkerStyle(TICKDOWN if across else TICKLEFT))
    line.set_transform(transform)
    line.set_in_layout(False)
    axes.add_artist(line)


def _join_x(panel: Panel) -> np.ndarray:
    x = np.concatenate([s.x for s in panel.series]) if panel.series else np.zeros(0)
    return x[np.isfinite(x)]


def _find_extent(panel: Panel) -> np.ndarray:
    ends = [a for s in panel.series for a in (s.y, s.low, s.high) if a is not None]
    values = np.concatenate(ends) if ends else np.zeros(0)
    return values[np.isfinite(values)]


def _draw_cells(axes: Any, cells: Cells) -> None:
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


def _arrange(figure: Any, places: Sequence[Any], columns: int, chart: Chart) -> None:
    """Give all panels boxes of one size, as far apart as their labels need, and the legend a place of its own.

    matplotlib's constrained layout does as much, and measures every artist twice for it: most of the time of a report.
    """
    renderer, dpi = figure.canvas.get_renderer(), figure.dpi
    width, rows = float(figure.get_figwidth()), math.ceil(len(places) / columns)
    bar = _add_colour_bar(figure, chart) if _has_colour_bar(chart) else None
    for axes in places:
        _fit_label(axes.yaxis.label, renderer, dpi)
    labels = []
    left, right = np.zeros(columns), np.zeros(columns)
    above, below = np.zeros(rows), np.zeros(rows)
    for number, axes in enumerate(places):
        row, column = divmod(number, columns)
        x, y, box = axes.xaxis.get_tightbbox(renderer), axes.yaxis.get_tightbbox(renderer), axes.bbox
        labels.append((axes.yaxis.label.get_position()[0] - box.x0, axes.xaxis.label.get_position()[1] - box.y0))
        left[column] = max(left[column], (box.x0 - y.x0) / dpi)
        right[column] = max(right[column], (x.x1 - box.x1) / dpi)
        below[row] = max(below[row], (box.y0 - x.y0) / dpi)
        above[row] = max(above[row], (y.y1 - box.y1) / dpi, _measure_titles(axes, renderer) / dpi)
    margin = 0.0 if bar is None else BAR + GAP + (bar.yaxis.get_tightbbox(renderer).x1 - bar.bbox.x1) / dpi
    gaps = GAP * (columns - 1)
    panel = (width - 2 * EDGE - margin - gaps - left.sum() - right.sum()) / columns
    before = np.concatenate([[0.0], right[:-1] + panel + GAP])
    corners = EDGE + np.cumsum(left + before)
    spare = rows * columns - len(places)
    parts = _list_handles(chart, bar is not None)
    legends = _add_legends(figure, parts, width, beside=True) if spare else []
    sizes = [_measure_legend(legend, renderer) for legend in legends]
    edge = corners[columns - spare] - left[columns - spare] / 2 if spare else 0.0  # where a legend beside panels begins
    outside = (
        not spare
        or max((size[0] for size in sizes), default=0.0) > width - EDGE - margin - edge
        or sum(size[1] for size in sizes) > PANEL_HEIGHT + below[-1]
    )
    if outside:
        for legend in legends:
            legend.remove()
        legends = _add_legends(figure, parts, width, beside=False)
        sizes = [_measure_legend(legend, renderer) for legend in legends]
    foot = sum(size[1] for size in sizes) if outside else 0.0
    height = 2 * EDGE + foot + float(np.sum(above + below)) + rows * PANEL_HEIGHT + GAP * (rows - 1)
    figure.set_size_inches(width, height)
    for axes, (beside, under) in zip(
        places, labels, strict=True
    ):  # known now: no need to measure ticks at each drawing
        axes.yaxis.set_label_coords(beside / dpi / panel, 0.5)
        axes.xaxis.set_label_coords(0.5, under / dpi / PANEL_HEIGHT)
    floor = height - EDGE
    for row in range(rows):
        floor -= above[row] + PANEL_HEIGHT
        for column in range(columns):
            if row * columns + column < len(places):
                bounds = (corners[column] / width, floor / height, panel / width, PANEL_HEIGHT / height)
                places[row * columns + column].set_position(bounds)
        if row < rows - 1:
            floor -= below[row] + GAP
    if bar is not None:
        bar.set_position(
            (
                (width - EDGE - margin + GAP) / width,
                floor / height,
                BAR / width,
                (height - EDGE - above[0] - floor) / height,
            )
        )
    top = foot + EDGE if outside else floor + PANEL_HEIGHT
    side = 0.5 if outside else edge / width
    for legend, (_, tall) in zip(legends, sizes, strict=True):
        legend.set_bbox_to_anchor((side, top / height), figure.transFigure)
        top -= tall


def _fit_label(label: Any, renderer: Any, dpi: float) -> None:
    """Shrink the label of a y axis that is longer than its panel is high, and divide it if that is not enough."""
    room = PANEL_HEIGHT + REACH
    for _ in range(2):
        length = label.get_window_extent(renderer).height / dpi
        if length > room:
            label.set_fontsize(max(LEAST_LABEL, label.get_fontsize() * room / length))
        if label.get_window_extent(renderer).height / dpi <= room:
            return
        text = label.get_text()
        spaces = [place for place, letter in enumerate(text) if letter == " "] or [len(text)]
        middle = min(spaces, key=lambda place: abs(place - len(text) / 2))
        label.set_text(f"{text[:middle]}\n{text[middle + 1 :]}")


def _measure_titles(axes: Any, renderer: Any) -> float:
    """Return how far the titles of a panel reach above it, in pixels."""
    titles = [title for title in (axes.title, axes._left_title) if title.get_text()]
    if not titles:
        return 0.0
    axes._update_title_position(renderer)
    return max(title.get_window_extent(renderer).y1 for title in titles) - axes.bbox.y1


def _has_colour_bar(chart: Chart) -> bool:
    return chart.is_ordered and len(chart.keys) > MOST_KEYS and not chart.names_all


def _list_handles(chart: Chart, bar: bool) -> list[tuple[str, list[tuple[Any, str]]]]:
    """Return the parts of the legend: what colours stand for, and what lines and points do; (title, entries) each."""
    from matplotlib.lines import Line2D

    parts = []
    if len(chart.keys) > 1 and not bar:
        lines = any(not s.points and s.role == "mean" for p in chart.panels for s in p.series)
        entries: list[tuple[Any, str]] = []
        named = chart.keys if chart.names_all else chart.keys[:MOST_NAMES]
        for key in named:
            colour, marker = pick_colour(key.place, key.number), MARKERS[key.number % len(MARKERS)]
            handle = Line2D([], [], color=colour, ls="-" if lines else "", marker=marker, ms=4)
            entries.append((handle, to_math(key.label)))
        if len(named) < len(chart.keys):
            entries.append((Line2D([], [], ls=""), f"and {len(chart.keys) - len(named)} more"))
        parts.append((to_math(chart.key_title), entries))
    marks = [(_make_handle(mark), to_math(mark.label)) for mark in chart.list_marks()]
    if marks:
        parts.append(("", marks))
    return parts


def _make_handle(mark: Mark) -> Any:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    series = mark.series
    style = {name: value for name, value in style_series(series, NEUTRAL, "o").items() if name != "zorder"}
    if series.role == "mean" and not series.points:
        style["marker"] = None
    line = Line2D([], [], **style)
    if series.low is None or series.role == "minimum":
        return line
    if series.points:
        return (Line2D([], [], ls="", marker="|", ms=9, mew=0.9, color=NEUTRAL), line)
    return (Patch(facecolor=NEUTRAL, alpha=0.18, lw=0), line)


def _add_legends(figure: Any, parts: list[tuple[str, list[tuple[Any, str]]]], width: float, beside: bool) -> list[Any]:
    """Add a legend for each part, in a column beside the panels or in rows below them."""
    legends = []
    for title, entries in parts:
        longest = max(len(re.sub(r"\\mathrm|[${}_]", "", label)) for _, label in entries)
        columns = 1 if beside else max(1, min(len(entries), int(width * LEGEND_LETTERS / (longest + HANDLE))))
        columns = math.ceil(len(entries) / math.ceil(len(entries) / columns))
        handles, labels = zip(*entries, strict=True)
        legends.append(
            figure.legend(
                handles, labels, ncols=columns, title=title or None, borderaxespad=0, columnspacing=1.4,
                loc="upper left" if beside else "upper center", alignment="left" if beside else "center",
            )
        )  # fmt: skip
    return legends


def _measure_legend(legend: Any, renderer: Any) -> tuple[float, float]:
    """Return width and height in inches."""
    box = legend.get_window_extent(renderer)
    return box.width / legend.figure.dpi, box.height / legend.figure.dpi


def _add_colour_bar(figure: Any, chart: Chart) -> Any:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    ramp = LinearSegmentedColormap.from_list("ramp", list_ramp(False))
    axes = figure.add_axes((0.9, 0.1, 0.02, 0.8))
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), ramp), cax=axes, label=to_math(chart.key_title))
    ticks = [chart.keys[n] for n in np.unique(np.linspace(0, len(chart.keys) - 1, 6).round().astype(int))]
    bar.set_ticks([key.place for key in ticks], labels=[key.label for key in ticks])
    bar.outline.set_visible(False)
    return axes
