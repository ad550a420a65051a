"""What may be wrong with a sweep, in plain sentences, and what to do about it."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from ntklens.analysis.convergence import LIMIT, Change
from ntklens.analysis.groups import ARM, RANDOM, Group, describe_value, list_swept, select_good
from ntklens.analysis.ratio import Split, describe_slope, split_ratio
from ntklens.analysis.settings import (
    OWN_STEP,
    advise,
    advise_smaller_step,
    is_ours,
    is_own_loop,
    list_values,
    read_configs,
)
from ntklens.analysis.transitions import compare_transitions
from ntklens.recording.observables import OBSERVABLES, STRAIGHT, UNRESOLVED_STEPS
from ntklens.stats.forms import FORMS
from ntklens.stats.powerlaw import CONSTANT, Interval, Law
from ntklens.stats.transition import Transition
from ntklens.words import choose, count

ERROR, WARNING, NOTE = "error", "warning", "note"
FEW_SEEDS, FEW_PAIRS = 5, 3
NEGATIVE = 1e-5  # of Tr Θ: eigenvalues below zero by so much together are rounding that Γ may feel
LAZY = 0.01  # |β| below which a kernel has not left initialisation
ALPHA = 0.05  # below which p says that a curve is no power law
LEAST_VALUES = 3  # of an axis along which groups are compared: two are a comparison themselves
UNEQUAL = 3.0  # ratio of the updates of the minimum beyond which groups are trained by different amounts
UNSEEN = 0.5  # share of seeds that makes a remark of a few seeds one of the whole


@dataclass(frozen=True)
class Diagnosis:
    """Something to know before believing a number.

    Attributes:
      severity: `error`, `warning` or `note`.
      sentence: what is the matter, with numbers.
      advice: what to do, with the override to type.
    """

    severity: str
    sentence: str
    advice: str


def diagnose(
    data: xr.Dataset,
    observables: xr.Dataset,
    groups: Sequence[Group],
    laws: Sequence[Law],
    transitions: Sequence[Transition],
    states: Mapping[str, int],
    failures: Sequence[str] = (),
    steps: Sequence[Change] = (),
) -> list[Diagnosis]:
    """Return everything that may be wrong, the worst first.

    Args:
      data: as `ntklens.load` returns it.
      observables: of every trajectory.
      groups: the axes.
      laws: along them.
      transitions: along them.
      states: state → units.
      failures: one line for each kind of failure.
      steps: how observables change where the step is divided.
    """
    found = [
        *_check_states(data, states, failures),
        *_check_numbers(data, observables),
        *_check_minima(data, observables),
        *_check_steps(data, steps),
        *_check_paths(data, observables, laws),
        *_check_seeds(data, observables, laws),
        *_check_precision(data),
        *(d for group in groups for d in _check_group(data, observables, group, laws, transitions)),
        *_check_updates(data, observables, groups),
        *_check_random(data, observables, groups),
    ]
    return sorted(dict.fromkeys(found), key=lambda one: (ERROR, WARNING, NOTE).index(one.severity))


def _check_states(data: xr.Dataset, states: Mapping[str, int], failures: Sequence[str]) -> Iterator[Diagnosis]:
    total, done = sum(states.values()), states.get("done", 0)
    diverged, failed = states.get("diverged", 0), states.get("failed", 0)
    waiting = total - done - diverged - failed - states.get("unreadable", 0)
    if failed:
        why = f" ({'; '.join(failures)})" if failures else ""
        yield Diagnosis(
            ERROR, f"{failed} of {total} seeds failed{why}: nothing here is of them.",
            "Look at task=status, remove the cause, and type the sweep's line again with retry=true.",
        )  # fmt: skip
    if waiting:
        yield Diagnosis(
            WARNING, f"The sweep is unfinished: {waiting} of {total} seeds "
            f"{choose(waiting, 'is', 'are')} still to come. Every number here is of "
            f"the {done} that {choose(done, 'is', 'are')} done, and intervals will shrink.",
            "Type the sweep's line again, then task=report.",
        )  # fmt: skip
    if diverged:
        yield Diagnosis(
            WARNING, f"{diverged} of {total} seeds "
            f"diverged{_name_runs(data, data['state'].values == 'diverged')}: kept out "
            "of every mean and fit. What is left are the seeds that did not, which may be a biased choice.",
            _advise_step(data, data["state"].values == "diverged"),
        )  # fmt: skip
    unreadable = json.loads(data.attrs.get("unreadable", "[]"))
    if unreadable:
        first = unreadable[0]
        yield Diagnosis(
            ERROR, f"{count(len(unreadable), 'file')} could not be read and "
            f"{choose(len(unreadable), 'is', 'are')} left out; the first: {first['path']} ({first['reason']}).",
            f"{advise('damaged', is_own_loop(data))}. Files of a newer schema: upgrade ntklens.",
        )  # fmt: skip


def _name_runs(data: xr.Dataset, chosen: np.ndarray, most: int = 4) -> str:
    """Return ` (run; run; …)`: the runs in which any seed is chosen, by their settings."""
    names = [_name_run(data, int(place)) for place in np.flatnonzero(chosen.any(axis=1))]
    return f" ({'; '.join(names[:most])}{'; …' if len(names) > most else ''})" if names else ""


def _name_run(data: xr.Dataset, place: int) -> str:
    """Return a run's settings, as far as they were swept: `model.width=64 protocol.arm=paper`; without any its name."""
    words = [f"{name}={describe_value(values[place])}" for name, values in list_swept(data).items()]
    return " ".join(words) or str(data["run"].values[place])


