"""Eigenvalues of Θ at the start and at the minimum."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from ntklens.analysis.study import Study
from ntklens.report.chart import Chart, Panel, Series
from ntklens.report.charts.members import Members, average
from ntklens.report.charts.setup import describe_setup
from ntklens.report.charts.trajectories import join_seeds, share_seeds

MODES = 90  # of a spectrum that are drawn: spread evenly over a logarithmic axis


def chart_spectra(study: Study, group: Members, selected: Mapping[str, xr.Dataset], lines: int) -> Chart:
    """Chart eigenvalues against their number, the mean over seeds, at the start and at the minimum."""
    panels = []
    for name, label in (("initial", "at the start"), ("minimum", "at the minimum")):
        series = []
        for run_name, key in zip(group.runs, group.labels, strict=True):
            series += _draw_spectrum(selected[run_name], name, key, share_seeds(lines, len(group.runs)))
        panels.append(Panel(name, "mode k", f"eigenvalue λ_k {label}", series, y_log=True))
    caption = f"Eigenvalues of Θ, descending: {MODES} modes or fewer of each spectrum, evenly spread in ln k."
    caption += f" Geometric mean over seeds, band ± s.e.m. of the logarithm. {describe_setup(study, group.runs)}"
    return Chart(
        "spectra", group.variant, f"spectra-{group.stem}", "Spectra", caption, group.make_keys(), group.title, panels
    )  # fmt: skip


def _draw_spectrum(run: xr.Dataset, name: str, key: str, most: int) -> list[Series]:
    variable = "eigenvalues" if name == "initial" else "minimum_eigenvalues"
    if variable not in run or not run.sizes["seed"]:
        return []
    whole = run[variable]
    values = (whole.isel(record=0) if name == "initial" else whole).values.astype(float)
    values = values[:, np.isfinite(values).any(axis=0)]
    if not values.size:
        return []
    modes = np.unique(np.geomspace(1, values.shape[1], MODES).round().astype(int))
    # What rounding leaves of the null space is no eigenvalue.
    floor = np.nanmax(values, axis=1, keepdims=True) * 1e-7
    values = np.where(values > floor, values, np.nan)[:, modes - 1]
    mean, error, _ = average(np.log(values))
    alone = np.isnan(error).all()
    low, high = (None, None) if alone else (np.exp(mean - error), np.exp(mean + error))
    curve = Series(key, "mean", modes.astype(float), np.exp(mean), low, high,
                   meaning="geometric mean over seeds" + ("" if alone else " ± s.e.m."))  # fmt: skip
    return [curve, join_seeds(run, key, np.broadcast_to(modes.astype(float), values.shape), values, most)]
