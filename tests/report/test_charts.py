"""What figures say of themselves, read back from matplotlib: legends, labels, notes, ticks, captions."""

import io
import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure

from ntklens.analysis.settings import _describe_optimiser
from ntklens.analysis.study import analyse
from ntklens.recording.observables import measure_observables
from ntklens.report.chart import Chart, Key, Panel, Series, list_rows
from ntklens.report.charts import build_charts
from ntklens.report.charts.laws import _chart_observable, _draw_fits
from ntklens.report.charts.members import Members, average, average_networks, average_samples, choose_ticks, list_groups
from ntklens.report.charts.slopes import differentiate, measure_slopes
from ntklens.report.charts.theory import predict_initial_trace
from ntklens.report.charts.words import describe_fit, describe_law, describe_many, select_curves
from ntklens.report.draw import INDENT, draw_chart, make_figure, style_series, to_latex, write_latex
from ntklens.report.style import apply_style, label_axis, label_group, mark_axis, to_math
from ntklens.stats.powerlaw import choose_form, fit_form, fit_law
from ntklens.stats.samples import summarise
from studies import make_data, make_study

DEPTHS = {"model.width": [16, 32, 64, 128, 256], "model.depth": [2, 3]}


@pytest.fixture(scope="module")
def study():
    return make_study(DEPTHS, seeds=4, records=12, modes=8)


@pytest.fixture(scope="module")
def charts(study):
    return build_charts(study)


@pytest.fixture(scope="module")
def laws(charts):
    """The laws on paper, drawn."""
    chart = next(chart for chart in charts if chart.family == "laws")
    with apply_style():
        figure = make_figure(chart)
        figure.canvas.draw()
    return chart, figure