def _check_numbers(data: xr.Dataset, observables: xr.Dataset) -> Iterator[Diagnosis]:
    done = observables["state"].values == "done"
    names = [name for name in ("minimum_loss", "initial_trace", "minimum_effective_rank") if name in observables]
    empty = done & np.any([~np.isfinite(observables[name].values) for name in names] or [~done], axis=0)
    if empty.any():
        yield Diagnosis(
            ERROR, f"{int(empty.sum())} of {int(done.sum())} seeds "
            f"{choose(int(empty.sum()), 'is done, but lacks', 'are done, but lack')} numbers that every trajectory "
            f"has{_name_runs(observables, empty)}.",
            f"{advise('no numbers', is_own_loop(data))}.",
        )  # fmt: skip


def _advise_step(data: xr.Dataset, chosen: np.ndarray, also: str = "") -> str:
    """Return, as a sentence, what makes the step of the runs in which any seed is chosen smaller."""
    if is_own_loop(data):
        return f"{OWN_STEP}, and more of them."
    text = advise_smaller_step(read_configs(data, [str(run) for run in data["run"].values[chosen.any(axis=1)]]), also)
    return f"{text[0].upper()}{text[1:]}."


def _check_minima(data: xr.Dataset, observables: xr.Dataset) -> Iterator[Diagnosis]:
    done = observables["state"].values == "done"
    total = int(done.sum())
    for flag, severity, verbs, text, advice in (
        (
            "at_last_record", WARNING, ("has its", "have their"), "minimum at the last record or next to it (open): "
            "training ended before the test loss rose, so that L_min, β, χ and Γ_min are of the end of training and "
            "not of the minimum",
            f"{advise('stopped', is_own_loop(data))}.",
        ),
        (
            "unresolved", WARNING, ("reaches its", "reach their"), f"minimum before update "
            f"{UNRESOLVED_STEPS}: unresolved, and kept out of the fits of what depends on training",
            " (about as width^(−2/3)) and raise training.epochs by the same factor, or type protocol=resolved",
        ),
        ("dead", WARNING, ("is", "are"), "dead (constant over the probe), and kept out of the fits", ""),
    ):  # fmt: skip
        if flag not in observables:
            continue
        chosen = done & (observables[flag].values > 0)
        if flag == "unresolved" and "at_last_record" in observables:  # else a matter of longer training alone
            chosen &= ~(observables["at_last_record"].values > 0)
        if chosen.any():
            yield Diagnosis(
                severity,
                f"{int(chosen.sum())} of {total} seeds {choose(int(chosen.sum()), *verbs)} {text}"
                f"{_name_runs(observables, chosen)}.",
                advice if flag == "at_last_record" else _advise_step(data, chosen, advice),
            )


