"""Heat maps over two swept axes."""

from collections.abc import Iterator

import numpy as np

from ntklens.analysis.groups import name_swept
from ntklens.analysis.study import Study
from ntklens.recording.observables import list_observables
from ntklens.report.chart import Cells, Chart
from ntklens.report.charts.laws import read_symbol, select_values
from ntklens.report.charts.members import average
from ntklens.report.charts.setup import describe_setup
from ntklens.report.style import label_axis

MOST_CELLS = 400  # with more, numbers could not be read


def chart_surfaces(study: Study) -> Iterator[Chart]:
    """Chart the mean of the main observables over the two numeric axes with most values, if two were swept."""
    data = study.data
    numeric = [name for name in name_swept(data) if data[name].dtype.kind in "iuf"]
    numeric = [name for name in numeric if len(np.unique(data[name].values[np.isfinite(data[name].values)])) > 1]
    if len(numeric) < 2:
        return
    x_name, y_name = sorted(numeric, key=lambda name: -len(np.unique(data[name].values)))[:2]
    x, y = (
        np.unique(v[np.isfinite(v)]) for v in (data[x_name].values.astype(float), data[y_name].values.astype(float))
    )
    if len(x) * len(y) > MOST_CELLS:
        return
    cells = []
    for name in list_observables("mapped"):
        values = np.full((len(y), len(x)), np.nan)
        for row, column in np.ndindex(values.shape):
            there = (data[x_name].values == x[column]) & (data[y_name].values == y[row])
            if there.any():
                runs = [str(run) for run in data.run.values[there]]
                values[row, column] = average(select_values(study, name, runs).ravel())[0]
        columns, rows = ([f"{v:g}" for v in axis] for axis in (x, y))
        log = bool(np.nanmin(values, initial=np.inf) > 0)
        cells.append(Cells(name, label_axis(x_name), label_axis(y_name), read_symbol(name), columns, rows, values, log))
    rest = [name for name in name_swept(data) if name not in (x_name, y_name)]
    over = "".join(f" and over the {label_axis(name)}" for name in rest)
    caption = (
        f"Means over seeds{over}; empty where no seed is done. {describe_setup(study, list(map(str, data.run.values)))}"
    )
    yield Chart("surfaces", "", "surfaces", "Over two axes", caption, [], "", cells=cells)
