"""From a study to the charts of its report."""

from collections.abc import Iterator

from ntklens.analysis.study import Study
from ntklens.report.chart import Chart
from ntklens.report.charts.laws import chart_laws, chart_metrics, chart_ratio_split, chart_trace_law
from ntklens.report.charts.layer_order import chart_layer_order
from ntklens.report.charts.layers import chart_layers
from ntklens.report.charts.members import list_groups, select_runs
from ntklens.report.charts.regression import chart_regression
from ntklens.report.charts.sensitivity import chart_sensitivity
from ntklens.report.charts.slopes import chart_slopes
from ntklens.report.charts.spectra import chart_spectra
from ntklens.report.charts.surfaces import chart_surfaces
from ntklens.report.charts.trajectories import chart_adaptation, chart_trajectories

MOST_GROUPS = 24  # with charts of their own: a page of hundreds is neither read nor opened
MOST_LINES_A_CHART = 400  # of single seeds, in each panel: a browser draws no more with ease
MOST_LINES = 1600  # in all charts of a family: they are in the page whether looked at or not


def build_charts(study: Study) -> list[Chart]:
    """Return every chart that a study has data for, family by family in the order of the page."""
    return [chart for chart in _build_all(study) if not chart.is_empty()]


def _build_all(study: Study) -> Iterator[Chart]:
    groups = list_groups(study)[:MOST_GROUPS]
    lines = min(MOST_LINES_A_CHART, MOST_LINES // len(groups))
    whole = list_groups(study, zeros=True)[:MOST_GROUPS]
    runs = select_runs(study.data, whole)
    yield from chart_laws(study)
    yield from chart_metrics(study)
    yield from chart_sensitivity(study)
    yield from chart_slopes(study)
    yield from (chart_trajectories(study, group, runs, lines) for group in whole)
    yield from (chart_adaptation(study, group, runs, lines) for group in whole)
    yield from chart_trace_law(study)
    yield from chart_ratio_split(study)
    yield from (chart_spectra(study, group, runs, lines // 4) for group in whole)
    yield from (chart_layers(study, group, runs) for group in whole)
    yield from (chart_layer_order(study, group) for group in groups if group.axis)
    yield from (chart_regression(study, group) for group in groups if group.axis)
    yield from chart_surfaces(study)