def _check_steps(data: xr.Dataset, steps: Sequence[Change]) -> Iterator[Diagnosis]:
    """Say whether the step is small enough, by runs whose step is divided, and where a pilot found no minimum."""
    large = [change for change in steps if change.is_large]
    for run, divisor in dict.fromkeys((change.run, change.divisor) for change in large):
        own = [change for change in large if (change.run, change.divisor) == (run, divisor)]
        name = _name_run(data, data["run"].values.tolist().index(run))
        yield Diagnosis(
            WARNING, f"{name} is not resolved: with the step over {divisor:g} {', '.join(map(str, own))} "
            f"(paired, {own[0].count} seeds; the limit is {LIMIT:.0%} and twice the standard error).",
            "Read these observables as those of this step; protocol.step_divisor=3 computes with a third of it.",
        )  # fmt: skip
    if steps and not large:
        yield _say_no_change_is_large(steps)
    missed = data["pilot_found"].values == 0 if "pilot_found" in data else np.zeros((0, 0), bool)
    if missed.any():
        yield Diagnosis(
            WARNING, f"The pilot of {count(int(missed.any(axis=1).sum()), 'configuration')} found no step that brings "
            f"the minimum to 100–300 updates{_name_runs(data, missed)}: theirs is the nearest, or the largest stable "
            "one, or, where all rounds diverged, a quarter of the smallest that was tried.",
            "Look at the update of the minimum of their seeds (minimum_step, plateau_step_low), and at step.json.",
        )  # fmt: skip


def _say_no_change_is_large(steps: Sequence[Change]) -> Diagnosis:
    """Tell steps that are small enough from those of which too few members say anything."""
    seeds, most = max(change.count for change in steps), max(steps, key=lambda change: abs(change.mean))
    where = f"in {count(len({change.run for change in steps}), 'configuration')} (the most: {most})"
    if seeds < 2:
        return Diagnosis(
            NOTE, f"Whether the step is small enough one seed does not tell: divided, observables change by up to "
            f"{abs(most.mean):.1%} {where}.",
            f"Type ensemble={FEW_PAIRS} for both.",
        )  # fmt: skip
    unsure = [change for change in steps if not change.is_small]
    text = f"divided, no observable changes by more than {LIMIT:.0%} and twice its standard error {where}"
    if unsure:
        names = ", ".join(dict.fromkeys(change.symbol for change in unsure))
        return Diagnosis(
            NOTE, f"Nothing shows that the step is too large: {text}; but {names} may change by more than {LIMIT:.0%}, "
            "and members scatter too much to tell.",
            "Ask for more seeds of both; steps.csv has all changes.",
        )  # fmt: skip
    return Diagnosis(
        NOTE, f"The step is small enough: {text}.",
        "steps.csv has all changes." if seeds >= FEW_PAIRS else f"They are of {count(seeds, 'seed')}: "
        f"ensemble={FEW_PAIRS} for both says more.",
    )  # fmt: skip


def _check_paths(data: xr.Dataset, observables: xr.Dataset, laws: Sequence[Law]) -> Iterator[Diagnosis]:
    if not {"adaptation_rate_r2", "trace_ratio"} <= set(observables):
        return
    good = select_good(observables, trained=True)
    r2 = np.where(good, observables["adaptation_rate_r2"].values, np.nan)
    bent = r2 < STRAIGHT
    if bent.any():
        yield Diagnosis(
            WARNING if bent.sum() > UNSEEN * np.isfinite(r2).sum() else NOTE,
            f"For {int(bent.sum())} of {int(np.isfinite(r2).sum())} seeds R² of χ is below {STRAIGHT} (median "
            f"{np.nanmedian(r2):.3f}): Tr Θ is not straight in ln L_train, and no single χ exists.",
            "Compare the chord and the local slope (adaptation_rate_chord, adaptation_rate_local) and look at the "
            f"figure of Tr Θ against ln L_train. A smaller step straightens the path. {_advise_step(data, bent)}",
        )
    ratio = np.where(good, observables["trace_ratio"].values, np.nan)
    shrunk = ratio < -LAZY
    if shrunk.any():
        yield Diagnosis(
            NOTE, f"For {int(shrunk.sum())} of {int(np.isfinite(ratio).sum())} seeds β is negative: the trace shrank "
            f"on the way to the minimum.",
            f"{_describe_negative(laws)} Look at Tr Θ against epoch.",
        )  # fmt: skip
    still = np.abs(ratio) < LAZY
    if still.any():
        yield Diagnosis(
            WARNING, f"{count(int(still.sum()), 'seed')} never left initialisation (|β| < "
            f"{LAZY}){_name_runs(observables, still)}: "
            "the kernel did not move.",
            f"{advise('still', is_own_loop(data))}.",
        )  # fmt: skip


def _describe_negative(laws: Sequence[Law]) -> str:
    """Return what laws of β are of where β is negative in some seeds."""
    own = [law for law in laws if law.observable == "trace_ratio"]
    if any(fit.sign < 0 for law in own for fit in law.fits.values()):
        return "A law of β whose means are negative is that of −β."
    if own and not any(law.fits for law in own):
        return "There is no law of β."
    return "Laws of β are of its means, where these are of one sign."


