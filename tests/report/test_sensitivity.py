"""The forest plot: every setting and draw, with the numbers of the claims."""

import csv
import json
import math

import numpy as np
import pytest

from ntklens.analysis.groups import ARM, arrange_samples, find_groups
from ntklens.analysis.sensitivity import compare_settings
from ntklens.analysis.study import analyse
from ntklens.recording.observables import measure_observables
from ntklens.report.chart import Forest, ForestColumn
from ntklens.report.charts.laws import chart_laws
from ntklens.report.charts.sensitivity import chart_sensitivity
from ntklens.report.draw import draw_chart, make_figure
from ntklens.report.interactive import describe_family, encode_json
from ntklens.report.style import apply_style
from ntklens.stats.powerlaw import Law, fit_form
from ntklens.stats.samples import summarise
from studies import make_data

DRAW = "dataset.data_seed"
AXES = {
    "model.width": [16, 32, 64, 128],
    "training.loss": ["cross_entropy", "mse"],
    DRAW: [np.nan, 3.0],
    ARM: ["paper", "resolved"],
}
SMALL = {"seeds": 2, "records": 10, "modes": 4}
CLAIMED = {
    "minimum_loss": "L_min falls with width as a power law, exponent ≈ 0.5",
    "initial_trace": "Tr Θ_0 grows in proportion to the width",
    "adaptation_rate": "χ is constant in the width",
    "minimum_effective_rank": "Γ(Θ_min) grows with the width",
    "trace_ratio": "β falls with width as a power law, exponent −0.7 … −0.8",
}


@pytest.fixture(scope="module")
def study():
    return analyse(make_data(AXES, **SMALL))


@pytest.fixture(scope="module")
def chart(study):
    (chart,) = chart_sensitivity(study)
    return chart


def read_claims(study, **settings):
    """Returns observable → interval of the one group whose label holds the settings."""
    words = [f"{name}={value}" for name, value in settings.items()]
    own = [claim for claim in study.claims if all(word in claim.group for word in words)]
    found = {name: [claim.measured for claim in own if claim.claim == text] for name, text in CLAIMED.items()}
    return {name: one for name, (one,) in found.items()}


def read_row(chart, key, place):
    numbers = {column.name: chart.forest.values[key][place, n] for n, column in enumerate(chart.forest.columns)}
    return {name: tuple(numbers[name]) for name in CLAIMED}


def test_rows_are_settings_and_their_draws_and_the_arms_share_them(chart):
    own = ["first samples", "draw 3"]
    assert chart.forest.rows == ["cross-entropy", *own, "mean squared error", *own]
    assert chart.forest.parts == [False, True, True] * 2
    assert [key.label for key in chart.keys] == ["paper", "resolved"]
    assert [column.name for column in chart.forest.columns if not column.stated] == ["trace_change"]


@pytest.mark.parametrize("arm", ["paper", "resolved"])
@pytest.mark.parametrize(("loss", "place"), [("cross_entropy", 0), ("mse", 3)])
def test_a_row_holds_the_numbers_of_the_claims(study, chart, arm, loss, place):
    claims = read_claims(study, **{"training.loss": loss, ARM: arm})
    row = read_row(chart, arm, place)
    assert row == {name: (one.value, one.low, one.high) for name, one in claims.items()}
    assert all(low < value < high for value, low, high in row.values())


@pytest.mark.parametrize(("draw", "place"), [(None, 1), (3.0, 2)])
def test_a_draw_has_the_numbers_that_its_runs_have_alone(study, chart, draw, place):
    seeds = study.data[DRAW].values
    chosen = (np.isnan(seeds) if draw is None else seeds == draw) & (study.data["training.loss"].values != "mse")
    alone = analyse(study.data.isel(run=np.flatnonzero(chosen)).drop_vars([DRAW, "training.loss"]))
    for arm in ("paper", "resolved"):
        claims = read_claims(alone, **{ARM: arm})
        for name, found in read_row(chart, arm, place).items():
            assert found == pytest.approx((claims[name].value, claims[name].low, claims[name].high), rel=1e-9), name


