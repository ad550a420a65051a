"""A sweep, studied: observables, laws, transitions, diagnoses and claims, ready to be shown."""

import contextlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from ntklens.analysis.claims import Claim, judge_claims, summarise_claims
from ntklens.analysis.convergence import Change, compare_steps
from ntklens.analysis.diagnostics import Diagnosis, diagnose
from ntklens.analysis.groups import (
    DATA,
    RANDOM,
    WIDTH,
    Group,
    arrange_samples,
    describe_value,
    find_groups,
    list_swept,
    select_good,
    select_whole_steps,
)
from ntklens.analysis.layers import describe_layers, study_layers
from ntklens.analysis.overview import describe_study, describe_study_html
from ntklens.analysis.ratio import explain_trace_ratio
from ntklens.analysis.transitions import compare_transitions
from ntklens.errors import InputError
from ntklens.recording.observables import OBSERVABLES, UNRESOLVED_STEPS, list_observables, measure_observables
from ntklens.stats.forms import FORMS
from ntklens.stats.powerlaw import Law, add_crossover, fit_law
from ntklens.stats.samples import summarise
from ntklens.stats.surface import FORMS as SURFACE_FORMS
from ntklens.stats.surface import Surface, describe_surface, fit_surface
from ntklens.stats.transition import Transition, find_transition
from ntklens.words import count


@dataclass(frozen=True, repr=False)
class Study:
    """What a report shows.

    Attributes:
      names: of the sweeps.
      data: their trajectories, as `ntklens.load` returns them.
      observables: (run, seed), as `measure_observables` returns them.
      groups: runs that differ along one axis alone.
      laws: of every fitted observable in every group.
      transitions: of β and Γ_min in every group.
      surfaces: joint laws, if two axes are swept.
      diagnoses: what may be wrong, and what to do.
      claims: the statements of papers, judged.
      states: state → how many units there are in it.
      summary: sentences.
      steps: how observables change where the step is divided.
      layer_laws: of each layer in every group; their observable is `<name>.<layer>`.
      layer_transitions: of β of each layer in every group along the width.
      asked: (run, seed) that sweeps were launched for, as far as it is known.
    """

    names: list[str]
    data: xr.Dataset
    observables: xr.Dataset
    groups: list[Group]
    laws: list[Law]
    transitions: list[Transition]
    surfaces: list[Surface]
    diagnoses: list[Diagnosis]
    claims: list[Claim]
    states: dict[str, int] = field(default_factory=dict)
    summary: list[str] = field(default_factory=list)
    steps: list[Change] = field(default_factory=list)
    layer_laws: list[Law] = field(default_factory=list)
    layer_transitions: list[Transition] = field(default_factory=list)
    asked: frozenset[tuple[str, int]] = frozenset()

    def __repr__(self) -> str:
        """Return a short table; the attributes hold the rest."""
        return describe_study(self)

    def _repr_html_(self) -> str:
        return describe_study_html(self)


def analyse(
    data: xr.Dataset,
    names: Sequence[str] = (),
    states: Mapping[str, int] | None = None,
    failures: Sequence[str] = (),
) -> Study:
    """Turn trajectories into numbers with intervals, and say what they mean.

    Args:
      data: as `ntklens.load` returns it.
      names: of the sweeps; none: those that `ntklens.load` noted.
      states: state → units, if more is known than the trajectories tell (seeds that failed, run, or wait).
      failures: one line for each kind of failure.

    Returns:
      The study.

    Raises:
      InputError: if `data` is not what `ntklens.load` returns.
    """
    observables = measure_observables(data)
    groups = find_groups(observables)
    laws, transitions = [], []
    for group in groups:
        for name in list_observables("fitted"):
            if name not in observables:
                continue
            laws.append(_fit(observables, group, name))
            if group.axis == WIDTH and OBSERVABLES[name].transition and not laws[-1].is_same:
                found = _look_for_transition(observables, group, name)
                transitions += found
                laws[-1] = add_crossover(laws[-1], *(one.power_p for one in found)) if found else laws[-1]
    surfaces = _fit_surfaces(select_whole_steps(observables))
    counted = dict(states or {}) or _count_states(data)
    claims = judge_claims(data, groups, laws, transitions)
    steps = compare_steps(data, observables)
    diagnoses = diagnose(data, observables, groups, laws, transitions, counted, failures, steps)
    layers = study_layers(data, observables, groups)
    summary = _summarise(observables, groups, laws, transitions, surfaces, counted, claims, layers)
    return Study(
        list(names) or json.loads(data.attrs.get("sweeps", "[]")),
        data,
        observables,
        groups,
        laws,
        transitions,
        surfaces,
        diagnoses,
        claims,
        counted,
        summary,
        steps,
        *layers,
    )


def _fit(observables: xr.Dataset, group: Group, name: str) -> Law:
    try:
        samples = summarise(*arrange_samples(observables, group, name))
    except InputError as error:
        return Law(name, group.axis, group.label, {}, None, {"power": str(error)}, f"no fit: {error}")
    law = fit_law(samples, name, group.axis, group.label)
    if law.fits or law.is_same or not OBSERVABLES[name].trained:
        return law
    if left_out := group.count_unresolved(observables):
        unresolved = f"{left_out} of {len(group.runs)} are unresolved (minimum before update {UNRESOLVED_STEPS})"
        note = f"{law.refusals['power']}; {unresolved}"
        return Law(name, group.axis, group.label, {}, None, {**law.refusals, "power": note}, f"no fit: {note}")
    return law


