"""A sweep, studied: observables, laws, transitions, diagnoses and claims, ready to be shown."""

import contextlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import xarray as xr

from ntklens.analysis.claims import Claim, judge_claims
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
    select_telling,
    select_whole_steps,
)
from ntklens.analysis.layers import study_layers
from ntklens.analysis.overview import describe_study, describe_study_html
from ntklens.analysis.summary import Sentence, summarise_study
from ntklens.errors import InputError
from ntklens.recording.observables import OBSERVABLES, UNRESOLVED_STEPS, list_observables, measure_observables
from ntklens.stats.powerlaw import NO_FIT, Law, add_crossover, fit_law
from ntklens.stats.samples import summarise
from ntklens.stats.surface import FORMS as SURFACE_FORMS
from ntklens.stats.surface import Surface, fit_surface
from ntklens.stats.transition import Transition, find_transition


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
    summary: list[Sentence] = field(default_factory=list)
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
    summary = summarise_study(data, observables, groups, laws, transitions, surfaces, counted, claims, layers)
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
        return Law(name, group.axis, group.label, {}, None, {"power": str(error)}, f"{NO_FIT}{error}")
    law = fit_law(samples, name, group.axis, group.label)
    if law.fits or law.is_same or not OBSERVABLES[name].trained:
        return law
    if left_out := group.count_unresolved(observables):
        unresolved = f"{left_out} of {len(group.runs)} are unresolved (minimum before update {UNRESOLVED_STEPS})"
        note = f"{law.refusals['power']}; {unresolved}"
        return Law(name, group.axis, group.label, {}, None, {**law.refusals, "power": note}, f"{NO_FIT}{note}")
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
    telling = select_telling(others, list(dict.fromkeys(keys)))
    surfaces = []
    for key in dict.fromkeys(keys):
        own = observables.isel(run=[run for run, one in enumerate(keys) if one == key])
        label = ", ".join(
            f"{name}={describe_value(value)}" for name, value in zip(others, key, strict=True) if name in telling
        )
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
