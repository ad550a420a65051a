"""Transitions of two observables, held against each other."""

import math

from ntklens.recording.observables import OBSERVABLES
from ntklens.stats.transition import Transition, describe_scale


def compare_transitions(first: Transition, second: Transition) -> str:
    """Return one sentence on whether two observables put the transition at the same place."""
    names = " and ".join(OBSERVABLES[one.observable].symbol for one in (first, second))
    if all(math.isnan(one.power_p) for one in (first, second)):
        return f"{names}: too few points"
    if not (first.within and second.within):
        shown = [OBSERVABLES[one.observable].symbol for one in (first, second) if one.within]
        return f"{names}: {f'only {shown[0]}' if shown else 'neither'} shows a crossover within the sweep"
    apart = first.scale.is_outside(second.scale.low, second.scale.high)
    listed = " and ".join(describe_scale(transition.scale) for transition in (first, second))
    return f"{names} {'differ' if apart else 'do not differ beyond their intervals'}: {listed}"
