"""Every statement of every paper, judged in every group of runs by rules fixed before looking.

Supported: the 95 % interval lies wholly inside what is stated; contradicted: wholly outside; inconclusive: swept, but
the interval straddles a bound; outside: the runs are none that the paper states something of, or cover less than three
quarters (in log) of the range that the statement is made for: the value without a verdict; not swept.
"""

import importlib
import json
import math
import pkgutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import xarray as xr

from ntklens.analysis.claims.paper import Evidence, Finding, Paper, Statement
from ntklens.analysis.groups import ARM, Group, describe_value
from ntklens.analysis.groups import DATA as DATA
from ntklens.analysis.groups import WIDTH as WIDTH
from ntklens.analysis.settings import (
    count_seeds,
    describe_runs,
    is_own_loop,
    list_values,
    name_target,
    read_configs,
)
from ntklens.recording.observables import is_at_last_record, is_unresolved
from ntklens.stats.powerlaw import NOTHING, Interval, Law
from ntklens.stats.profile import LEVEL
from ntklens.stats.transition import Transition

SUPPORTED, CONTRADICTED, INCONCLUSIVE = "supported", "contradicted", "inconclusive"
OUTSIDE, NOT_SWEPT = "outside", "not swept"
VERDICTS = (SUPPORTED, CONTRADICTED, INCONCLUSIVE, OUTSIDE, NOT_SWEPT)
ENOUGH = 0.75  # of a claim's range, in log, that a sweep must cover
PARTS = {True: "agrees", False: "does not agree", None: "does not decide"}


@dataclass(frozen=True)
class Claim:
    """A statement and what this sweep says of it.

    Attributes:
      claim: the statement.
      axis: along which.
      group: at which value of what else was swept.
      protocol: the arm: `paper`, and in what the sweep departs from what the paper states.
      measured: the number that decides.
      verdict: supported, contradicted, inconclusive, outside, not swept.
      reason: the measurement, why there is no verdict if there is none, and what would give one.
      paper: which states it.
      range: of the axis, that it is made for.
      coverage: share of it, in log, that was swept; NaN if the paper gives no range.
      conditions: what the paper states it of, and whether these runs are that.
      finding: what the number was read from.
      why: there is no verdict, if there is none.
      advice: what would decide.
      family: the interval that holds together with those of all other claims, at 95 %.
      family_verdict: the verdict by that interval.
    """

    claim: str
    axis: str
    group: str
    protocol: str
    measured: Interval
    verdict: str
    reason: str
    paper: str = ""
    range: str = ""
    coverage: float = math.nan
    conditions: str = ""
    finding: str = ""
    why: str = ""
    advice: str = ""
    family: Interval = NOTHING
    family_verdict: str = ""

    @property
    def is_decided(self) -> bool:
        """Whether the statement was judged in these runs."""
        return self.verdict not in (OUTSIDE, NOT_SWEPT)

    @property
    def has_interval(self) -> bool:
        """Whether an interval stands behind the number."""
        return math.isfinite(self.measured.value) and not math.isnan(self.measured.low)


@cache
def find_papers() -> tuple[Paper, ...]:
    """Return the papers: `PAPER` of every module in this folder that has one."""
    names = sorted(module.name for module in pkgutil.iter_modules(sys.modules[__package__].__path__))
    modules = [importlib.import_module(f"{__package__}.{name}") for name in names]
    return tuple(module.PAPER for module in modules if hasattr(module, "PAPER"))


def judge_claims(
    data: xr.Dataset, groups: Sequence[Group], laws: Sequence[Law], transitions: Sequence[Transition]
) -> list[Claim]:
    """Judge every statement in every group of runs along its axis.

    Args:
      data: as `ntklens.load` returns it.
      groups: the axes.
      laws: along them.
      transitions: along them.

    Returns:
      A verdict for each statement and group.
    """
    cases: list[tuple[Paper, Statement, Evidence | None]] = []
    for paper in find_papers():
        for axis in dict.fromkeys(statement.axis for statement in paper.statements):
            own: list[Evidence | None] = [_collect(data, g, laws, transitions) for g in groups if g.axis == axis]
            cases += [(paper, s, e) for e in own or [None] for s in paper.statements if s.axis == axis]
    count = sum(_judge(data, *case, LEVEL, LEVEL).has_interval for case in cases)
    level = 1 - (1 - LEVEL) / max(count, 1)
    return [_judge(data, *case, LEVEL, level) for case in cases]