def read_legends(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_the_legend_names_solid_dashed_band_and_dots(laws):
    _, figure = laws
    assert {"mean over seeds ± s.e.m.", "single seeds", "preferred law, 95 % band", "closest rival"} <= set(
        read_legends(figure)
    )
    assert {"depth 2", "depth 3"} <= set(read_legends(figure))


def test_no_override_stands_in_a_figure(charts):
    for chart in charts:
        texts = [chart.title, chart.variant, chart.caption, chart.key_title, *(key.label for key in chart.keys)]
        texts += [text for panel in chart.panels for text in (panel.x_label, panel.y_label, panel.note, panel.short)]
        assert not [text for text in texts if re.search(r"model\.|dataset\.|=\d+,", text)], chart.stem


def test_notes_hold_numbers_and_no_line_divides_an_interval(laws):
    chart, figure = laws
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    noted = [title for title in titles if title]
    assert len(noted) >= 6
    for title in noted:
        for line in title.split("\n"):
            assert line.count("[") == line.count("]"), title
        assert re.search(r"= [−\d]", title.replace("\u00a0", " ")), title
    for panel, title in zip(chart.panels, titles, strict=True):  # a group begins a line, and goes on in an indented one
        begun = [line for line in title.split("\n") if not line.startswith("   ")]
        assert len(begun) == len(panel.note.split("\n"))
    assert len(titles) == len(chart.panels)


def test_the_indent_of_a_note_has_a_glyph_beside_symbols(caplog):
    with apply_style():
        figure = Figure()
        figure.text(0.1, 0.5, to_math(f"{INDENT}Θ_0 = 3"))
        figure.savefig(io.BytesIO())
    assert not [record.message for record in caplog.records if "glyph" in record.message]


def test_everything_lies_within_the_figure(laws):
    _, figure = laws
    renderer, (width, height) = figure.canvas.get_renderer(), figure.canvas.get_width_height()
    boxes = [axes.get_tightbbox(renderer) for axes in figure.axes]
    boxes += [legend.get_window_extent(renderer) for legend in figure.legends]
    for box in boxes:
        assert box.x0 >= -1
        assert box.y0 >= -1
        assert box.x1 <= width + 3
        assert box.y1 <= height + 1
    for number, one in enumerate(boxes[: len(figure.axes)]):
        assert not any(one.overlaps(other) for other in boxes[number + 1 :])


def test_the_swept_values_are_the_ticks(laws):
    _, figure = laws
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["16", "32", "64", "128", "256"]


def test_figures_along_another_axis_do_not_speak_of_the_width():
    """But for the limits that theory knows, and what networks are."""
    for chart in build_charts(make_study({"dataset.train_size": [16, 32, 64, 128, 256]}, records=12, modes=8)):
        texts = [chart.title, chart.caption, chart.key_title, *(k.label for k in chart.keys)]
        texts += [t for p in chart.panels for t in (p.x_label, p.y_label, p.note, *(s.meaning for s in p.series))]
        for text in texts:
            assert not re.search(r"(?<!finite )\bwidth\b(?! \d)", text), (chart.stem, text)


def test_depths_are_whole_numbers():
    study = make_study({"model.depth": [2, 3]}, records=12, modes=8)
    chart = next(chart for chart in build_charts(study) if chart.family == "laws")
    with apply_style():
        axes = make_figure(chart).axes[0]
    assert list(axes.get_xticks()) == [2, 3]
    assert choose_ticks(np.array([1.0, 2, 3, 4, 5, 6]), log=True) == (1, 2, 3, 4, 5, 6)
    assert choose_ticks(np.arange(1.0, 40), log=True) is None


def test_an_axis_of_two_values_has_no_figures_where_another_shows_its_runs(study, charts):
    assert {group.axis for group in list_groups(study)} == {"model.width"}
    assert sum(chart.family == "laws" for chart in charts) == 1
    assert not any("depth" in chart.stem.split("-")[1] for chart in charts if "-" in chart.stem)


def test_a_run_on_a_short_axis_alone_is_drawn():
    data = make_data({"model.width": [16, 32, 64, 128], "model.depth": [2, 3]}, records=12, modes=8)
    kept = data.isel(run=[row for row in range(8) if int(data["model.depth"][row]) == 2 or row == 1])
    drawn = {run for group in list_groups(analyse(kept)) for run in group.runs}
    assert drawn == set(kept.run.values.tolist())


def test_what_cannot_be_fitted_is_said_once_in_the_caption():
    chart = next(c for c in build_charts(make_study({"model.width": [16, 32, 64]}, records=12)) if c.family == "laws")
    assert chart.caption.count("needs 4 points along the axis, there are 3") == 1
    assert not any(panel.note for panel in chart.panels)


def test_the_test_accuracy_is_drawn_and_on_a_linear_scale(charts):
    panel = next(p for p in charts[0].panels if p.name == "minimum_accuracy")
    assert not panel.y_log
    assert any(series.role == "mean" for series in panel.series)
    curves = next(chart for chart in charts if chart.family == "trajectories")
    assert "accuracy" in [panel.name for panel in curves.panels]


def test_a_law_that_does_not_describe_the_points_is_not_drawn():
    x, rng = np.geomspace(8, 1024, 8), np.random.default_rng(0)
    bump = np.exp(-((np.log(x / 90)) ** 2))
    seeds = bump[:, None] * (1 + 0.01 * rng.standard_normal((8, 5)))
    samples = summarise(x, seeds)
    assert not fit_form(samples, "power").is_describing
    law = fit_law(samples, "trace_ratio", "model.width")
    for form in filter(None, select_curves(law)):
        assert law.fits[form].is_describing
    exact = summarise(x, (x**-0.5)[:, None] * (1 + 0.01 * rng.standard_normal((8, 5))))
    assert fit_form(exact, "power").is_describing
    constant = summarise(x, 1 + 0.01 * rng.standard_normal((8, 5)))
    assert fit_form(constant, "power").is_describing
    flat = fit_law(constant, "adaptation_rate", "model.width")
    assert "mean slope, α\u00a0=\u00a0" in describe_law(flat)  # a constant is affine as well
    assert "power law, α\u00a0=\u00a0−0.5" in describe_law(fit_law(exact, "minimum_loss", "model.width"))


def test_text_figure_and_numbers_choose_the_same_form():
    """A power law that the points bend about, or that was not tested, is no law in any of them."""
    x, rng = 2.0 ** np.arange(5, 10), np.random.default_rng(1)
    curve = (x / (1 + x / 100)) ** 0.4
    for points, drawn, words in ((5, None, "bends, α"), (4, "power", "mean slope, α")):
        samples = summarise(x[:points], curve[:points, None] * (1 + 0.01 * rng.standard_normal((points, 5))))
        law = fit_law(samples, "minimum_effective_rank", "model.width", forms=("power", "power_plateau"))
        assert law.preferred == "power"
        assert select_curves(law)[0] == drawn
        assert drawn or select_curves(law) == (None, "power_plateau")  # what fits better is drawn, and why it lost
        assert describe_law(law).startswith(words)
        assert ("; dashed: power law, then plateau, no hold-out" in describe_law(law)) == (drawn is None)
        assert describe_many([law]).startswith(words.replace(", α", " in 1 of 1, α"))
        assert "with mean slope" in law.finding


def test_a_panel_of_few_points_that_another_form_describes_says_that_they_are_few():
    x = np.array([16.0, 64, 256, 1024])
    values = (5 + 0.01 * x)[:, None] * np.exp(0.02 * np.random.default_rng(0).normal(size=(4, 20)))
    law = fit_law(summarise(x, values), "trace_ratio", "model.width")
    assert law.fits["affine"].aicc < law.fits["power"].aicc
    assert select_curves(law) == (None, None)
    assert "; no curve: 4 points are too few to test for a power law" in describe_law(law)


def test_a_panel_without_a_curve_has_the_reason():
    """Of points that bend a form of lower AICc is drawn though it is not preferred; without one the panel says why."""
    x, rng = 2.0 ** np.arange(4, 11), np.random.default_rng(1)
    curve = (x / (1 + x / 100)) ** 0.4
    samples = summarise(x, curve[:, None] * (1 + 0.01 * rng.standard_normal((7, 5))))
    law = fit_law(samples, "minimum_effective_rank", "model.width", forms=("power", "power_plateau"))
    power, plateau = law.fits["power"], law.fits["power_plateau"]
    bound = replace(plateau.profile, loss=np.arange(len(plateau.profile.psi)))
    cases = {
        "dashed: power law, then plateau, hold-out worse": replace(plateau, holdout=2 * power.holdout),
        "no curve: scale at a bound": replace(plateau, profile=bound),
        "no curve: no form fits better": replace(plateau, aicc=power.aicc + 1),
    }
    for words, fit in cases.items():
        fits = {"power": power, "power_plateau": fit}
        changed = replace(law, fits=fits, preferred=choose_form(fits))
        assert changed.course.is_rejected
        assert describe_law(changed).endswith(words)
        assert describe_many([changed, changed]).endswith(f" ({words.replace('power law, then plateau, ', '')})")
        drawn = _draw_fits(changed, None, 1.0)
        assert [series.meaning for series in drawn] == ["lower AICc, not preferred"] * words.startswith("dashed")


@pytest.mark.parametrize(
    ("low", "high"), [(2.1, 19), (3.1, 13), (1.05, 1.9), (0.3, 2.6), (40, 900), (3, 4000), (1e5, 8e5)]
)
def test_a_logarithmic_axis_has_three_numbers(low, high):
    axes = Figure().add_subplot()
    axes.set_yscale("log")
    axes.plot([1, 2], [low, high])
    mark_axis(axes.yaxis, np.array([low, high]), "y")
    axes.figure.canvas.draw()
    bottom, top = axes.get_ylim()
    places = zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
    numbered = [tick for tick, label in places if label.get_text() and bottom <= tick <= top]
    assert 3 <= len(numbered) <= 7


def test_an_axis_of_slopes_has_all_values_of_the_axis():
    study = make_study({"model.width": [16, 32, 64, 128]}, records=12, modes=8)
    chart = next(chart for chart in build_charts(study) if chart.family == "slopes")
    with apply_style():
        axes = make_figure(chart).axes[0]
    low, high = axes.get_xlim()
    assert low < 16 < 128 < high
    assert list(axes.get_xticks()) == [16, 32, 64, 128]


def test_means_of_unresolved_seeds_are_hollow_also_where_no_law_is_fitted():
    data = make_data({"model.width": [16, 32, 64, 128]}, records=12, modes=4)
    data["minimum_step"][:2] = 3
    study = SimpleNamespace(data=data, observables=measure_observables(data), laws=[])
    runs = [str(run) for run in data.run.values]
    group = Members("model.width", "", runs, runs, "width", data["model.width"].values.astype(float))
    for name, hollow in (("minimum_loss", [16, 32]), ("minimum_accuracy", [16, 32]), ("initial_trace", [])):
        means = [s for s in _chart_observable(study, name, "model.width", [group]).series if s.role == "mean"]
        drawn = {bool(s.hollow): s.x.tolist() for s in means}
        assert drawn.get(True, []) == hollow
        assert drawn[False] == [w for w in (16, 32, 64, 128) if w not in hollow]


def test_every_form_is_described_with_numbers():
    x = np.geomspace(8, 1024, 8)
    seeds = (100 + x)[:, None] * (1 + 0.01 * np.random.default_rng(1).standard_normal((8, 5)))
    samples = summarise(x, seeds)
    for form in ("power", "affine", "offset_power", "plateau_power", "power_plateau", "crossover"):
        assert re.search(r"=\u00a0[−\d]", describe_fit(fit_form(samples, form), "model.width")), form
    assert "a/b" in describe_fit(fit_form(samples, "affine"), "model.width")


def test_local_exponents_of_a_power_law_are_its_exponent(charts):
    x = np.array([8.0, 16, 64, 128])
    middle, slope, error = measure_slopes(x, 3 * x**-0.7, np.full(4, 1e-4))
    np.testing.assert_allclose(slope, -0.7)
    np.testing.assert_allclose(middle, [2**3.5, 32, 2**6.5])
    np.testing.assert_allclose(error, np.sqrt(2e-4) / np.log([2, 4, 2]))
    samples = summarise(x, (3 * x**-0.7)[:, None] * np.array([0.99, 1.0, 1.01]))
    np.testing.assert_allclose(differentiate(fit_form(samples, "power"), x), -0.7, rtol=1e-5)
    chart = next(chart for chart in charts if chart.family == "slopes")
    assert [panel.y_label for panel in chart.panels][:2] == ["d ln(L_min) / d ln m", "d ln(Tr Θ_0) / d ln m"]


def make_dense(model):
    """A study of networks whose configuration is `model`, inputs of dimension 64 with |x|² = 9."""
    data = make_data({"model.width": [16, 32, 64, 128, 256]}, records=12, modes=8)
    configs = [json.dumps({"model": model | {"width": int(w)}}) for w in data["model.width"].values]
    data = data.assign_coords(config=("run", np.array(configs, object)))
    for name, value in {"N": 8.0, "C": 3.0, "input_dim": 64.0, "probe_square": 9.0}.items():
        data[name] = (("run", "seed"), np.full((5, 3), value))
    data["effective_rank_traced"] = data.effective_rank / 4
    return analyse(data)


DENSE = {"_target_": "ntklens.models.mlp.MLP", "depth": 2, "activation": "relu", "parameterization": "standard"}


@pytest.mark.parametrize(
    ("change", "trace", "rank"),
    [
        ({}, True, True),
        ({"activation": "tanh"}, False, True),
        ({"parameterization": "ntk"}, False, False),
        ({"output_scale": 2.0}, False, False),
        ({"_target_": "mine.CNN"}, False, False),
    ],
)
def test_theory_is_drawn_only_for_networks_that_it_holds_for(change, trace, rank):
    panels = {panel.name: panel for panel in build_charts(make_dense(DENSE | change))[0].panels}
    lines = {name: [s for s in panel.series if s.role == "reference"] for name, panel in panels.items()}
    assert bool(lines["initial_trace"]) == trace
    assert bool(lines["initial_effective_rank"]) == rank
    if trace:
        (line,) = lines["initial_trace"]
        expected = 24 * predict_initial_trace(line.x, 2, True, 64.0, 9.0)
        np.testing.assert_allclose(line.y, expected)
        (other,) = lines["initial_effective_rank"]
        assert [style_series(one, "black", "o")["ls"] for one in (line, other)] == [":", "-."]
        assert "infinite" not in other.meaning


@pytest.mark.slow
def test_the_trace_that_theory_predicts_is_that_of_networks():
    jax = pytest.importorskip("jax")
    import ntklens
    from ntklens.models.mlp import MLP

    x = jax.random.normal(jax.random.key(1), (6, 20))
    square = float((x**2).sum(axis=1).mean())
    for bias in (True, False):
        model = MLP(512, 2, 3, bias=bias)
        traces = [
            sum(float(t) for t in ntklens.layer_traces(model, model.init(jax.random.key(seed), x[:1]), x).values())
            for seed in range(6)
        ]
        np.testing.assert_allclose(
            np.mean(traces) / 18, float(predict_initial_trace(np.array(512.0), 2, bias, 20, square)), rtol=0.06
        )


@pytest.mark.slow
def test_many_groups_share_one_line_of_numbers():
    study = make_study({"model.width": [8, 16, 32, 64, 128], "model.depth": [1, 2, 3, 4]}, records=12, modes=8)
    chart = next(c for c in build_charts(study) if c.stem == "laws-model.width")
    panel = next(p for p in chart.panels if p.name == "minimum_effective_rank")
    assert re.search(r"power law in \d of 4, α = [−\d.]+ … [−\d.]+", panel.short.replace("\u00a0", " "))


def test_a_caption_goes_to_latex(laws, tmp_path):
    chart, _ = laws
    text = write_latex(chart)
    assert rf"\includegraphics[width=\linewidth]{{{chart.stem}.pdf}}" in text
    assert text.count("{") == text.count("}")
    assert re.findall(r"(?<!\\)[%&#]", text) == []
    assert to_latex("Γ_min ∝ m^α, 95 % of L_∞") == (
        r"$\Gamma_{\mathrm{min}}$ $\propto$ m$^{\alpha }$, 95 \% of $L_{\infty}$"
    )


def test_words_for_settings():
    assert label_group("model.depth=2, dataset.train_size=64") == "depth 2, D = 64"
    assert label_group("model.output_scale=0.1, sweep=a=b, c") == "output scale 0.1, a=b, c"
    assert (
        label_group("dataset._target_=ntklens.data.mnist.load, model._target_=ntklens.models.mlp.MLP") == "mnist, MLP"
    )
    assert label_axis("model.output_scale") == "output scale"
    for full, name in ((True, "GD"), (False, "SGD")):
        assert label_group("optimizer._target_=optax.sgd", full) == name
        assert label_group("optimizer._target_=optax.adam", full) == "Adam"
        config = {"optimizer._target_": "optax.sgd", "training.batch_size": None if full else 32}
        assert _describe_optimiser([config]) == name
    assert label_group("") == ""


@pytest.mark.parametrize("label", ["d ln(Γ_min (weighted)) / d ln input dim of it", "accuracy " * 9])
def test_no_label_of_an_axis_is_cut_off(label):
    series = Series("a", "mean", np.array([8.0, 16.0]), np.array([1.0, 2.0]), points=True)
    panels = [Panel(str(n), "width m", label, [series]) for n in range(2)]
    with apply_style():
        figure = make_figure(Chart("slopes", "", "one", "t", "c", [Key("a", "a", None, 0)], "", panels))
        figure.canvas.draw()
    for axes in figure.axes:
        box = axes.yaxis.label.get_window_extent(figure.canvas.get_renderer())
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.y1 <= figure.bbox.height


def test_a_long_number_is_written_without_the_power_that_the_label_names(tmp_path):
    x = np.array([8.0, 16.0, 32.0])
    series = Series("a", "mean", x, np.array([2.1e5, 3e5, 4.2e5]), points=True)
    for log in (True, False):
        panel = Panel("trace", "width m", "ΔTr", [series], y_log=log)
        chart = Chart("laws", "", f"one-{log}", "t", "c", [Key("a", "a", None, 0)], "", [panel])
        with apply_style():
            figure = make_figure(chart)
            figure.canvas.draw()
        (axes,) = figure.axes
        assert axes.get_ylabel() == "ΔTr / $10^{5}$"
        assert "3" in [label.get_text() for label in axes.get_yticklabels()]
        assert {path.suffix for path in draw_chart(chart, tmp_path)} == {".pdf", ".png", ".csv", ".tex"}


@pytest.mark.parametrize("words", [3, 12])
def test_a_legend_lies_within_the_figure(words):
    x = np.array([1.0, 2.0, 4.0])
    panels = [Panel(f"p{n}", "m", "y", [Series("a", "mean", x, x, meaning="word " * words)]) for n in range(5)]
    chart = Chart("laws", "", "laws", "", "", [Key("a", "a", None, 0)], "", panels)
    with apply_style():
        figure = make_figure(chart)
        figure.draw_without_rendering()
        (legend,) = figure.legends
        box, whole = legend.get_window_extent(), figure.bbox
    assert whole.x0 <= box.x0 < box.x1 <= whole.x1
    assert whole.y0 <= box.y0 < box.y1 <= whole.y1


@pytest.mark.parametrize("scale", [0.1, 1 / 3, 1.7e5])
def test_a_bar_that_reaches_zero_leaves_nothing_for_a_logarithmic_axis(scale):
    """Of one seed alone that is not 0 the s.e.m. is the mean, but for rounding."""
    for count in range(2, 12):
        mean, error, _ = average(np.array([scale, *[0.0] * (count - 1)])[:, None])
        assert (mean - error).item() == 0.0


def test_bars_of_means_are_the_standard_error_over_seeds_in_every_figure():
    """Along an axis that shares its networks, fits leave out what seeds share: their variances are no s.e.m."""
    data = make_data({"optimizer.weight_decay": [0.01, 0.03, 0.1, 0.3]}, seeds=4, records=6, modes=4)
    data["minimum_trace"] *= 1 + np.array([0.0, 0.2, 0.4, 0.6]) + 0.01 * np.arange(4)[:, None]
    study = analyse(data)
    charts = {chart.stem.split("-optimizer")[0]: list_rows(chart) for chart in build_charts(study)}
    for stem in ("laws", "ratio-split"):
        rows = [row for row in charts[stem] if row["panel"] == "trace_ratio"]
        means = [row for row in rows if row["role"] == "mean"]
        assert len(means) == 4
        for row in means:
            place = study.data["optimizer.weight_decay"].values == row["x"]
            values = study.observables["trace_ratio"].values[place].ravel()
            half = values.std(ddof=1) / len(values) ** 0.5
            assert (row["y"], row["low"], row["high"]) == pytest.approx(
                (values.mean(), values.mean() - half, values.mean() + half), rel=1e-9
            ), stem


def test_marks_of_learning_curves_are_those_of_minima(charts):
    """Records of Γ are few, and a line of few points is marked in other figures."""
    series = {name: [s for c in charts if c.family == name for p in c.panels for s in p.series]
              for name in ("trajectories", "adaptation", "layers")}  # fmt: skip
    marked = {
        name: {s.role for s in own if not s.points and style_series(s, "black", "o").get("marker")}
        for name, own in series.items()
    }
    assert marked == {"trajectories": set(), "adaptation": set(), "layers": {"mean"}}
    assert "minimum" in {s.role for s in series["trajectories"] if style_series(s, "black", "o").get("marker")}


def test_the_figure_of_layers_counts_networks_on_several_probes_once():
    data = make_data({"model.width": [8, 16, 32], "dataset.probe_seed": [0, 1]}, seeds=3, records=6, modes=4)
    data["minimum_weight_change"] = data.minimum_weight_change * (1 + 0.3 * np.arange(3))[None, :, None]
    chart = next(chart for chart in build_charts(analyse(data)) if chart.family == "layers")
    layer = str(data.layer.values[0])
    rows = [row for row in list_rows(chart) if row["panel"] == "weight_change" and row["detail"] == layer]
    for row in (row for row in rows if row["role"] == "mean"):
        own = data.minimum_weight_change.values[data["model.width"].values == row["x"]][..., 0]  # [probes, seeds]
        half = own.mean(axis=0).std(ddof=1) / 3**0.5
        assert (row["y"], row["high"] - row["y"]) == pytest.approx((own.mean(), half), rel=1e-6)
    assert rows


def test_networks_on_several_probes_are_counted_once():
    values = np.random.default_rng(0).normal(5.0, 1.0, (3, 1, 2, 4))  # [K, draws, probes, seeds]
    mean, error, count = average_networks(values[0, 0], np.zeros(2, int))
    networks = values.mean(axis=(1, 2))
    assert (mean, error, count) == pytest.approx((values[0].mean(), networks[0].std(ddof=1) / 2, 4))
    samples = summarise(np.array([1.0, 2, 4]), values, ("draw", "probe", "seed"))
    np.testing.assert_allclose(average_samples(samples), networks.std(axis=1, ddof=1) / 2)


def test_what_cannot_depend_on_the_axis_is_drawn_without_laws():
    """Networks before training are the same at every weight decay: no law, no split, no slope, and one sentence."""
    data = make_data({"optimizer.weight_decay": [0.01, 0.1, 0.3, 1.0]}, seeds=2, records=6, modes=4)
    for name in ("trace", "trace_layer"):  # of the start
        data[name].values[:, :, 0] = data[name].values[:1, :, 0]
    found = analyse(data)
    assert "initial_trace" in {law.observable for law in found.laws if law.is_same}
    assert "Tr Θ_0: the same at every value." in found.summary
    assert not any(law.observable.startswith("initial_trace_layer") for law in found.layer_laws)
    charts = {chart.family: chart for chart in build_charts(found)}
    assert not {"trace_law", "ratio_split"} & set(charts)
    assert "initial_trace" not in {panel.name for panel in charts["slopes"].panels}
    (panel,) = [panel for panel in charts["laws"].panels if panel.name == "initial_trace"]
    assert (panel.note, {series.role for series in panel.series}) == ("the same at every value", {"mean", "seed"})
    assert "No law is fitted to Tr Θ_0: the same at every value." in charts["laws"].caption


def test_the_zero_of_an_axis_is_drawn_where_no_logarithm_is_needed():
    """A control at 0 has no place in laws; learning curves, spectra and layers show it beside the other values."""
    study = make_study({"optimizer.weight_decay": [0.0, 0.01, 0.1]}, seeds=2, records=6, modes=4)
    (group,) = study.groups
    assert (len(group.zeros), len(group.runs)) == (1, 2)
    charts = {chart.family: chart for chart in build_charts(study)}
    for family in ("trajectories", "adaptation", "spectra"):
        assert [key.label for key in charts[family].keys] == ["0", "0.01", "0.1"]
        assert {s.key for panel in charts[family].panels for s in panel.series} == {"0", "0.01", "0.1"}
    panel = charts["layers"].panels[0]
    assert {0.0, 0.01, 0.1} == {x for s in panel.series for x in s.x}
    assert panel.x_ticks == (0.0, 0.01, 0.1)
    assert all(0.0 not in s.x for panel in charts["laws"].panels for s in panel.series)
    with apply_style():
        axes = make_figure(charts["layers"].select_static()).axes[0]
    assert axes.get_xlim()[0] < 0  # the mark at 0 is not cut


def test_what_was_not_recorded_has_no_panel():
    data = make_data({"model.width": [8, 16, 32]}, seeds=2, records=6, modes=4)
    without = data.drop_vars([name for name in data if "accuracy" in name])
    for one, there in ((data, True), (without, False)):
        charts = {chart.family: chart for chart in build_charts(analyse(one))}
        assert ("minimum_accuracy" in {panel.name for panel in charts["laws"].panels}) == there
        chart = charts["trajectories"]
        assert ("accuracy" in {panel.name for panel in chart.panels}) == there
        assert ("accuracies" in chart.caption) == there


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [0.0, -1.0, np.nan])
def test_values_without_a_logarithm_are_drawn_without_a_warning(value):
    y = np.full(3, value)
    series = Series("a", "mean", np.array([1.0, 2, 4]), y, y, y, meaning="mean")
    for points in (False, True):
        panel = Panel("p", "x", "y", [replace(series, points=points)], True, True)
        chart = Chart("f", "", "f", "F", "c", [Key("a", "a", None, 0)], "", [panel])
        with apply_style():
            make_figure(chart).canvas.draw()
