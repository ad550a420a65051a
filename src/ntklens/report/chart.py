"""What a figure shows, free of any plotting library: the page, the printed figure and its CSV draw the same numbers."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

FIT_ROLES = ("fit", "rival", "reference")
LEAST_REACH = 0.2  # of a forest plot's axis beyond its values: intervals that end there are whole
DWARFING = 2.0  # median widths of the intervals, likewise: of two rows both are whole


@dataclass(frozen=True)
class Key:
    """Something that a reader may choose: a run, a group of runs, a layer.

    Attributes:
      name: unique within a chart.
      label: for people.
      place: 0 … 1 along the ordered axis; None if keys have no order.
      number: how many came before.
    """

    name: str
    label: str
    place: float | None
    number: int


@dataclass(frozen=True)
class Series:
    """Points that belong together.

    Attributes:
      key: the name of its `Key`.
      role: mean, seed, minimum; fit, rival or reference.
      x, y: shape [K]; NaN interrupts a line.
      low, high: ends of a band or of error bars, shape [K]; None if there are none.
      seeds: seed of each point, shape [K], for the role seed.
      points: drawn as points, not as a line.
      dashed: drawn so beside a solid line of the same colour; of the role reference dash-dotted beside a dotted one.
      hollow: points that are shown, but were left out of a fit.
      bare: a line of few points has no marks, as marks in its figure stand for something else.
      detail: what a hover says beside the numbers.
      start: whether a logarithmic axis puts points at x = 0 beside its first tick: the start of training, a control.
      meaning: what its line or its points stand for, in the legend; empty if the legend does not name it.
    """

    key: str
    role: str
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    seeds: np.ndarray | None = None
    points: bool = False
    dashed: bool = False
    hollow: bool = False
    bare: bool = False
    detail: str = ""
    start: bool = False
    meaning: str = ""


@dataclass(frozen=True)
class Panel:
    """One pair of axes. Labels are in plain unicode, an underscore lowers what follows: `Γ_min`.

    Attributes:
      name: unique within a chart.
      x_label, y_label: of the axes.
      series: what is drawn.
      x_log, y_log: whether the scale is logarithmic.
      x_reversed: whether x falls to the right.
      note: numbers of the laws, one line each.
      short: the same on paper, where there are too many.
      x_ticks: values to number along x; None: chosen by the scale.
    """

    name: str
    x_label: str
    y_label: str
    series: list[Series]
    x_log: bool = True
    y_log: bool = False
    x_reversed: bool = False
    note: str = ""
    short: str = ""
    x_ticks: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Cells:
    """A heat map: values (Y, X), NaN where there is nothing."""

    name: str
    x_label: str
    y_label: str
    label: str
    x: list[str]
    y: list[str]
    values: np.ndarray
    log: bool = True


@dataclass(frozen=True)
class ForestColumn:
    """One number of a forest plot.

    Attributes:
      name: unique within a chart.
      label: its symbol.
      stated: what is stated of it, in words; empty if nothing is.
      low, high: the bounds of that; NaN: none, infinite: open.
    """

    name: str
    label: str
    stated: str
    low: float
    high: float


@dataclass(frozen=True)
class Forest:
    """A forest plot: a row for each setting, in each column a number with its interval.

    Attributes:
      rows: labels.
      parts: for each row, whether it is a part of the row above it that is none.
      columns: what stands side by side.
      values: key → value and ends of the interval, shape [rows, columns, 3], NaN where there is nothing.
      hollow: key → whether a mark is to be read with care, shape [rows, columns].
      crossed: key → whether a mark is not what is stated something of, shape [rows, columns].
    """

    rows: list[str]
    parts: list[bool]
    columns: list[ForestColumn]
    values: dict[str, np.ndarray]
    hollow: dict[str, np.ndarray]
    crossed: dict[str, np.ndarray]

    def find_limits(self, column: int) -> tuple[float, float]:
        """Return the extent of a column's axis: values, bounds and intervals, those that dwarf the others cut."""
        found = np.concatenate([array[:, column].reshape(-1, 3) for array in self.values.values()])
        bounds = np.array([self.columns[column].low, self.columns[column].high])
        inner = np.concatenate([found[:, 0], bounds])
        inner = inner[np.isfinite(inner)]
        if not len(inner):
            return -1.0, 1.0
        low, high = float(inner.min()), float(inner.max())
        widths = found[:, 2] - found[:, 1]
        widths = widths[np.isfinite(widths)]
        reach = max(high - low, LEAST_REACH, DWARFING * float(np.median(widths)) if len(widths) else 0.0)
        ends = found[:, 1:][np.isfinite(found[:, 1:])].tolist()
        low, high = max(low - reach, min([low, *ends])), min(high + reach, max([high, *ends]))
        margin = 0.08 * (high - low) or 0.1  # one value alone has no extent
        return low - margin, high + margin