def test_exponents_of_points_too_few_to_test_for_a_power_law_are_hollow(chart, study, tmp_path):
    assert len(np.unique(study.data["model.width"])) == 4
    assert all(hollow.all() for hollow in chart.forest.hollow.values())
    assert "Hollow: α is the mean slope alone" in chart.caption


def test_exponents_of_points_that_bend_are_told_from_those_of_power_laws():
    axes = {"model.width": 2 ** np.arange(4, 11), "training.loss": ["cross_entropy", "mse"], DRAW: [np.nan, 3.0]}
    data = make_data(axes, **SMALL | {"seeds": 3})
    observables = measure_observables(data)
    groups, laws = find_groups(observables), []
    for group in groups:
        for name in ("initial_trace", "minimum_effective_rank"):
            fits = {"power": fit_form(summarise(*arrange_samples(observables, group, name)), "power")}
            laws.append(Law(name, group.axis, group.label, fits, "power", {}, ""))
    (found,) = compare_settings(data, observables, groups, laws, [])
    unsure = {column.observable: [s.unsure[n] for s in found.settings] for n, column in enumerate(found.columns)}
    assert unsure["initial_trace"] == [True] * 6  # affine; draws alone as all together
    whole = [number for number, setting in enumerate(found.settings) if not setting.draw]
    assert [unsure["minimum_effective_rank"][number] for number in whole] == [False, False]  # ∝ m^0.2


def test_bounds_are_those_of_the_claims(chart):
    bounds = {column.name: (column.low, column.high, column.stated) for column in chart.forest.columns}
    assert bounds["trace_ratio"] == (-0.9, -0.6, "−0.9 … −0.6")
    assert bounds["minimum_effective_rank"] == (0.05, math.inf, "> 0.05")
    assert next(column.label for column in chart.forest.columns if column.name == "adaptation_rate") == "−χ"


def test_marks_and_intervals_are_drawn_where_the_numbers_are(chart):
    with apply_style():
        figure = make_figure(chart)
        figure.canvas.draw()
    renderer, (width, height) = figure.canvas.get_renderer(), figure.canvas.get_width_height()
    for number, axes in enumerate(figure.axes):
        drawn = [line.get_xdata() for line in axes.lines]
        low, high = axes.get_xlim()
        for values in chart.forest.values.values():
            for value, start, end in values[:, number]:
                assert any(len(x) == 1 and x[0] == value for x in drawn)
                assert any(tuple(x) == (max(start, low), min(end, high)) for x in drawn)
                assert low < value < high
        box = axes.get_tightbbox(renderer)
        assert min(box.x0, box.y0) >= -1
        assert box.x1 <= width + 1
        assert box.y1 <= height + 1
    labels = [text for text in figure.axes[0].texts if text.get_text().strip() in chart.forest.rows]
    assert len(labels) == 6
    assert all(text.get_window_extent(renderer).x1 < figure.axes[0].bbox.x0 for text in labels)


def test_files_and_page_hold_the_same_numbers(chart, tmp_path):
    paths = draw_chart(chart, tmp_path)
    assert [path.suffix for path in paths] == [".pdf", ".png", ".csv", ".tex"]
    with paths[2].open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 6 * 2 * len(chart.forest.columns)
    row = next(r for r in rows if (r["panel"], r["part"], r["series"]) == ("trace_ratio", "draw 3", "resolved"))
    assert row["setting"] == "cross-entropy"
    at = [column.name for column in chart.forest.columns].index("trace_ratio")
    assert [float(row[name]) for name in ("value", "low", "high")] == list(chart.forest.values["resolved"][2, at])
    (variant,) = json.loads(encode_json(describe_family([chart])))["variants"]
    column = variant["panels"][0]["forest"]["columns"][at]
    assert column["values"]["resolved"][2] == pytest.approx(chart.forest.values["resolved"][2, at], rel=1e-4)