def _check_seeds(data: xr.Dataset, observables: xr.Dataset, laws: Sequence[Law]) -> Iterator[Diagnosis]:
    counts = (observables["state"].values == "done").sum(axis=1)
    if counts.size and counts.min() < FEW_SEEDS:
        few = int(counts.min())
        yield Diagnosis(
            WARNING if few < 3 else NOTE, f"{int((counts < FEW_SEEDS).sum())} of {len(counts)} configurations "
            f"{choose(int((counts < FEW_SEEDS).sum()), 'has', 'have')} fewer than {FEW_SEEDS} seeds done "
            f"(the least: {few}): a standard error from so few is itself off by a factor.",
            f"{advise('few seeds', is_own_loop(data))}.",
        )  # fmt: skip
    limited = [
        law
        for law in laws
        if law.preferred == "power"
        and law.fits["power"].count.min() > 1
        and law.fits["power"].misfit > max(0.01, 2 * law.fits["power"].samples.typical_error)
    ]
    if limited:
        names = ", ".join(
            dict.fromkeys(OBSERVABLES[law.observable].symbol for law in limited if law.observable in OBSERVABLES)
        )
        yield Diagnosis(
            NOTE, f"Intervals of {names} are as wide as points scatter about the curve, not as seeds scatter: more "
            f"seeds will not narrow them.",
            "Sweep more values of the axis, or wider apart.",
        )  # fmt: skip


def _check_precision(data: xr.Dataset) -> Iterator[Diagnosis]:
    if "minimum_eigenvalues" not in data:
        return
    worst = 0.0
    for run in range(data.sizes["run"]):  # one at a time: eigenvalues may be too many for memory
        values = data["minimum_eigenvalues"].isel(run=run).values
        total = np.nansum(np.abs(values), axis=-1)
        negative = -np.nansum(np.minimum(values, 0), axis=-1)
        worst = max(worst, float(np.max(negative / np.where(total > 0, total, 1))))
    if worst > NEGATIVE:
        yield Diagnosis(
            WARNING, f"Eigenvalues below zero add up to {worst:.1e} of Tr Θ, where exact ones cannot be negative: "
            f"rounding may have reached Γ.",
            f"{advise('rounding', is_own_loop(data))}.",
        )  # fmt: skip


def _check_group(
    data: xr.Dataset, observables: xr.Dataset, group: Group, laws: Sequence[Law], transitions: Sequence[Transition]
) -> Iterator[Diagnosis]:
    where = f"Along {group.axis}{f' at {group.label}' if group.label else ''}"
    if group.tied and len(np.unique(group.x)) >= FORMS["power"].least_points:
        yield Diagnosis(
            WARNING, f"{where} other settings change too: {', '.join(group.tied)}. Laws along it are of both together.",
            "Sweep one setting at a time, or read the laws as those of the whole recipe.",
        )  # fmt: skip
    if group.axis != "model.width":
        return
    powers = {
        law.observable: law.fits["power"].exponent
        for law in laws
        if (law.axis, law.group) == (group.axis, group.label) and "power" in law.fits
    }
    own = [t for t in transitions if (t.axis, t.group) == (group.axis, group.label)]
    by_name = {transition.observable: transition for transition in own}
    rank, gamma = powers.get("minimum_effective_rank"), by_name.get("minimum_effective_rank")
    if rank is not None and gamma is not None and rank.low > CONSTANT and not gamma.within:
        found = "rises without saturating", "the kernel regime is not reached"
        if gamma.power_p < ALPHA or any(
            law.course.is_rejected
            for law in laws
            if (law.observable, law.axis, law.group) == ("minimum_effective_rank", group.axis, group.label)
        ):
            found = "rises and bends, with no crossover that the sweep bounds", "whether it saturates is open"
        yield Diagnosis(
            WARNING, f"{where} Γ_min {found[0]} (mean slope α = {rank.value:.2f}): {found[1]}.",
            f"Sweep model.width beyond {group.x.max():g}"
            f"{' or raise model.depth' if _has(data, 'model.depth') else ''}.",
        )  # fmt: skip
    beta = powers.get("trace_ratio")
    split = split_ratio(group, laws)
    if beta is not None and not beta.high < -CONSTANT:
        yield _explain_ratio(data, group, where, beta, split)
    elif beta is not None and split is not None and split.is_normalised and not split.change.high < -CONSTANT:
        yield Diagnosis(
            NOTE, f"{where} β falls because Tr Θ_0 grows: its slope {describe_slope(split.ratio)} is "
            f"{split.describe()}.",
            "Compare ΔTr, Γ and the losses between widths, not β, which is divided by Tr Θ_0.",
        )  # fmt: skip
    if len(own) == 2 and all(t.within for t in own) and own[0].scale.is_outside(own[1].scale.low, own[1].scale.high):
        yield Diagnosis(
            WARNING, f"{where} the transition read from β and from Γ_min is not the same: {compare_transitions(*own)}.",
            _advise_depth(data, group),
        )  # fmt: skip