def _collect(data: xr.Dataset, group: Group, laws: Sequence[Law], transitions: Sequence[Transition]) -> Evidence:
    own = (group.axis, group.label)
    return Evidence(
        group,
        read_configs(data, group.runs),
        {law.observable: law for law in laws if (law.axis, law.group) == own},
        {t.observable: t for t in transitions if (t.axis, t.group) == own},
        int(count_seeds(data, group.runs).min()),
        *_find_unread(data, group),
        own_loop=is_own_loop(data),
    )


def _find_unread(data: xr.Dataset, group: Group) -> tuple[list[float], list[float]]:
    """Return where minima cannot be read: values of the axis where they come too early, and where they never came.

    Training that stopped before update 30 has its minimum early and last: more epochs help there, no smaller step does.
    """
    if "minimum_step" not in data:
        return [], []
    rows = group.find_rows(data)
    done = data["state"].values[rows].astype(str) == "done"
    last = done & (is_at_last_record(data)[rows] > 0) if "step" in data else np.zeros_like(done)
    early = done & (is_unresolved(data)[rows] > 0)
    unresolved, stopped = [], []
    for x in np.unique(group.x):
        own = group.x == x
        seeds = int(done[own].sum())
        if seeds and 2 * last[own].sum() >= seeds:
            stopped.append(float(x))
        elif seeds and early[own].sum() == seeds:
            unresolved.append(float(x))
    return unresolved, stopped


def _judge(
    data: xr.Dataset, paper: Paper, statement: Statement, evidence: Evidence | None, level: float, together: float
) -> Claim:
    """Judge one statement in one group; None: its axis was not swept."""
    if evidence is None:
        return _leave_open(data, paper, statement)
    group, configs = evidence.group, evidence.configs
    span = find_span(data, group, paper)
    finding, wide = (statement.measure(evidence, span, one) for one in (level, together))
    coverage = _measure_coverage(paper, statement.axis, span, finding)
    unmet = {condition: text for condition in paper.conditions if (text := condition.explain_failure(configs))}
    failures = list(unmet.values())
    if not _is_published(data, group):
        failures.append("the data files are not the published ones")
    verdict, family_verdict = (_decide(one.agrees, failures, coverage) for one in (finding, wide))
    if failures:
        advice = f"a verdict needs {', '.join(condition.advice for condition in unmet) or 'the published data files'}"
    else:
        advice = _advise(statement, finding, coverage, span, group.x)
    stated = ", ".join(condition.text for condition in paper.conditions)
    why = _explain(finding, verdict, failures, coverage, span)
    measured = " ".join(filter(None, (finding.number, finding.text)))
    return Claim(
        statement.text, group.axis, group.label, name_protocol(data, group.runs, paper, group), finding.measured,
        verdict, "; ".join(filter(None, (measured, why, advice))), paper.name,
        _write_range(paper, statement.axis, span), coverage,
        f"{stated}: {'met' if not failures else 'not met (' + ', '.join(failures) + ')'}",
        finding.text, why, advice, wide.measured, family_verdict,
    )  # fmt: skip


def find_span(data: xr.Dataset, group: Group, paper: Paper) -> tuple[float, float] | None:
    """Return the range of a group's axis that a paper makes statements for on these data; None if for none.

    Args:
      data: as `ntklens.load` returns it.
      group: the runs along the axis.
      paper: which makes the statements.
    """
    return paper.ranges.get((group.axis, _name_data(read_configs(data, group.runs))))


