"""Figures of a report in a cell of a notebook."""

import difflib
import functools
import io
from typing import Any

from ntklens.analysis.study import Study
from ntklens.errors import InputError


def draw(study: Study, name: str | None = None) -> Any:
    """Draw one of the report's figures, as `task=report` does, for a cell of a notebook.

    Args:
        study: what `ntklens.analyse` returns.
        name: of a figure, such as "laws"; None: only list them.

    Returns:
        A `matplotlib.figure.Figure`, which a notebook shows and `savefig` writes; without a name, name → title of the
        figures that the study has data for.

    Raises:
        InputError: if `study` is no study, or has no figure of that name.
    """
    from ntklens.report.charts import build_charts

    _check_study(study)
    charts = {chart.stem: chart for chart in build_charts(study)}
    if name is None:
        return {stem: chart.title for stem, chart in charts.items()}
    chart = charts.get(name) or next((chart for chart in charts.values() if chart.family == name), None)
    if chart is None:
        close = difflib.get_close_matches(str(name), [*charts, *(chart.family for chart in charts.values())], n=1)
        meant = f"did you mean {close[0]}? " if close else ""
        raise InputError(f"no figure {name!r}; {meant}There are {', '.join(charts)}")
    return _make_figure(chart)


def _check_study(study: Any) -> None:
    if not isinstance(study, Study):
        kind = type(study).__name__
        raise InputError(f"draw(study, name) takes what ntklens.analyse(data) returns; here a {kind}")


def _make_figure(chart: Any) -> Any:
    from ntklens.report.draw import make_figure
    from ntklens.report.style import apply_style

    with apply_style():
        figure = make_figure(chart.select_static())
    figure._repr_png_ = functools.partial(_render, figure)  # a notebook shows it without pyplot, too
    return figure


def _render(figure: Any) -> bytes:
    from ntklens.report.style import apply_style

    file = io.BytesIO()
    with apply_style():
        figure.savefig(file, format="png", dpi=150)
    return file.getvalue()