def _explain_ratio(data: xr.Dataset, group: Group, where: str, beta: Interval, split: Split | None) -> Diagnosis:
    """Say that β does not fall, and why, as far as the split of its slope shows it.

    Under another parameterisation than the standard one it need not fall.

    Returns:
        A note where nothing is amiss, else a warning.
    """
    unclear = f"whether β falls faster than m^−{CONSTANT:g} is not resolved"
    known = "β does not fall" if beta.low > -CONSTANT else unclear
    text = f"{where} {known} (α = {beta.value:.2f} [{beta.low:.2f}, {beta.high:.2f}])"
    kinds = list_values(read_configs(data, group.runs), "model.parameterization")
    others = [str(kind) for kind in kinds if kind != "standard"]
    if others:
        return Diagnosis(
            NOTE, f"{text}: model.parameterization={'|'.join(others)} scales Θ with the width in its own way, and does "
            f"not make β fall as the standard parameterisation does.",
            "Compare ΔTr, Γ and the losses, which tell of learning there; raw traces of two parameterisations are "
            "not comparable.",
        )  # fmt: skip
    wider, span = f"Sweep model.width beyond {group.x.max():g}.", f"{group.x.min():g} … {group.x.max():g}"
    if split is None:
        return Diagnosis(
            WARNING, f"{text}. What its slope is made of is not known: it takes ΔTr and Tr Θ_0 at four widths of the "
            f"sweep, {span}.",
            wider,
        )  # fmt: skip
    text = f"{text}: the slope of mean ΔTr / mean Tr Θ_0, {describe_slope(split.ratio)}, is {split.describe()}"
    if split.is_not_normalised:
        return Diagnosis(
            WARNING, f"{text}. Tr Θ_0 does not grow over {span}, so that nothing there makes β fall by itself; at "
            "widths at which it grows β falls unless ΔTr grows as well.",
            wider,
        )  # fmt: skip
    if split.is_normalised and split.change.low > CONSTANT:
        return Diagnosis(
            NOTE, f"{text}. Tr Θ_0 grows, and ΔTr with it: the sweep is not too narrow for β to fall.",
            "Read ΔTr, Γ and the losses: ΔTr grows with the width.",
        )  # fmt: skip
    return Diagnosis(
        WARNING, f"{text}: the sweep does not resolve {split.name_unresolved()}.",
        f"Ask for more seeds, or {wider[0].lower()}{wider[1:]}",
    )  # fmt: skip


def _advise_depth(data: xr.Dataset, group: Group) -> str:
    depths = [one for one in list_values(read_configs(data, group.runs), "model.depth") if isinstance(one, int)]
    if len(depths) != 1:
        return "Look at the figures of β and Γ_min against the width."
    return f"Expected of shallow networks: compare model.depth={depths[0] + 2}."


def _has(data: xr.Dataset, key: str) -> bool:
    """Return whether runs have a setting."""
    return any(key in config for config in read_configs(data))


def _is_of_ours(data: xr.Dataset) -> bool:
    """Return whether the data are of a loader of ntklens, whose samples `SplitOptions` choose."""
    return any(is_ours(config.get("dataset._target_")) for config in read_configs(data))


