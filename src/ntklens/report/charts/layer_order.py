"""Which layers stop moving first: β of each layer, its exponent, and where its transition lies."""

from collections.abc import Mapping, Sequence

import numpy as np

from ntklens.analysis.layers import LAYER_OBSERVABLES, MOVING, name_layer
from ntklens.analysis.study import Study
from ntklens.report.chart import Chart, Panel, Series
from ntklens.report.charts.members import Members, average_samples, choose_places, choose_ticks, make_layer_keys
from ntklens.report.charts.setup import describe_setup
from ntklens.stats.powerlaw import Interval, Law
from ntklens.words import count

RELATIVE = "mean of β_ℓ / its mean at the smallest ± s.e.m."
MOST_TICKS = 7
MOST_NAMES = 12  # of layers in a caption
EXPONENTS = (MOVING, "trace_change_layer", "minimum_effective_rank_layer")


def chart_layer_order(study: Study, group: Members) -> Chart:
    """Chart β_ℓ against the axis, relative to where it starts; exponents and transitions of the layers in order."""
    own = [law for law in study.layer_laws if (law.axis, law.group) == (group.axis, group.label)]
    laws = {name_layer(law.observable): law for law in own}
    layers = list(dict.fromkeys(layer for _, layer in laws))  # in the order of the data
    keys = make_layer_keys(layers)
    places = {layer: 1.0 + number for number, layer in enumerate(layers)}
    falling = [_draw_relative(laws[MOVING, layer], layer) for layer in layers if (MOVING, layer) in laws]
    panels = [
        Panel("fall", group.title, "β_ℓ / β_ℓ at the smallest", falling, True, True,
              x_ticks=choose_ticks(group.x, log=True))
    ]  # fmt: skip
    ticks = choose_places(len(layers), MOST_TICKS)
    for name in EXPONENTS:
        found = {layer: laws[name, layer].fits.get("power") for layer in layers if (name, layer) in laws}
        points = [
            _draw_interval(layer, places[layer], fit.parameters["exponent"], "mean slope in ln-ln, 95 % interval")
            for layer, fit in found.items()
            if fit is not None
        ]
        label = f"slope α of {LAYER_OBSERVABLES[name]}"
        panels.append(Panel(name, "layer, numbered as in the legend", label, points, False, x_ticks=ticks))
    within = [
        _draw_interval(layer, places[layer], one.scale, "crossover of β_ℓ, 95 % interval")
        for one in study.layer_transitions
        if (one.axis, one.group) == (group.axis, group.label) and one.within
        and (layer := name_layer(one.observable)[1]) in places
    ]  # fmt: skip
    if within:
        label = f"{group.title} of the transition"
        panels.append(Panel("transition", "layer, numbered as in the legend", label, within, False, True,
                            x_ticks=ticks))  # fmt: skip
    caption = (
        "Which layers stop moving first: β of each layer's share of Θ, relative to its mean at the smallest value; the"
        " mean slopes α (exponents of fitted power laws) of β_ℓ, ΔTr_ℓ and Γ_ℓ; and, where a pure power law of β_ℓ is"
        " rejected and its crossover lies within the sweep, where it lies. Layers are numbered from the inputs to"
        " the outputs."
        f"{_name_left_out(study, group, laws)} {describe_setup(study, group.runs)}"
    )
    return Chart(
        "layer_order", group.variant, f"layer-order-{group.stem}", "Which layers stop moving first", caption,
        keys, "layer", [panel for panel in panels if panel.series], names_all=True,
    )  # fmt: skip


def _name_left_out(study: Study, group: Members, laws: Mapping[tuple[str, str], Law]) -> str:
    """Return which layers have no law of what the panels show, and of how many; empty if all have one."""
    rows = np.isin(study.data.run.values, group.runs)
    measured = [
        layer
        for layer in map(str, study.data["layer"].values)
        if (name := f"initial_trace_layer.{layer}") in study.observables
        and np.isfinite(study.observables[name].values[rows]).any()
    ]
    missing: dict[tuple[str, ...], list[str]] = {}
    for name in EXPONENTS:
        if any(f"{name}.{layer}" in study.observables for layer in measured):  # Γ_ℓ may not be recorded
            without = tuple(layer for layer in measured if (name, layer) not in laws)
            missing.setdefault(without, []).append(LAYER_OBSERVABLES[name])
    parts = [
        f"of {', '.join(symbols)} {len(without)} of {count(len(measured), 'layer')} ({_join_names(without)})"
        for without, symbols in missing.items()
        if without
    ]
    why = "no law is fitted where a mean is 0 or changes its sign, or is of too few values"
    return f" Left out: {'; '.join(parts)}; {why}." if parts else ""


def _join_names(names: Sequence[str]) -> str:
    """Return names, of very many the first and how many there are beside."""
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _draw_relative(law: Law, layer: str) -> Series:
    samples = next(iter(law.fits.values())).samples
    mean, error = (values / samples.mean[0] for values in (samples.mean, average_samples(samples)))
    return Series(layer, "mean", samples.x, mean, mean - error, mean + error, detail=layer, meaning=RELATIVE)


def _draw_interval(layer: str, place: float, interval: Interval, meaning: str) -> Series:
    x, y, low, high = (np.array([value]) for value in (place, interval.value, interval.low, interval.high))
    return Series(layer, "mean", x, y, low, high, points=True, detail=layer, meaning=meaning)