def test_draws_stand_in_their_order_also_where_a_sweep_is_not_finished():
    data = make_data({**AXES, DRAW: [np.nan, 3.0, 10.0]}, **SMALL)
    chosen = (data[ARM].values == "paper") & (data[DRAW].values == 3)  # of this draw one arm alone is there
    (chart,) = chart_sensitivity(analyse(data.isel(run=np.flatnonzero(~chosen))))
    assert chart.forest.rows == [
        "cross-entropy", "first samples", "draw 3", "draw 10",
        "mean squared error", "first samples", "draw 3", "draw 10",
    ]  # fmt: skip
    assert np.isnan(chart.forest.values["paper"][2]).all()
    assert np.isfinite(chart.forest.values["resolved"][2]).all()


def test_arms_alone_are_rows_and_one_setting_is_no_comparison():
    arms = {"model.width": AXES["model.width"], ARM: ["paper", "resolved"]}
    (chart,) = chart_sensitivity(analyse(make_data(arms, **SMALL)))
    assert chart.forest.rows == ["paper", "resolved"]
    assert len(chart.keys) == 1
    assert not list(chart_sensitivity(analyse(make_data({"model.width": AXES["model.width"]}, **SMALL))))


def test_too_few_widths_make_no_chart():
    assert not list(chart_sensitivity(analyse(make_data({**AXES, "model.width": [16, 32]}, **SMALL))))


def test_the_weighted_kernel_stands_beside_the_raw_one():
    data = make_data({"model.width": AXES["model.width"], "model.parameterization": ["ntk", "mup"]}, **SMALL)
    width = data["model.width"].values[:, None]
    for name, power in (("trace", 1.0), ("effective_rank", 0.5)):
        for prefix in ("", "minimum_"):
            values = data[f"{prefix}{name}"]
            factor = width**power if values.ndim == 2 else width[..., None] ** power
            data[f"{prefix}{name}_weighted"] = values * factor
    study = analyse(data)
    (found,) = compare_settings(data, study.observables, study.groups, study.laws, study.claims)
    place = {column.observable: number for number, column in enumerate(found.columns)}
    for setting in found.settings:
        raw, weighted = (
            setting.exponents[place[name]].value
            for name in ("minimum_effective_rank", "minimum_effective_rank_weighted")
        )
        assert weighted == pytest.approx(raw + 0.5, abs=1e-3)
        raw, weighted = (setting.exponents[place[name]].value for name in ("initial_trace", "initial_trace_weighted"))
        assert weighted == pytest.approx(raw + 1, abs=1e-3)
    (chart,) = chart_sensitivity(study)
    assert chart.forest.rows == ["ntk", "mup"]
    (laws,) = chart_laws(study)
    for one in (chart, laws):
        assert one.caption.count("each array counts with the rate") == 1
    assert {"initial_trace_weighted", "trace_ratio_weighted", "minimum_effective_rank_weighted"} <= {
        panel.name for panel in laws.panels
    }
    with apply_style():
        figure = make_figure(laws)
        figure.canvas.draw()
    width = figure.canvas.get_width_height()[0]
    assert all(legend.get_window_extent(figure.canvas.get_renderer()).x1 <= width + 1 for legend in figure.legends)


def test_an_axis_of_one_value_without_interval_has_an_extent():
    values = {"a": np.array([[[0.3, np.nan, np.nan]]])}
    column = ForestColumn("loss", "α", "", np.nan, np.nan)
    low, high = Forest(["row"], [False], [column], values, *[{"a": np.zeros((1, 1), bool)}] * 2).find_limits(0)
    assert low < 0.3 < high


def find_limits(*rows):
    column, marks = ForestColumn("loss", "α", "", np.nan, np.nan), {"a": np.zeros((len(rows), 1), bool)}
    values = {"a": np.array(rows, float)[:, None]}
    return Forest([""] * len(rows), [False] * len(rows), [column], values, marks, marks).find_limits(0)


def test_intervals_fit_in_their_axis():
    """Exponents that nearly agree leave an axis of no extent; one interval among many that dwarfs the others is cut."""
    low, high = find_limits((0.573, 0.1, 1.05), (0.577, 0.3, 0.85))
    assert low < 0.1
    assert high > 1.05
    low, high = find_limits(*[(0.57, 0.5, 0.64)] * 5, (0.5, -8.0, 9.0))
    assert -1 < low < 0.5
    assert 0.64 < high < 2