@dataclass(frozen=True)
class Mark:
    """An entry of a legend: what lines or points of a kind stand for, whatever their colour.

    Attributes:
      label: in words.
      series: the first of its kind.
    """

    label: str
    series: Series


@dataclass(frozen=True)
class Chart:
    """A figure.

    Attributes:
      family: charts of one family show the same for different parts of a sweep; the page lets readers choose.
      variant: which part; empty if there is one.
      stem: of the file names.
      title, caption: the caption says what is drawn, and of what.
      keys: in their order.
      key_title: what keys are values of; empty if they speak for themselves.
      static_seeds: whether the printed figure shows seeds too.
      names_all: whether the legend names every key, however many there are.
      panels, cells, forest: what is drawn; a forest plot stands alone.
    """

    family: str
    variant: str
    stem: str
    title: str
    caption: str
    keys: list[Key]
    key_title: str
    panels: list[Panel] = field(default_factory=list)
    cells: list[Cells] = field(default_factory=list)
    static_seeds: bool = False
    names_all: bool = False
    forest: Forest | None = None

    @property
    def is_ordered(self) -> bool:
        """Whether keys lie along an axis."""
        return bool(self.keys) and all(key.place is not None for key in self.keys)

    def select_static(self) -> "Chart":
        """Return what the printed figure draws."""
        if self.static_seeds:
            return self
        panels = [replace(p, series=[s for s in p.series if s.role != "seed"]) for p in self.panels]
        return replace(self, panels=panels)

    def list_marks(self) -> list[Mark]:
        """Return what kinds of lines and points there are, means before seeds before curves."""
        order = ("mean", "seed", "minimum", "fit", "rival", "reference")
        found: dict[str, Series] = {}
        for panel in self.panels:
            for series in panel.series:
                if series.meaning and np.isfinite(series.y).any():
                    found.setdefault(series.meaning, series)
        marks = [Mark(label, series) for label, series in found.items()]
        return sorted(marks, key=lambda mark: (order.index(mark.series.role), mark.series.hollow, mark.series.dashed))

    def is_empty(self) -> bool:
        """Return whether there is not a single point to draw."""
        drawn = any(np.isfinite(series.y).any() for panel in self.panels for series in panel.series)
        drawn |= any(np.isfinite(cells.values).any() for cells in self.cells)
        return not drawn and not (self.forest and any(np.isfinite(v).any() for v in self.forest.values.values()))


def group_families(charts: Iterable[Chart]) -> dict[str, list[Chart]]:
    """Return the charts of each family in their order, families by their first chart, also where they are mixed."""
    families: dict[str, list[Chart]] = {}
    for chart in charts:
        families.setdefault(chart.family, []).append(chart)
    return families


def make_keys(labels: Iterable[tuple[str, str]], ordered: bool) -> list[Key]:
    """Return keys of (name, label) pairs; the same name twice is one key."""
    unique = list(dict(labels).items())
    last = max(1, len(unique) - 1)
    return [Key(name, label, n / last if ordered else None, n) for n, (name, label) in enumerate(unique)]


def list_rows(chart: Chart) -> list[dict[str, object]]:
    """Return the points of a chart as rows of a table, one a point."""
    labels = {key.name: key.label for key in chart.keys}
    rows: list[dict[str, object]] = []
    for panel in chart.panels:
        for series in panel.series:
            shared = {"panel": panel.name, "series": labels.get(series.key, series.key), "role": series.role}
            for number in np.flatnonzero(np.isfinite(series.x) & np.isfinite(series.y)):
                rows.append(
                    shared
                    | {
                        "seed": None if series.seeds is None else int(series.seeds[number]),
                        "x": float(series.x[number]),
                        "y": float(series.y[number]),
                        "low": None if series.low is None else float(series.low[number]),
                        "high": None if series.high is None else float(series.high[number]),
                        "detail": series.detail,
                    }
                )
    for cells in chart.cells:
        for (row, column), value in np.ndenumerate(cells.values):
            rows.append({"panel": cells.name, "x": cells.x[column], "y": cells.y[row], "value": float(value)})
    return rows + (_list_forest(chart.forest, labels) if chart.forest else [])


def _list_forest(forest: Forest, labels: dict[str, str]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    whole = ""
    for place, (row, part) in enumerate(zip(forest.rows, forest.parts, strict=True)):
        whole = whole if part else row
        for key, values in forest.values.items():
            found = zip(forest.columns, values[place].tolist(), forest.hollow[key][place].tolist(), strict=True)
            for column, (value, low, high), hollow in found:
                rows.append(
                    {
                        "panel": column.name, "setting": whole, "part": row if part else "", "series": labels[key],
                        "value": value, "low": low, "high": high, "stated_low": column.low, "stated_high": column.high,
                        "slope_only": hollow,
                    }
                )  # fmt: skip
    return rows
