"""The figure of kernel regression shows the means of what runs recorded, and the network where its loss is the same."""

import json

import numpy as np
import pytest

from ntklens.analysis.study import analyse
from ntklens.report.charts import build_charts
from studies import make_data


def make(loss):
    data = make_data({"model.width": [16, 32, 64]}, seeds=3, records=6, modes=4)
    shape = data["trace"].shape
    start = np.full(shape, np.nan)
    start[:, :, 0] = 0.3 + 0.01 * np.arange(3)[None]
    data["kernel_regression"] = ("run", "seed", "record"), start
    data["minimum_kernel_regression"] = ("run", "seed"), start[:, :, 0] / 2
    configs = [json.dumps({"training": {"loss": loss}, "model": {"width": width}}) for width in (16, 32, 64)]
    return data.assign_coords(config=("run", np.array(configs, object)))


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_means_over_seeds_are_drawn(loss):
    charts = [chart for chart in build_charts(analyse(make(loss))) if chart.family == "regression"]
    (chart,) = charts
    (error,) = chart.panels  # of no kernel an accuracy was recorded
    shown = {one.key: one for one in error.series}
    assert set(shown) == {"Θ_0", "Θ_min", *(["network"] if loss == "mse" else [])}
    np.testing.assert_allclose(shown["Θ_0"].y, 0.31)
    np.testing.assert_allclose(shown["Θ_min"].y, 0.155)
    np.testing.assert_allclose(shown["Θ_0"].high - shown["Θ_0"].y, 0.01 / np.sqrt(3))


def test_accuracies_stand_beside_the_networks():
    data = make("cross_entropy")
    data["kernel_regression_accuracy"] = data["kernel_regression"] * 2
    (chart,) = (chart for chart in build_charts(analyse(data)) if chart.family == "regression")
    assert [one.key for one in chart.panels[1].series] == ["Θ_0", "network"]


def test_without_the_quantities_there_is_no_figure():
    data = make("mse").drop_vars(["kernel_regression", "minimum_kernel_regression"])
    assert not [chart for chart in build_charts(analyse(data)) if chart.family == "regression"]
