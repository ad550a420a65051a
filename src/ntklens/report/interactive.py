"""Charts on the page: what plotly is given, as JSON. Colours are left to the page, which knows whether it is dark."""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ntklens.report.chart import Cells, Chart, Forest, Mark, Panel, Series
from ntklens.report.style import CATEGORIES, CATEGORIES_DARK, PLOTLY_MARKERS, format_number, list_ramp, to_markup

DIGITS = 5  # of a number on the page: more than a screen shows


def describe_family(charts: Sequence[Chart]) -> dict[str, Any]:
    """Return the charts of one family as the page's script reads them."""
    return {
        "variants": [
            {
                "name": chart.variant or "all runs",
                "ordered": chart.is_ordered,
                "keys": [
                    {"name": k.name, "label": to_markup(k.label), "place": k.place, "number": k.number}
                    for k in chart.keys
                ],
                "title": to_markup(chart.key_title),
                "marks": [_describe_mark(mark) for mark in chart.list_marks()],
                "panels": [_describe_panel(panel) for panel in chart.panels]
                + [_describe_cells(cells) for cells in chart.cells]
                + ([_describe_forest(chart.forest)] if chart.forest else []),
            }
            for chart in charts
        ]
    }


def list_colours() -> dict[str, Any]:
    """Return the page's colours, on light and on dark ground."""
    return {
        "ramp": [list_ramp(False), list_ramp(True)],
        "categories": [CATEGORIES, CATEGORIES_DARK],
        "markers": PLOTLY_MARKERS,
    }


def encode_json(value: Any) -> str:
    """Return JSON that may stand inside a script element: nothing in it can end the element or open a comment."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def _describe_panel(panel: Panel) -> dict[str, Any]:
    return {
        "name": panel.name,
        "x": to_markup(panel.x_label),
        "y": to_markup(panel.y_label),
        "xlog": panel.x_log,
        "ylog": panel.y_log,
        "reversed": panel.x_reversed,
        "ticks": list(panel.x_ticks or ()),
        "note": [to_markup(line) for line in panel.note.split("\n") if line],
        "series": [_describe_series(series) for series in panel.series],
    }


def _describe_mark(mark: Mark) -> dict[str, Any]:
    """Return an entry of the legend: seeds that are not drawn at first have none of their own on the page."""
    series = mark.series
    return {
        "label": to_markup(mark.label),
        "role": series.role,
        "points": series.points,
        "dashed": series.dashed,
        "hollow": series.hollow,
        "band": series.low is not None,
    }


def _describe_series(series: Series) -> dict[str, Any]:
    described: dict[str, Any] = {
        "key": series.key,
        "role": series.role,
        "x": _round(series.x),
        "y": _round(series.y),
        "points": series.points,
        "dashed": series.dashed,
        "hollow": series.hollow,
        "bare": series.bare,
        "detail": to_markup(series.detail),
    }
    if series.low is not None and series.high is not None:
        described |= {"low": _round(series.low), "high": _round(series.high)}
    if series.seeds is not None:
        described["seeds"] = [int(seed) for seed in series.seeds]
    if series.start and (series.x == 0).any() and (series.x > 0).any():
        described["start"] = float(series.x[series.x > 0].min()) / 2
    return described


def _describe_cells(cells: Cells) -> dict[str, Any]:
    texts = [[format_number(float(v)) if np.isfinite(v) else "" for v in row] for row in cells.values]
    return {
        "name": cells.name,
        "x": to_markup(cells.x_label),
        "y": to_markup(cells.y_label),
        "note": [],
        "cells": {
            "label": to_markup(cells.label),
            "x": cells.x,
            "y": cells.y,
            "z": [_round(row) for row in cells.values],
            "text": texts,
            "log": cells.log,
        },
    }


def _describe_forest(forest: Forest) -> dict[str, Any]:
    """Return a forest plot; its intervals are not cut, the axes are."""
    return {
        "name": "forest",
        "x": "exponent",
        "y": "setting",
        "note": [],
        "forest": {
            "rows": [to_markup(row) for row in forest.rows],
            "parts": forest.parts,
            "columns": [
                {
                    "label": to_markup(column.label),
                    "stated": column.stated,
                    "bounds": _round(np.array([column.low, column.high])),
                    "limits": _round(np.array(forest.find_limits(number))),
                    "values": {key: [_round(row) for row in array[:, number]] for key, array in forest.values.items()},
                    "hollow": {key: array[:, number].tolist() for key, array in forest.hollow.items()},
                    "crossed": {key: array[:, number].tolist() for key, array in forest.crossed.items()},
                }
                for number, column in enumerate(forest.columns)
            ],
        },
    }


def _round(values: np.ndarray) -> list[float | int | None]:
    """Return numbers to a few digits, None for what is not finite."""
    numbers = np.asarray(values, float).tolist()  # Python's: numpy's take four times as long, one by one
    return [_shorten(float(f"{v:.{DIGITS}g}")) if math.isfinite(v) else None for v in numbers]


def _shorten(value: float) -> float | int:
    return int(value) if value.is_integer() and abs(value) < 1e15 else value
