"""Layer by layer: laws of each layer's share of Θ, and where each one's transition lies."""

from collections.abc import Sequence

import xarray as xr

from ntklens.analysis.groups import WIDTH, Group, arrange_samples
from ntklens.errors import InputError
from ntklens.stats.powerlaw import Law, fit_law
from ntklens.stats.samples import summarise
from ntklens.stats.transition import Transition, describe_scale, find_transition

# Observable of a layer, `<name>.<layer>` in observables.csv → its symbol.
LAYER_OBSERVABLES = {
    "initial_trace_layer": "Tr_ℓ Θ_0",
    "trace_change_layer": "ΔTr_ℓ",
    "trace_ratio_layer": "β_ℓ",
    "minimum_effective_rank_layer": "Γ_ℓ",
}
FORMS = ("power",)  # of many layers; the competition of all forms takes fifty times as long
MOVING = "trace_ratio_layer"  # of which a layer's transition is read


def name_layer(name: str) -> tuple[str, str]:
    """Return the observable and the layer of `<observable>.<layer>`."""
    observable, _, layer = name.partition(".")
    return observable, layer


def study_layers(
    data: xr.Dataset, observables: xr.Dataset, groups: Sequence[Group]
) -> tuple[list[Law], list[Transition]]:
    """Fit laws of each layer along every axis, and look for the transition of each along the width.

    Args:
        data: as `ntklens.load` returns it.
        observables: as `measure_observables` returns them.
        groups: runs that differ along one axis alone.

    Returns:
        Laws of `LAYER_OBSERVABLES`, and transitions of β_ℓ; their observable is `<name>.<layer>`.
    """
    if "layer" not in data.coords:
        return [], []
    laws, transitions = [], []
    for group in groups:
        for layer in map(str, data["layer"].values):
            for observable in LAYER_OBSERVABLES:
                name = f"{observable}.{layer}"
                if name not in observables:
                    continue
                try:
                    samples = summarise(*arrange_samples(observables, group, name))
                except InputError:
                    continue
                law = fit_law(samples, name, group.axis, group.label, forms=FORMS)
                if law.fits:
                    laws.append(law)
                if group.axis == WIDTH and observable == MOVING and not law.is_same:
                    transitions.append(find_transition(samples, name, group.axis, group.label))
    return laws, transitions


def describe_layers(group: Group, laws: Sequence[Law], transitions: Sequence[Transition]) -> list[str]:
    """Return sentences on how β of each layer falls along an axis, and on the order of their transitions."""
    found = {}
    for law in laws:
        observable, layer = name_layer(law.observable)
        if observable == MOVING and (law.axis, law.group) == (group.axis, group.label) and "power" in law.fits:
            fit = law.fits["power"]
            if fit.sign > 0:
                found[layer] = fit.parameters["exponent"]
    sentences = []
    if len(found) > 1:
        listed = ", ".join(
            f"{layer} {one.value:+.2f} [{one.low:+.2f}, {one.high:+.2f}]" for layer, one in found.items()
        )
        sentences.append(f"Mean slope α of β_ℓ of each layer: {listed}.")
    own = [one for one in transitions if (one.axis, one.group) == (group.axis, group.label)]
    within = sorted((one for one in own if one.within), key=lambda one: one.scale.value)
    if within:
        listed = ", ".join(f"{name_layer(one.observable)[1]} {describe_scale(one.scale)}" for one in within)
        silent = len(own) - len(within)
        sentences.append(
            f"Layers in the order in which they stop moving, by the crossover of β_ℓ: {listed}"
            f"{f'; {silent} show none' if silent else ''}."
        )
    return sentences