def _leave_open(data: xr.Dataset, paper: Paper, statement: Statement) -> Claim:
    """Return the claim of a statement whose axis was not swept."""
    axis, name = statement.axis, _name_data(read_configs(data))
    command = paper.commands.get((axis, name), paper.commands.get((axis, ""), ""))
    advice = f"type {command}" if command else f"sweep {axis}"
    finding = f"{axis} was not swept"
    return Claim(
        statement.text, axis, "", name_protocol(data, None, paper), NOTHING, NOT_SWEPT, f"{finding}; {advice}",
        paper.name, _write_range(paper, axis, paper.ranges.get((axis, name))), 0.0,
        ", ".join(condition.text for condition in paper.conditions), finding, "", advice, NOTHING, NOT_SWEPT,
    )  # fmt: skip


def _decide(agrees: bool | None, failures: Sequence[str], coverage: float) -> str:
    if failures or coverage < ENOUGH - 1e-9:
        return OUTSIDE
    return {True: SUPPORTED, False: CONTRADICTED, None: INCONCLUSIVE}[agrees]


def _explain(
    finding: Finding, verdict: str, failures: Sequence[str], coverage: float, span: tuple[float, float] | None
) -> str:
    if failures:
        return f"no verdict on the paper: {', '.join(failures)}"
    if verdict == OUTSIDE and span is not None:
        part = PARTS[finding.agrees]
        return f"{coverage:.0%} (in log) of {span[0]:g} … {span[1]:g} was swept: that part {part}"
    if verdict == INCONCLUSIVE and math.isfinite(finding.measured.value):
        return finding.why or "the interval reaches beyond what is stated"
    return ""


def _advise(
    statement: Statement, finding: Finding, coverage: float, span: tuple[float, float] | None, x: np.ndarray
) -> str:
    if span is not None and coverage < ENOUGH - 1e-9:
        missing = list_missing(finding.low, finding.high, span)
        added = [value for value in missing if value not in x]
        more = f"sweep {statement.axis}={','.join(f'{value:.0f}' for value in added)} as well" if added else ""
        return "; ".join(filter(None, (finding.advice, more)))
    return finding.advice


def list_missing(low: float, high: float, span: tuple[float, float]) -> list[float]:
    """Return the values, doublings of the range's lower end, that would make a sweep cover enough of the range.

    Larger ones first, as far as the range goes; then smaller ones.

    Args:
      low: the least value that was swept.
      high: the largest.
      span: the range of the claim.
    """
    steps = [span[0] * 2.0**n for n in range(1 + round(math.log2(span[1] / span[0])))]
    added: list[float] = []
    ends = [low, high] if measure_coverage(low, high, span) > 0 else [math.inf, -math.inf]
    for value in [*[x for x in steps if x > ends[1]], *[x for x in reversed(steps) if x < ends[0]]]:
        if measure_coverage(min(ends[0], *added, math.inf), max(ends[1], *added, -math.inf), span) >= ENOUGH - 1e-9:
            break
        added.append(value)
    return sorted(added)


def measure_coverage(low: float, high: float, span: tuple[float, float]) -> float:
    """Return the share of a range, in log, that values from low to high cover."""
    if not (0 < low <= high < math.inf):
        return 0.0
    overlap = math.log(min(high, span[1])) - math.log(max(low, span[0]))
    return max(0.0, round(overlap / math.log(span[1] / span[0]), 9))


def _measure_coverage(paper: Paper, axis: str, span: tuple[float, float] | None, finding: Finding) -> float:
    if span is None:
        return 0.0 if any(one == axis for one, _ in paper.ranges) else math.nan
    return measure_coverage(finding.low, finding.high, span)


def _write_range(paper: Paper, axis: str, span: tuple[float, float] | None) -> str:
    if span is not None:
        return f"{span[0]:g} … {span[1]:g}"
    names: dict[tuple[float, float], list[str]] = {}
    for (one, name), ends in paper.ranges.items():
        if one == axis:
            names.setdefault(ends, []).append(name)
    if len(names) == 1:
        return "".join(f"{low:g} … {high:g}" for low, high in names)
    return ", ".join(f"{low:g} … {high:g} ({', '.join(own)})" for (low, high), own in names.items())