def _look_for_transition(observables: xr.Dataset, group: Group, name: str) -> list[Transition]:
    """Return what an observable says of the transition; nothing if it changes sign."""
    try:
        return [find_transition(summarise(*arrange_samples(observables, group, name)), name, group.axis, group.label)]
    except InputError:
        return []


def _fit_surfaces(observables: xr.Dataset) -> list[Surface]:
    """Return the joint laws over width and amount of data, for each combination of the other settings."""
    axes = [axis for axis in (WIDTH, DATA) if axis in observables.coords and observables[axis].dtype.kind in "iuf"]
    if len(axes) < 2 or any(len(np.unique(observables[axis].values)) < 2 for axis in axes):
        return []
    swept = list_swept(observables)
    others = [name for name in swept if name not in (*axes, *RANDOM)]
    keys = [tuple(swept[name][run] for name in others) for run in range(observables.sizes["run"])]
    surfaces = []
    for key in dict.fromkeys(keys):
        own = observables.isel(run=[run for run, one in enumerate(keys) if one == key])
        label = ", ".join(f"{name}={describe_value(value)}" for name, value in zip(others, key, strict=True))
        points = np.stack([own[axis].values.astype(float) for axis in axes], axis=1)
        good = select_good(own, trained=True)
        for name, form in itertools.product(list_observables("joint"), SURFACE_FORMS):
            values = np.where(good, own[name].values, np.nan)
            cells = {tuple(row): values[(points == row).all(axis=1)] for row in np.unique(points, axis=0)}
            known = {place: float(np.nanmean(cell)) for place, cell in cells.items() if np.isfinite(cell).any()}
            with contextlib.suppress(InputError, ValueError):
                means = np.array(list(known.values()))
                surfaces.append(fit_surface(np.array(list(known)), means, name, (axes[0], axes[1]), form, label))
    return sorted(surfaces, key=lambda surface: (surface.group, surface.aicc))


def _count_states(data: xr.Dataset) -> dict[str, int]:
    names, counts = np.unique(data["state"].values, return_counts=True)
    return {str(name): int(count) for name, count in zip(names, counts, strict=True)}


def _summarise(
    observables: xr.Dataset,
    groups: Sequence[Group],
    laws: Sequence[Law],
    transitions: Sequence[Transition],
    surfaces: Sequence[Surface],
    states: Mapping[str, int],
    claims: Sequence[Claim],
    layers: tuple[Sequence[Law], Sequence[Transition]],
) -> list[str]:
    total, runs = sum(states.values()), observables.sizes["run"]
    sentences = [f"{count(runs, 'configuration')}, {states.get('done', 0)} of {count(total, 'seed')} done."]
    sentences += _say_stopped(observables)
    sentences += summarise_claims(claims)
    if not groups:
        sentences.append("Nothing numeric was swept: there is no axis to fit a law along.")
    short = {
        group.axis: len(np.unique(group.x)) for group in groups if len(np.unique(group.x)) < FORMS["power"].least_points
    }
    for axis, values in short.items():
        sentences.append(
            f"{axis} has {values} values: too few for a law along it, which needs {FORMS['power'].least_points}."
        )
    for group in groups:
        where = f"{group.axis}{f' at {group.label}' if group.label else ''}"
        span = f"{group.x.min():g} … {group.x.max():g}"
        own = [law for law in laws if (law.axis, law.group) == (group.axis, group.label)]
        own = [law for law in own if OBSERVABLES[law.observable].summarised]
        refused = [law for law in own if not law.fits]
        if len(refused) == len(own) and not any(law.is_same for law in own):
            continue
        sentences.append(f"Along {where} ({len(np.unique(group.x))} values, {span}):")
        sentences += [f"{name_law(law)} {law.finding}{_say_window(law, group)}." for law in own if law.fits]
        for finding in dict.fromkeys(law.finding for law in refused):
            names = ", ".join(OBSERVABLES[law.observable].symbol for law in refused if law.finding == finding)
            sentences.append(f"{names}: {finding}.")
        found = [t for t in transitions if (t.axis, t.group) == (group.axis, group.label)]
        for transition in found:
            sentences.append(f"Transition by {OBSERVABLES[transition.observable].symbol}: {transition.sentence}.")
        if len(found) == 2:
            sentences.append(f"{compare_transitions(*found)}.")
        sentences += explain_trace_ratio(group, laws)
        sentences += describe_layers(group, *layers)
    best = {surface.group: surface for surface in reversed(surfaces)}
    sentences += [f"Joint law of {OBSERVABLES[s.observable].symbol}: {describe_surface(s)}." for s in best.values()]
    return sentences


def _say_stopped(observables: xr.Dataset) -> list[str]:
    """Say in how many seeds training ended before the minimum, if in any: what the minimum decides is not of it."""
    if "at_last_record" not in observables:
        return []
    done = observables["state"].values == "done"
    stopped = int((done & (observables["at_last_record"].values > 0)).sum())
    if not stopped:
        return []
    return [
        f"In {stopped:,} of {count(int(done.sum()), 'seed')} training ended before the test loss rose: L_min, β, χ and "
        "Γ_min of these are those of its last record, not of a minimum. Raise training.epochs before reading them."
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
