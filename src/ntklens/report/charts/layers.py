"""Layer by layer: how each layer's share of Θ changes, against the axis."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from ntklens.analysis.study import Study
from ntklens.report.chart import Chart, Panel, Series
from ntklens.report.charts.members import Members, average_networks, choose_ticks, find_draws, make_layer_keys
from ntklens.report.charts.setup import describe_setup

QUANTITIES = (
    ("trace_ratio", "β_ℓ of the layer", False),
    ("initial_effective_rank", "Γ_ℓ at the start", True),
    ("minimum_effective_rank", "Γ_ℓ at the minimum", True),
    ("weight_change", "|Δθ_ℓ| / |θ_ℓ|", True),
)


def chart_layers(study: Study, group: Members, selected: Mapping[str, xr.Dataset]) -> Chart:
    """Chart β, Γ and the change of the weights of each layer against the axis; runs in order where there is none."""
    runs = [selected[run] for run in group.runs]
    layers = [str(layer) for layer in study.data.layer.values]
    x = group.x if group.axis else np.arange(1.0, len(runs) + 1)
    draws = find_draws(study.data, group.runs)
    panels = []
    for name, label, log in QUANTITIES:
        values = np.full((len(runs), study.data.sizes["seed"], len(layers)), np.nan)
        for row, run in enumerate(runs):
            values[row, np.isin(study.data.seed.values, run.seed.values)] = _measure(run, name)
        series = [
            s
            for number, layer in enumerate(layers)
            for s in _draw_layer(layer, x, values[:, :, number], draws, study.data.seed.values)
        ]
        log = log or all(s.y[np.isfinite(s.y)].min(initial=1) > 0 for s in series)
        ticks = choose_ticks(x[x > 0], bool(group.axis))
        if ticks and (x == 0).any():
            ticks = (0.0, *ticks)
        panels.append(Panel(name, group.title or "run", label, series, bool(group.axis), log, x_ticks=ticks))
    keys = make_layer_keys(layers)
    present = {s.key for panel in panels for s in panel.series}
    caption = (
        "Each layer's share of Θ: β, Γ at the start and at the minimum of the test loss, and how far its weights have"
        " moved there, relative to their size at the start. Lines: means over seeds, band ± s.e.m.; faint dots:"
        f" single seeds. {describe_setup(study, group.runs)}"
    )
    return Chart(
        "layers", group.variant, f"layers-{group.stem}", "Layer by layer", caption,
        [key for key in keys if key.name in present], "layer", panels, names_all=True,
    )  # fmt: skip


def _measure(run: xr.Dataset, name: str) -> np.ndarray:
    """Return a quantity of every layer, shape [S, layers]; NaN where it was not measured."""
    shape = (run.sizes["seed"], run.sizes["layer"])

    def read(variable: str) -> np.ndarray:
        if variable not in run:
            return np.full(shape, np.nan)
        values = run[variable]
        return (values.isel(record=0) if "record" in values.dims else values).transpose("seed", "layer").values

    if name == "trace_ratio":
        initial = read("trace_layer").astype(float)
        return np.where(initial > 0, read("minimum_trace_layer") / np.where(initial > 0, initial, 1) - 1, np.nan)
    variables = {
        "initial_effective_rank": "effective_rank_layer",
        "minimum_effective_rank": "minimum_effective_rank_layer",
        "weight_change": "minimum_weight_change",
    }
    return read(variables[name]).astype(float)


def _draw_layer(layer: str, x: np.ndarray, values: np.ndarray, draws: np.ndarray, seeds: np.ndarray) -> list[Series]:
    """Return a layer's line, means and errors over networks as in other figures, and its seeds.

    Args:
      layer: its name.
      x: place of each run, shape [R].
      values: of each run and seed, shape [R, S], NaN where missing.
      draws: of the training set, shape [R]: runs of one draw are the same networks on several probes.
      seeds: their numbers, shape [S].
    """
    there = np.isfinite(values)
    if not there.any():
        return []
    dots = Series(
        layer, "seed", np.broadcast_to(x[:, None], values.shape)[there], values[there],
        seeds=np.broadcast_to(seeds, values.shape)[there], points=True, start=True, meaning="single seeds",
    )  # fmt: skip
    places = np.unique(x[there.any(axis=1)])
    together = [average_networks(values[x == place], draws[x == place]) for place in places]
    mean, error = (np.array([part[number] for part in together]) for number in (0, 1))
    error = np.nan_to_num(error)
    line = Series(layer, "mean", places, mean, mean - error, mean + error, detail=layer, start=True,
                  meaning="mean over seeds ± s.e.m.")  # fmt: skip
    return [line, dots]