def _name_data(configs: Sequence[Mapping[str, object]]) -> str:
    """Return the data set of runs, by the name of its loader; empty if there is more than one, or none is recorded."""
    names = {name_target(value) for value in list_values(configs, "dataset._target_")}
    return names.pop() if len(names) == 1 else ""


def _is_published(data: xr.Dataset, group: Group) -> bool:
    """Return whether nothing says that the runs' data files are others than the published ones."""
    provenance = json.loads(data.attrs.get("provenance", "{}"))
    if "data_checksum" not in data.coords:
        return all(provenance.get("data_published", []))
    published = {
        one.get("checksum"): one.get("published", True) for one in provenance.get("data", []) if isinstance(one, dict)
    }
    return all(published.get(str(one), True) for one in data["data_checksum"].sel(run=group.runs).values)


def name_protocol(data: xr.Dataset, runs: Sequence[str] | None, paper: Paper, group: Group | None = None) -> str:
    """Return the arm that runs belong to, `paper` or `resolved`, and every setting in which they depart from the paper.

    What the paper does not state is no departure.

    Args:
      data: with the runs' configurations.
      runs: their names; None: all.
      paper: whose protocol.
      group: the axis along which they are read.
    """
    configs = read_configs(data, runs)
    departures = []
    for key, value in {**paper.protocol, **(paper.along.get(group.axis, {}) if group else {})}.items():
        own = list_values(configs, key)
        same = [name_target(one) == name_target(value) if key.endswith("_target_") else one == value for one in own]
        if not all(same):
            departures.append(f"{key.removesuffix('._target_')}={'|'.join(_write_value(one) for one in own)}")
    if group:
        departures += [f"{key} changes with {group.axis}" for key in group.tied]
    arms = dict.fromkeys(str(config.get(ARM, "paper")) for config in configs) or ["paper"]
    return ", ".join(["|".join(arms), *departures])


def _write_value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else describe_value(value)


def describe_column(data: xr.Dataset, group: Group) -> dict[str, str]:
    """Return what the sweep of a group is, for the head of its column: heading → words.

    Args:
      data: as `ntklens.load` returns it.
      group: the runs.
    """
    words = describe_runs(data, group.runs)
    if "sweep" in data.coords:
        words = {"sweep": ", ".join(dict.fromkeys(map(str, data["sweep"].sel(run=group.runs).values))), **words}
    if group.axis not in (WIDTH, DATA):
        words[group.axis] = f"{group.x.min():g} … {group.x.max():g}"
    return words


def summarise_claims(claims: Sequence[Claim]) -> list[str]:
    """Return a sentence for each paper: how many of its statements have which verdict, or that none is judged."""
    sentences = []
    for paper in dict.fromkeys(claim.paper for claim in claims):
        own = [claim for claim in claims if claim.paper == paper]
        if not any(claim.is_decided for claim in own):
            sentences.append(
                f"No statement of {paper} is judged: these runs are none that it states anything of, or cover too "
                "little of the range."
            )
            continue
        counts = Counter(claim.verdict for claim in own)
        described = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
        groups = len({(claim.axis, claim.group) for claim in own if claim.verdict != NOT_SWEPT})
        where = f" in {groups} groups of runs" if groups > 1 else ""
        sentences.append(f"Statements of {paper}{where}: {described}.")
    return sentences


def describe_multiplicity(claims: Sequence[Claim]) -> str:
    """Return how many intervals the claims have, how many miss by chance, and the level that makes all hold at once."""
    count = sum(claim.has_interval for claim in claims)
    if not count:
        return ""
    text = f"{count} interval{'s' if count > 1 else ''} of claims stand{'' if count > 1 else 's'} on this page. "
    text += f"At 95 % each, {(1 - LEVEL) * count:.2g} of them would miss the truth by chance. "
    changed = [claim for claim in claims if claim.family_verdict != claim.verdict]
    level = 100 * (1 - (1 - LEVEL) / count)
    text += f"Read family-wise (each at {level:.4g} %, so that all {count} hold together at 95 %; Bonferroni), "
    text += f"{len(changed) or 'no'} verdict{'s' if len(changed) != 1 else ''} would change"
    return text + (": the cells name them." if changed else ".")
