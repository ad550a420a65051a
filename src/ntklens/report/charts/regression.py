"""What kernels predict: kernel regression with Θ_0, Θ_min and Θ_∞ beside the network's own test error."""

import numpy as np

from ntklens.analysis.groups import select_good
from ntklens.analysis.study import Study
from ntklens.report.chart import Chart, Panel, Series, make_keys
from ntklens.report.charts.members import Members, average_networks, choose_ticks, find_draws
from ntklens.report.charts.setup import describe_setup
from ntklens.report.charts.theory import read_config

# What predicts → its test error and its accuracy in observables.csv.
PREDICTORS = {
    "Θ_0": ("initial_kernel_regression", "initial_kernel_regression_accuracy"),
    "Θ_min": ("minimum_kernel_regression", "minimum_kernel_regression_accuracy"),
    "Θ_∞": ("initial_limit_regression", "initial_limit_regression_accuracy"),
    "network": ("minimum_loss", "minimum_accuracy"),
}
LABELS = ("mean squared test error", "test accuracy")
MEANING = "mean over seeds ± s.e.m."


def chart_regression(study: Study, group: Members) -> Chart:
    """Chart the test errors of kernel regression and of the network at its minimum against the axis."""
    squared = all(read_config(study, run).get("training.loss") == "mse" for run in group.runs)
    panels = []
    for number, label in enumerate(LABELS):
        # The network alone is no comparison.
        kernels = any(names[number] in study.observables for key, names in PREDICTORS.items() if key != "network")
        series = [
            one
            for key, names in PREDICTORS.items()
            if kernels and (key != "network" or number or squared)
            for one in _draw(study, group, key, names[number])
        ]
        panels.append(
            Panel(label.replace(" ", "_"), group.title, label, series, True, x_ticks=choose_ticks(group.x, log=True))
        )
    caption = (
        "Kernel regression on the training set from the function at the start, with the kernel at the start, at the"
        " minimum of the test loss and at infinite width, beside the network at its minimum"
        f"{'' if squared else ' (whose loss is another, so its error is left out)'}: where they agree, the kernel"
        f" explains the network. Means over seeds, band ± s.e.m. {describe_setup(study, group.runs)}"
    )
    keys = make_keys(((key, key) for key in PREDICTORS), ordered=False)
    present = {one.key for panel in panels for one in panel.series}
    return Chart(
        "regression", group.variant, f"regression-{group.stem}", "What kernels predict", caption,
        [key for key in keys if key.name in present], "predicted by", [panel for panel in panels if panel.series],
    )  # fmt: skip


def _draw(study: Study, group: Members, key: str, name: str) -> list[Series]:
    if name not in study.observables:
        return []
    rows = study.observables.get_index("run").get_indexer(group.runs)
    good = select_good(study.observables, trained=not name.startswith("initial_"))[rows]
    values = np.where(good, study.observables[name].values[rows], np.nan)
    places = np.unique(group.x)
    draws = find_draws(study.data, group.runs)
    found = [average_networks(values[group.x == place], draws[group.x == place]) for place in places]
    mean, error = (np.array([one[number] for one in found], float) for number in (0, 1))
    there = np.isfinite(mean)
    if not there.any():
        return []
    mean, error = mean[there], np.nan_to_num(error)[there]
    return [Series(key, "mean", places[there], mean, mean - error, mean + error, detail=key, meaning=MEANING)]
