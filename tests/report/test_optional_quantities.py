"""What `metrics` asked for stands in a report: laws, terminal, page and figures, all from the table of quantities."""

import numpy as np
import pytest

from ntklens.analysis.study import analyse
from ntklens.recording.observables import OBSERVABLES
from ntklens.recording.quantities import ENDS, ESTIMATE, QUANTITIES
from ntklens.report.charts import build_charts
from ntklens.report.console import make_console
from ntklens.report.draw import to_latex
from ntklens.report.page import _list_fit_rows
from ntklens.report.terminal import print_summary
from studies import make_data

WIDTHS = np.array([16.0, 32, 64, 128])


@pytest.fixture(scope="module")
def study():
    """A distance that is 0 at the start and falls as m^−1, an alignment that is 0 at one width, a NaN sharpness."""
    data = make_data({"model.width": WIDTHS.astype(int).tolist()}, seeds=3, records=6, modes=4)
    shape = data["trace"].shape
    grown = np.linspace(0, 1, shape[2]) * (1 + 0.01 * np.arange(shape[1]))[:, None]
    values = {
        "kernel_distance": grown / WIDTHS[:, None, None],
        "alignment": np.broadcast_to(grown * np.array([0.0, 0.1, 0.2, 0.3])[:, None, None], shape),
        "sharpness": np.full(shape, np.nan),
        "trace_weighted": 2 * data["trace"].values,
        "effective_rank_weighted": 2 * data["effective_rank"].values,
        "kernel_regression": np.full(shape, 0.3),
        "trace_error": np.full(shape, 1.0),
    }
    for name, along in values.items():
        data[name] = ("run", "seed", "record"), along
        data[f"minimum_{name}"] = ("run", "seed"), along[..., -1]
    return analyse(data)


def test_every_optional_number_of_a_record_is_an_observable_that_is_fitted():
    scalars = {
        name
        for name, one in QUANTITIES.items()
        if one.optional and not one.dims and one.when != ENDS and ESTIMATE not in one.needs
    }
    assert {"kernel_distance", "alignment", "sharpness", "flipped_units", "linearised_distance"} <= scalars
    assert all(OBSERVABLES[f"minimum_{name}"].fitted for name in scalars)
    asked = [one for one in OBSERVABLES.values() if one.asked]
    assert {one.asked for one in asked} == scalars - {"trace_weighted", "effective_rank_weighted"}
    assert len({one.symbol for one in OBSERVABLES.values()}) == len(OBSERVABLES)
    assert all(to_latex(f"{one.symbol}: {one.description}").isascii() for one in asked)


def test_laws_are_fitted_where_there_is_one(study):
    laws = {law.observable: law for law in study.laws}
    exponent = laws["minimum_kernel_distance"].fits["power"].exponent
    assert exponent.low <= -1 <= exponent.high
    assert exponent.value == pytest.approx(-1, abs=0.02)
    assert not laws["minimum_alignment"].fits
    assert "not of one sign" in laws["minimum_alignment"].finding
    assert not {"minimum_kernel_regression", "minimum_trace_error"} & set(laws)


def test_terminal_and_page_have_their_rows(study, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    print_summary(study, make_console())
    text = " ".join(capsys.readouterr().out.split())
    assert "1 − cos(Θ_min, Θ_0)" in text
    assert "No law of alignment at the minimum: the mean is not of one sign" in text
    cells = [row["cells"][1]["text"] for row in _list_fit_rows(study)]
    assert "1 − cos(Θ_min, Θ_0)" in cells


def test_figures_show_each_once(study):
    charts = {chart.family: chart for chart in build_charts(study)}
    metrics = charts["metrics"]
    assert metrics.stem == "metrics-model.width"
    assert [panel.name for panel in metrics.panels] == ["minimum_kernel_distance", "minimum_alignment"]
    assert [panel.y_log for panel in metrics.panels] == [True, False]
    assert {"mean", "fit"} <= {series.role for series in metrics.panels[0].series}
    assert "No law is fitted to alignment at the minimum" in metrics.caption
    laws = [panel.name for panel in charts["laws"].panels]
    assert "trace_ratio_weighted" in laws
    assert not [name for name in laws if OBSERVABLES[name].asked]
    curves = [panel.name for panel in charts["trajectories"].panels]
    assert curves == ["loss", "trace", "effective_rank", "accuracy", "kernel_distance", "alignment"]


def test_without_them_there_is_no_figure():
    charts = build_charts(analyse(make_data({"model.width": [16, 32]}, seeds=2, records=6, modes=4)))
    assert "metrics" not in {chart.family for chart in charts}
