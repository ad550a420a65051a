"""What a paper states, and how a sweep is held against it: the parts that a paper's file is put together from."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.stats import t as student

from ntklens.analysis.groups import Group
from ntklens.analysis.settings import (
    OWN_STEP,
    advise,
    advise_smaller_step,
    is_ours,
    join_values,
    list_values,
    name_target,
)
from ntklens.analysis.transitions import compare_transitions
from ntklens.errors import InputError
from ntklens.recording.observables import OBSERVABLES
from ntklens.stats.forms import FORMS
from ntklens.stats.powerlaw import NOTHING, SAME, Course, Fit, Interval, Law, describe_means, fit_form, judge_course
from ntklens.stats.profile import LEVEL
from ntklens.stats.transition import Transition

Config = Mapping[str, object]
ALIKE = 2.0  # two scales agree if the interval of their ratio lies within this factor


@dataclass(frozen=True)
class Condition:
    """What runs must be, for a statement of a paper to be one on them.

    Attributes:
      text: what the paper states: `dense network`.
      key: the setting that decides.
      allowed: its values. Of a `_target_`, names within ntklens, as `settings.name_target` gives them.
      advice: an override that meets it.
    """

    text: str
    key: str
    allowed: tuple[object, ...]
    advice: str

    def explain_failure(self, configs: Sequence[Config]) -> str:
        """Return why runs do not meet it; empty if they do. What is not recorded is not met."""
        values = list_values(configs, self.key)
        if self.key.endswith("._target_"):
            name = self.key.removesuffix("._target_")
            bad = [name_target(v) for v in values if not (is_ours(v) and name_target(v) in self.allowed)]
        else:
            name, bad = self.key, [str(v) for v in values if v not in self.allowed]
        if not values:
            return f"{name} is not recorded"
        return f"{name}={'|'.join(bad)}" if bad else ""


@dataclass(frozen=True)
class Evidence:
    """What one group of runs shows.

    Attributes:
      group: the runs.
      configs: their configurations.
      laws: observable → law along the axis.
      transitions: observable → transition along the axis.
      seeds: done in the run that has fewest.
      unresolved: values of the axis whose minimum comes too early to be read, in every seed.
      stopped: values at which training ended before the minimum, in most of the seeds.
      own_loop: whether training has none of our settings.
    """

    group: Group
    configs: Sequence[Config]
    laws: Mapping[str, Law]
    transitions: Mapping[str, Transition]
    seeds: int
    unresolved: Sequence[float] = ()
    stopped: Sequence[float] = ()
    own_loop: bool = False

    def advise_training(self, observable: str) -> str:
        """Return what makes minima readable; empty where an observable needs none that is not."""
        if not (observable in OBSERVABLES and OBSERVABLES[observable].trained):
            return ""
        axis = self.group.axis
        more = advise("stopped", self.own_loop)
        smaller = OWN_STEP if self.own_loop else advise_smaller_step(self.configs)
        more, smaller = (f"{text[0].lower()}{text[1:]}" for text in (more, smaller))
        longer = f"{more}: at {axis} {join_values(self.stopped)} training ended before the minimum"
        finer = f"{smaller}: at {axis} {join_values(self.unresolved)} the minimum comes too early to be read"
        return "; ".join([longer] * bool(self.stopped) + [finer] * bool(self.unresolved))


@dataclass(frozen=True)
class Finding:
    """What was measured of a statement.

    Attributes:
      measured: the number that decides, with its interval.
      agrees: whether the interval lies inside what is stated (True), outside (False), or neither (None).
      text: what it was read from, in words, without the number and without a verdict.
      low, high: the values of the axis that it is read from.
      advice: what would narrow it.
      number: the number, in words; empty where the text holds it.
      why: what leaves it open though the interval lies inside; empty if nothing does.
    """

    measured: Interval
    agrees: bool | None
    text: str
    low: float
    high: float
    advice: str = ""
    number: str = ""
    why: str = ""


class Statement(Protocol):
    """One sentence of a paper about one axis."""

    @property
    def text(self) -> str:
        """The sentence."""

    @property
    def axis(self) -> str:
        """Along which."""

    def measure(self, evidence: Evidence, span: tuple[float, float] | None, level: float = LEVEL) -> Finding:
        """Hold a group of runs against the statement.

        Args:
          evidence: what the runs show.
          span: the range of the axis that the statement is made for; None: it is made for no range of these data.
          level: of the intervals.
        """


@dataclass(frozen=True)
class Paper:
    """A paper: what it states, of which networks and data, and how it trained them.

    Attributes:
      name: as it is cited.
      statements: its sentences.
      conditions: what runs must be for a verdict.
      ranges: (axis, data set) → the range of the axis that statements are made for.
      protocol: setting → what the paper states of it; a sweep with another value departs from it.
      along: axis → setting → what the paper states where that axis is swept.
      not_stated: what the paper leaves open, in words; no departure.
      commands: (axis, data set) → the command that sweeps the range; data set "": for all others.
    """

    name: str
    statements: tuple[Statement, ...]
    conditions: tuple[Condition, ...]
    ranges: Mapping[tuple[str, str], tuple[float, float]]
    protocol: Mapping[str, object]
    along: Mapping[str, Mapping[str, object]]
    not_stated: str
    commands: Mapping[tuple[str, str], str]


def widen(interval: Interval, degrees: int, level: float, logarithmic: bool = False) -> Interval:
    """Return an interval at another level: its ends move out as t-quantiles do.

    Exact for the exponent of a power law, whose interval is α ± t · s; to first order for others.

    Args:
      interval: at 95 %.
      degrees: of freedom.
      level: wanted.
      logarithmic: whether it is one of ln value.
    """
    if level == LEVEL or degrees < 1 or not math.isfinite(interval.value):
        return interval
    ratio = float(student.ppf((1 + level) / 2, degrees) / student.ppf((1 + LEVEL) / 2, degrees))
    value = interval.value
    if not logarithmic:
        return Interval(value, value - ratio * (value - interval.low), value + ratio * (interval.high - value))
    if interval.low <= 0:
        return interval
    return Interval(value, value * (interval.low / value) ** ratio, value * (interval.high / value) ** ratio)


@dataclass(frozen=True)
class Exponent:
    """A statement on the exponent of an observable.

    Attributes:
      text: the sentence.
      axis: along which.
      observable: whose exponent decides.
      low, high: what is stated of it; a range that holds 0 states a constant: supported only by points that were
        tested for a power law and do not bend.
      sign: of the observable; with the other sign the statement means nothing.
      compare: training samples that show, where the exponent is smaller than stated, whether data are what limits it.
      power: whether it is also stated that y is a power law: the exponent alone does not support that.
    """

    text: str
    axis: str
    observable: str
    low: float
    high: float
    sign: int = 1
    compare: int = 0
    power: bool = False

    @property
    def is_constancy(self) -> bool:
        """Whether it is stated that the observable does not depend on the axis."""
        return self.low <= 0 <= self.high

    def measure(self, evidence: Evidence, span: tuple[float, float] | None, level: float = LEVEL) -> Finding:
        """Return the exponent of the power law over the values within the span, if there are enough of them."""
        law, x = evidence.laws.get(self.observable), evidence.group.x
        fit = law.fits.get("power") if law else None
        if law is not None and law.is_same:
            flat = Interval(0.0, 0.0, 0.0)
            agrees = judge_interval(flat, self.low, self.high)
            return Finding(flat, agrees, SAME, float(x.min()), float(x.max()), number=f"exponent {_say(flat)}")
        if law is None or fit is None:
            text = f"no exponent: {law.refusals['power']}" if law else "not recorded"
            return Finding(
                NOTHING, None, text, float(x.min()), float(x.max()), _advise_values(evidence, self.observable)
            )
        fit, cut = restrict(fit, span)
        low, high = float(fit.x.min()), float(fit.x.max())
        measured = widen(fit.exponent, fit.profile.degrees, level)
        number, text = f"exponent {_say(measured)}", f"over {low:g} … {high:g}"
        text += f", the part of {x.min():g} … {x.max():g} that the claim is made for" if cut else ""
        if fit.sign != self.sign:
            sign = "negative" if fit.sign < 0 else "positive"
            text += f", of its absolute value: it is {sign}, not as stated"
            return Finding(measured, None, text, low, high, number=number)
        if law.preferred != "power" and law.preferred is not None and not cut:
            text += f"; {FORMS[law.preferred].formula} describes the points better than one power law"
        agrees = judge_interval(measured, self.low, self.high)
        advice = "" if agrees is not None else _advise_precision(fit, evidence)
        sizes = [size for size in list_values(evidence.configs, "dataset.train_size") if isinstance(size, int)]
        slower = abs(measured.value) < min(abs(self.low), abs(self.high))
        if slower and agrees is not True and sizes and max(sizes) < self.compare:
            text += f"; with {join_values(sizes)} training samples data may be the limit, not the width"
            advice = "; ".join(filter(None, [advice, f"compare dataset.train_size={self.compare}"]))
        course = judge_course({"power": fit}) if cut else law.course
        why = self._find_objection(fit, course) if agrees else ""
        if why and not course.is_bent:
            advice = f"sweep more values of {self.axis}"
        advice = "; ".join(filter(None, [evidence.advise_training(self.observable), advice]))
        return Finding(measured, None if why else agrees, text, low, high, advice, number, why)

    def _find_objection(self, fit: Fit, course: Course) -> str:
        """Return what the course of the points leaves open though the exponent agrees; empty if nothing."""
        if self.is_constancy and course.is_bent:
            return f"the exponent agrees, but the points bend: {describe_means(fit)}; {course}"
        stated = self.power or self.is_constancy
        return f"the exponent agrees, but {course}" if stated and not course.is_straight else ""


@dataclass(frozen=True)
class Scale:
    """A statement on where an observable turns over.

    Attributes:
      text: the sentence.
      axis: along which.
      observable: whose transition decides.
      low, high: where it is stated to lie.
    """

    text: str
    axis: str
    observable: str
    low: float
    high: float

    def measure(self, evidence: Evidence, span: tuple[float, float] | None, level: float = LEVEL) -> Finding:
        """Return the crossover scale."""
        transition, low, high = _read_transition(evidence, self.observable)
        if transition is None or not transition.within:
            return Finding(NOTHING, None, transition.sentence if transition else "not recorded", low, high)
        measured = _widen_scale(transition, evidence, level)
        return Finding(measured, judge_interval(measured, self.low, self.high), transition.sentence, low, high)


@dataclass(frozen=True)
class Saturation:
    """A statement that an observable saturates: supported where a crossover from a power to a plateau is found."""

    text: str
    axis: str
    observable: str

    def measure(self, evidence: Evidence, span: tuple[float, float] | None, level: float = LEVEL) -> Finding:
        """Return the crossover scale, if it is one to a plateau."""
        transition, low, high = _read_transition(evidence, self.observable)
        if transition is None or not (transition.within and transition.method.endswith("plateau")):
            return Finding(NOTHING, None, transition.sentence if transition else "not recorded", low, high)
        agrees = True if transition.power_p < 1 - level else None
        return Finding(_widen_scale(transition, evidence, level), agrees, transition.sentence, low, high)


@dataclass(frozen=True)
class Agreement:
    """A statement that two observables agree on the transition in deep networks, and differ in shallow ones.

    Intervals apart are a difference. A ratio of the two scales whose interval lies within a factor of `ALIKE` is an
    agreement. Wide intervals that overlap show neither.

    Attributes:
      text: the sentence.
      axis: along which.
      first, second: the observables.
      deep: hidden layers from which on a network counts as deep.
    """

    text: str
    axis: str
    first: str
    second: str
    deep: int

    def measure(self, evidence: Evidence, span: tuple[float, float] | None, level: float = LEVEL) -> Finding:
        """Return the ratio of the two scales, with the interval of independent ones."""
        one, low, high = _read_transition(evidence, self.first)
        other = evidence.transitions.get(self.second)
        depths = [value for value in list_values(evidence.configs, "model.depth") if isinstance(value, int)]
        if one is None or other is None:
            return Finding(NOTHING, None, "not recorded", low, high)
        text = compare_transitions(one, other)
        if not (one.within and other.within):
            return Finding(NOTHING, None, text, low, high)
        if len(depths) != 1:
            return Finding(NOTHING, None, f"{text}; the runs have no one depth", low, high)
        a, b = (_widen_scale(transition, evidence, level) for transition in (one, other))
        ratio = _divide(a, b)
        apart, together = a.is_outside(b.low, b.high), ratio.is_inside(1 / ALIKE, ALIKE)
        deep = depths[0] >= self.deep
        agrees = (not deep if apart else deep) if apart or together else None
        return Finding(ratio, agrees, f"{text}; {depths[0]} hidden layers", low, high)


def judge_interval(measured: Interval, low: float, high: float) -> bool | None:
    """Return whether an interval lies inside a stated range (True), outside (False), or neither (None)."""
    if not math.isfinite(measured.value):
        return None
    if measured.is_inside(low, high):
        return True
    return False if measured.is_outside(low, high) else None


def restrict(fit: Fit, span: tuple[float, float] | None) -> tuple[Fit, bool]:
    """Return the fit over the part of the axis within the span, and whether it is only a part."""
    if span is None:
        return fit, False
    inside = (fit.x >= span[0] * (1 - 1e-9)) & (fit.x <= span[1] * (1 + 1e-9))
    if inside.all():
        return fit, False
    try:
        return fit_form(fit.samples.select(inside), "power"), True
    except InputError:  # too few of them: the claim is hardly covered, whatever lies beyond
        return fit, False


def _advise_values(evidence: Evidence, observable: str) -> str:
    needed, values = FORMS["power"].least_points, len(np.unique(evidence.group.x))
    if values < needed:
        return f"sweep at least {needed} values of {evidence.group.axis} (there are {values})"
    return evidence.advise_training(observable)


def _advise_precision(fit: Fit, evidence: Evidence) -> str:
    if fit.misfit > 2 * fit.samples.typical_error:
        return f"sweep more values of {evidence.group.axis} between {fit.x.min():g} and {fit.x.max():g}"
    return advise("wide intervals", evidence.own_loop).format(2 * max(evidence.seeds, 1))


def _read_transition(evidence: Evidence, observable: str) -> tuple[Transition | None, float, float]:
    """Return a transition, and the ends of the axis that it was looked for on: those of the law's means."""
    law, x = evidence.laws.get(observable), evidence.group.x
    fits = list(law.fits.values()) if law else []
    x = fits[0].x if fits else x
    return evidence.transitions.get(observable), float(x.min()), float(x.max())


def _widen_scale(transition: Transition, evidence: Evidence, level: float) -> Interval:
    law = evidence.laws.get(transition.observable)
    fit = law.fits.get("power") if law else None
    degrees = len(fit.x) - FORMS["plateau_power"].size if fit else 0
    return widen(transition.scale, degrees, level, logarithmic=True)


def _divide(a: Interval, b: Interval) -> Interval:
    """Return a/b of positive independent numbers; ends by the method of variance estimates recovery, in logarithms.

    Source: Zou and Donner 2008, Statistics in Medicine 27, 1693, equation of a difference.
    """
    with np.errstate(divide="ignore"):
        (a_value, a_low, a_high), (b_value, b_low, b_high) = (np.log([i.value, i.low, i.high]) for i in (a, b))
    difference = a_value - b_value
    low = difference - math.hypot(a_value - a_low, b_high - b_value)
    high = difference + math.hypot(a_high - a_value, b_value - b_low)
    return Interval(math.exp(difference), math.exp(low), math.exp(high))


def _say(interval: Interval) -> str:
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