def _check_updates(data: xr.Dataset, observables: xr.Dataset, groups: Sequence[Group]) -> Iterator[Diagnosis]:
    """Say where groups are compared whose minima come after very different numbers of updates, at the same x.

    Arms of the protocol are not compared: that they differ in the step is what they are for.

    Yields:
        A warning for each axis and arm in which they do.
    """
    if "minimum_step" not in observables:
        return
    good = observables["state"].values == "done"
    if "at_last_record" in observables:
        good &= ~(observables["at_last_record"].values > 0)  # the minimum may lie beyond
    steps = np.where(good, observables["minimum_step"].values, np.nan)
    groups = [group for group in groups if len(np.unique(group.x)) >= LEAST_VALUES]
    for axis, arm in dict.fromkeys((group.axis, _find_arm(observables, group)) for group in groups):
        own = [group for group in groups if (group.axis, _find_arm(observables, group)) == (axis, arm)]
        places = np.unique(np.concatenate([group.x for group in own]))
        found = [(float(place), _find_medians(steps, observables, own, place)) for place in places]
        compared = [(place, medians) for place, medians in found if len(medians) > 1]
        if not compared:
            continue
        place, medians = max(compared, key=lambda one: max(one[1].values()) / min(one[1].values()))
        first, last = (choice(medians, key=lambda label: medians[label]) for choice in (min, max))
        factor = medians[last] / medians[first]
        if factor < UNEQUAL:
            continue
        yield Diagnosis(
            WARNING, f"Along {axis} groups are compared after different amounts of training: the update n of the "
            f"minimum differs by a factor of up to {factor:.2g}, at {axis}={place:g} between {medians[first]:.0f} "
            f"({first or 'no label'}) and {medians[last]:.0f} ({last}), medians over seeds.",
            f"{advise('unequal', arm == 'resolved' or is_own_loop(data))}.",
        )  # fmt: skip


def _find_arm(observables: xr.Dataset, group: Group) -> str:
    if ARM not in observables.coords:
        return ""
    return "|".join(dict.fromkeys(map(str, observables[ARM].values[group.find_rows(observables)])))


def _find_medians(
    steps: np.ndarray, observables: xr.Dataset, groups: Sequence[Group], place: float
) -> dict[str, float]:
    """Return group → median update of the minimum at one value of the axis, of the groups that have seeds there."""
    found = {}
    for group in groups:
        own = steps[group.find_rows(observables)[group.x == place]]
        if (own > 0).any():
            found[group.label] = float(np.nanmedian(own))
    return found


def _check_random(data: xr.Dataset, observables: xr.Dataset, groups: Sequence[Group]) -> Iterator[Diagnosis]:
    if not groups:
        return
    drawn = {key for key in RANDOM if key in observables.coords}
    swept = list_swept(observables)
    for axis in dict.fromkeys(group.axis for group in groups):
        off = [value for value in swept[axis] if not (isinstance(value, float) and value > 0)]
        if off:
            yield Diagnosis(
                NOTE, f"{count(len(off), 'run')} with {axis}={describe_value(off[0])} "
                f"{choose(len(off), 'has', 'have')} no place on a logarithmic axis: "
                f"left out of its laws.",
                "Compare them in observables.csv; the figures of learning, spectra and layers draw those at 0.",
            )  # fmt: skip
        for key in drawn:
            if len(set(swept[key])) == len(set(zip(swept[key], swept[axis], strict=True))):
                yield Diagnosis(
                    WARNING, f"{axis} and {key} change together: no draw is seen at two values of {axis}, so that "
                    f"its effect cannot be distinguished from that of the draw.",
                    f"Sweep {key} at every value of {axis}.",
                )  # fmt: skip
    if "dataset.data_seed" not in drawn and _has(data, "dataset.data_seed"):
        yield Diagnosis(
            NOTE, "All seeds share one draw of the training set: intervals are conditional on it, and which samples "
            "are drawn can matter more than the seed.",
            "Sweep dataset.data_seed=0,1,2,3 as well: it is taken as a random factor, not as an axis.",
        )  # fmt: skip
    if "dataset.probe_seed" not in drawn:
        sizes = observables["N"].values if "N" in observables else np.array([math.nan])
        known = sorted({int(size) for size in sizes[np.isfinite(sizes)].ravel()})
        size = f" of {' or '.join(map(str, known))} inputs" if known else ""
        yield Diagnosis(
            NOTE, f"Γ is of one probe{size}: disjoint probes may differ by as much as networks of different size do, "
            "so that an exponent of Γ holds for this probe alone.",
            "Record the same networks with other probes as well, dataset.probe_seed=1,2,3 in config: it is taken as a "
            "random factor."
            if is_own_loop(data)
            else "Sweep dataset.probe_seed=0,1,2,3 as well: it draws other probes, and is taken as a random factor. "
            "A probe of another dataset.probe_size is nested in this one, or holds it."
            if _has(data, "dataset.probe_seed") or _is_of_ours(data)
            else "A probe of another dataset.probe_size is nested in this one, or holds it: it shows how Γ depends on "
            "N, not on which inputs were drawn.",
        )  # fmt: skip
