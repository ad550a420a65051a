"""A study in sentences, each of which knows what it is of: a terminal shows some, a page all."""

from collections.abc import Mapping, Sequence
from enum import StrEnum

import numpy as np
import xarray as xr

from ntklens.analysis.claims import Claim, summarise_claims
from ntklens.analysis.groups import Group
from ntklens.analysis.layers import describe_layers
from ntklens.analysis.ratio import explain_trace_ratio
from ntklens.analysis.settings import advise, is_own_loop
from ntklens.analysis.transitions import compare_transitions
from ntklens.recording.observables import OBSERVABLES
from ntklens.stats.forms import FORMS
from ntklens.stats.powerlaw import NO_FIT, Law
from ntklens.stats.surface import Surface, describe_surface
from ntklens.stats.transition import Transition
from ntklens.words import count


class Kind(StrEnum):
    """What a sentence is of."""

    SWEEP = "sweep"  # as a whole
    DIAGNOSED = "diagnosed"  # as a whole, and a diagnosis as well
    CLAIMS = "claims"  # verdicts on papers
    HEAD = "head"  # names the group that the following laws are of
    LAW = "law"  # of one group, or what follows from its laws
    JOINT = "joint"  # law over two axes


class Sentence(str):
    """A sentence of a summary.

    Attributes:
      kind: what it is of.
    """

    kind: Kind

    def __new__(cls, text: str, kind: Kind = Kind.SWEEP) -> "Sentence":
        """Return the text as a sentence of this kind."""
        sentence = super().__new__(cls, text)
        sentence.kind = kind
        return sentence


def summarise_study(
    data: xr.Dataset,
    observables: xr.Dataset,
    groups: Sequence[Group],
    laws: Sequence[Law],
    transitions: Sequence[Transition],
    surfaces: Sequence[Surface],
    states: Mapping[str, int],
    claims: Sequence[Claim],
    layers: tuple[Sequence[Law], Sequence[Transition]],
) -> list[Sentence]:
    """Return what was found in sentences, each group's laws below the sentence that names it.

    Args:
      data: what was loaded.
      observables: (run, seed), as `measure_observables` returns them.
      groups: runs that differ along one axis alone.
      laws: along them.
      transitions: along them.
      surfaces: joint laws, sorted by AICc within a group.
      states: state → how many units there are in it.
      claims: the statements of papers, judged.
      layers: laws and transitions of each layer.
    """
    total, runs = sum(states.values()), observables.sizes["run"]
    sentences = [Sentence(f"{count(runs, 'configuration')}, {states.get('done', 0)} of {count(total, 'seed')} done.")]
    stopped = _say_stopped(observables, advise("stopped", is_own_loop(data)))
    sentences += [Sentence(text, Kind.DIAGNOSED) for text in stopped]
    sentences += [Sentence(text, Kind.SWEEP) for text in _say_short(groups)]
    sentences += [Sentence(text, Kind.CLAIMS) for text in summarise_claims(claims)]
    for group in groups:
        own = [law for law in laws if (law.axis, law.group) == (group.axis, group.label)]
        own = [law for law in own if OBSERVABLES[law.observable].summarised]
        if not any(law.fits or law.is_same for law in own):
            continue
        where = f"{group.axis}{f' at {group.label}' if group.label else ''}"
        span = f"{group.x.min():g} … {group.x.max():g}"
        sentences.append(Sentence(f"Along {where} ({len(np.unique(group.x))} values, {span}):", Kind.HEAD))
        found = [t for t in transitions if (t.axis, t.group) == (group.axis, group.label)]
        texts = [*_describe_laws(group, own), *_describe_transitions(found), *explain_trace_ratio(group, laws)]
        sentences += [Sentence(text, Kind.LAW) for text in (*texts, *describe_layers(group, *layers))]
    for surface in {surface.group: surface for surface in reversed(surfaces)}.values():
        text = f"Joint law of {OBSERVABLES[surface.observable].symbol}: {describe_surface(surface)}."
        sentences.append(Sentence(text, Kind.JOINT))
    return sentences


def _say_short(groups: Sequence[Group]) -> list[str]:
    """Say which axes have too few values for a law."""
    if not groups:
        return ["Nothing numeric was swept: there is no axis to fit a law along."]
    needed = FORMS["power"].least_points
    values = {group.axis: len(np.unique(group.x)) for group in groups if len(np.unique(group.x)) < needed}
    return [
        f"{axis} has {number} values: too few for a law along it, which needs {needed}."
        for axis, number in values.items()
    ]


def _describe_laws(group: Group, laws: Sequence[Law]) -> list[str]:
    refused = [law for law in laws if not law.fits]
    sentences = [f"{name_law(law)} {law.finding}{_say_window(law, group)}." for law in laws if law.fits]
    for finding in dict.fromkeys(law.finding for law in refused):
        names = ", ".join(OBSERVABLES[law.observable].symbol for law in refused if law.finding == finding)
        reason = finding.removeprefix(NO_FIT)
        sentences.append(f"{names}: {finding}." if reason == finding else f"No law of {names}: {reason}.")
    return sentences


def _describe_transitions(found: Sequence[Transition]) -> list[str]:
    sentences = [f"Transition by {OBSERVABLES[one.observable].symbol}: {one.sentence}." for one in found]
    return [*sentences, *([f"{compare_transitions(*found)}."] if len(found) == 2 else [])]


def _say_stopped(observables: xr.Dataset, longer: str) -> list[str]:
    """Say in how many seeds training ended before the minimum, if in any: what the minimum decides is not of it."""
    if "at_last_record" not in observables:
        return []
    done = observables["state"].values == "done"
    stopped = int((done & (observables["at_last_record"].values > 0)).sum())
    if not stopped:
        return []
    return [
        f"In {stopped:,} of {count(int(done.sum()), 'seed')} training ended before the test loss rose: L_min, β, χ and "
        f"Γ_min of these are those of the end of training, not of a minimum. {longer} before reading them."
    ]


def _say_window(law: Law, group: Group) -> str:
    """Say over which values a law was fitted, if not over all."""
    x = next(iter(law.fits.values())).x
    total = len(np.unique(group.x))
    return "" if len(x) == total else f" (over {x[0]:g} … {x[-1]:g}, {len(x)} of {total} values)"


def name_law(law: Law) -> str:
    """Return the symbol of what a law is of: that of an observable, with a minus sign if it is negative."""
    negative = any(fit.sign < 0 for fit in law.fits.values())
    return f"{'−' if negative else ''}{OBSERVABLES[law.observable].symbol}"
