"""Laws and transitions of single layers, against what was planted."""

import dataclasses
import itertools

import numpy as np
import pytest

from ntklens.analysis.groups import find_groups
from ntklens.analysis.layers import describe_layers, study_layers
from ntklens.analysis.study import Study, analyse
from ntklens.recording.observables import measure_observables
from ntklens.report.charts.layer_order import chart_layer_order
from ntklens.report.charts.members import list_groups
from ntklens.report.draw import make_figure
from ntklens.report.style import apply_style
from ntklens.report.tables import write_fits
from studies import LAYERS, make_data

WIDTHS = [16, 32, 64, 128, 256, 512, 1024, 2048]
SCALES = {"hidden_0": 60.0, "hidden_1": 400.0}  # the readout has a pure power law


def plant(seeds=6):
    data = make_data({"model.width": WIDTHS}, seeds=seeds, records=8, modes=4)
    rng = np.random.default_rng(3)
    m = np.array(WIDTHS, float)[:, None]
    start, minimum = data["trace_layer"].values, data["minimum_trace_layer"].values
    for number, layer in enumerate(LAYERS):
        curve = 8 / (1 + m / SCALES[layer]) if layer in SCALES else 8 * m**-0.3
        ratio = curve * np.exp(0.01 * rng.standard_normal((len(WIDTHS), seeds)))
        minimum[..., number] = start[:, :, 0, number] * (1 + ratio)
    return data


@pytest.fixture(scope="module")
def study():
    """What `analyse` finds of layers alone."""
    data = plant()
    observables = measure_observables(data)
    groups = find_groups(observables)
    laws, transitions = study_layers(data, observables, groups)
    summary = describe_layers(groups[0], laws, transitions)
    return Study(
        ["sweep"], data, observables, groups, [], [], [], [], [],
        summary=summary, layer_laws=laws, layer_transitions=transitions,
    )  # fmt: skip


def test_observables_of_layers_are_differences_and_ratios():
    data = plant()
    observables = measure_observables(data)
    for number, layer in enumerate(LAYERS):
        start = data["trace_layer"].values[:, :, 0, number]
        end = data["minimum_trace_layer"].values[..., number]
        np.testing.assert_allclose(observables[f"trace_change_layer.{layer}"], end - start)
        np.testing.assert_allclose(observables[f"trace_ratio_layer.{layer}"], end / start - 1)
        assert (observables[f"initial_trace_layer.{layer}"] == start).all()


def test_transitions_of_layers_lie_where_they_were_planted(study):
    found = {one.observable.partition(".")[2]: one for one in study.layer_transitions}
    assert set(found) == set(LAYERS)
    for layer, scale in SCALES.items():
        assert found[layer].within
        assert found[layer].scale.low < scale < found[layer].scale.high
    assert not found["readout"].within
    sentence = next(one for one in study.summary if one.startswith("Layers in the order"))
    assert sentence.index("hidden_0") < sentence.index("hidden_1")
    assert "1 show none" in sentence


def test_laws_of_layers(study, tmp_path):
    laws = {law.observable: law for law in study.layer_laws}
    readout = laws["trace_ratio_layer.readout"].fits["power"].parameters["exponent"]
    assert readout.low < -0.3 < readout.high
    assert {name.partition(".")[0] for name in laws} == {
        "initial_trace_layer", "trace_change_layer", "trace_ratio_layer", "minimum_effective_rank_layer",
    }  # fmt: skip
    write_fits(tmp_path / "fits.csv", study)
    assert "trace_ratio_layer.readout,model.width,,power,-0.3" in (tmp_path / "fits.csv").read_text()


def test_the_figure_shows_them(study):
    chart = chart_layer_order(study, list_groups(study)[0])
    panels = {panel.name: panel for panel in chart.panels}
    assert {one.key: one.y.item() for one in panels["transition"].series} == {
        layer: pytest.approx(SCALES[layer], rel=0.2) for layer in SCALES
    }
    assert {one.key for one in panels["trace_ratio_layer"].series} == set(LAYERS)
    (first,) = [one for one in panels["fall"].series if one.key == "hidden_0"]
    np.testing.assert_allclose(first.y, (1 + 16 / 60) / (1 + np.array(WIDTHS) / 60), rtol=0.05)


@pytest.mark.parametrize("count", [3, 20, 45])
def test_any_number_of_layers_has_names_colours_and_numbers_of_its_own(study, count):
    names = [f"block_{number}_out" for number in range(count)]
    planted = {law.observable: law for law in study.layer_laws if law.observable.endswith(".hidden_0")}
    laws = [
        dataclasses.replace(law, observable=f"{observable.partition('.')[0]}.{name}")
        for name in names
        for observable, law in planted.items()
    ]
    many = dataclasses.replace(study, layer_laws=laws, layer_transitions=[])
    chart = chart_layer_order(many, list_groups(many)[0])
    assert [key.name for key in chart.keys] == names
    with apply_style():
        figure = make_figure(chart)
        figure.canvas.draw()
    labels = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert labels[:count] == [f"{number} {name}" for number, name in enumerate(names, start=1)]
    looks = {(line.get_color(), line.get_marker()) for line in figure.legends[0].get_lines()}
    assert len(looks) == count
    numbered = next(axes for axes in figure.axes if axes.get_xlabel().startswith("layer"))
    boxes = [label.get_window_extent() for label in numbered.get_xticklabels() if label.get_text()]
    assert len(boxes) > 2
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


def test_a_study_has_them_where_there_are_layers():
    data = plant(seeds=2).isel(run=slice(0, 5))
    found = analyse(data)
    assert {law.observable.partition(".")[2] for law in found.layer_laws} == set(LAYERS)
    assert any(sentence.startswith("Mean slope α of β_ℓ of each layer: hidden_0 ") for sentence in found.summary)
    assert analyse(data.drop_dims("layer")).layer_laws == []


def test_layers_without_a_law_are_named_below_the_figure(study):
    group = list_groups(study)[0]
    assert "Left out" not in chart_layer_order(study, group).caption
    own = [law for law in study.layer_laws if law.observable != "trace_ratio_layer.hidden_1"]
    assert "Left out: of β_ℓ 1 of 3 layers (hidden_1); no law is fitted where" in (
        chart_layer_order(dataclasses.replace(study, layer_laws=own), group).caption
    )
