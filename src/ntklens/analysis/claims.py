"""The statements of arXiv 2507.05035, judged by rules fixed before looking.

Supported: the 95 % interval lies wholly inside the stated range; contradicted: wholly outside; else not testable with
this sweep. "constant": α inside ±0.05; "≈ 0.5": 0.4 … 0.6; "∝ m": 0.9 … 1.1; "−0.7 … −0.8": −0.9 … −0.6; "grows",
"falls": wholly beyond ±0.05.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import xarray as xr

from ntklens.analysis.groups import Group, describe_value
from ntklens.analysis.powerlaw import CONSTANT, NOTHING, Fit, Interval, Law
from ntklens.analysis.stack import flatten_config
from ntklens.analysis.transition import Transition, compare_transitions

SUPPORTED, CONTRADICTED, NOT_TESTABLE = "supported", "contradicted", "not testable"
WIDTH, DATA = "model.width", "dataset.train_size"
LIMITS = (500.0, 1000.0)  # the transition widths stated
DEEP = 3  # hidden layers from which on a network counts as deep
PAPER: dict[str, object] = {  # what the paper's arm sets, as far as it is known
    "training.loss": "cross_entropy",
    "training.batch_size": None,
    "optimizer._target_": "optax.adam",
    "optimizer.learning_rate": 1e-3,
    "model.parameterization": "standard",
    "model.bias": True,
    "model.activation": "relu",
    "dataset.standardize": False,
}
NEXT = {
    WIDTH: "python -m ntklens.run -m experiment=mnist_width",
    DATA: "python -m ntklens.run -m experiment=mnist_data",
}


@dataclass(frozen=True)
class Claim:
    """A statement and what this sweep says of it.

    Attributes:
      claim: the statement.
      axis: along which.
      group: at which value of what else was swept.
      protocol: the arm: `paper`, and in what the sweep departs from it.
      measured: the number that decides.
      verdict: supported, contradicted, not testable.
      reason: one sentence; if not testable, what would test it.
    """

    claim: str
    axis: str
    group: str
    protocol: str
    measured: Interval
    verdict: str
    reason: str


@dataclass(frozen=True)
class Statement:
    """A statement on an exponent.

    Attributes:
      text: the statement.
      axis: along which.
      observable: whose exponent decides.
      low, high: the range stated.
      sign: of the observable; with the other sign the statement means nothing.
    """

    text: str
    axis: str
    observable: str
    low: float
    high: float
    sign: int = 1

    def judge(self, measured: Interval) -> str:
        """Return the verdict on an exponent."""
        if not math.isfinite(measured.value):
            return NOT_TESTABLE
        if measured.is_inside(self.low, self.high):
            return SUPPORTED
        return CONTRADICTED if measured.is_outside(self.low, self.high) else NOT_TESTABLE


STATEMENTS = (
    Statement("L_min falls with width as a power law, exponent ≈ 0.5", WIDTH, "minimum_loss", -0.6, -0.4),
    Statement("Tr Θ_0 grows in proportion to the width", WIDTH, "initial_trace", 0.9, 1.1),
    Statement("χ is constant in the width", WIDTH, "adaptation_rate", -CONSTANT, CONSTANT, -1),
    Statement("Γ(Θ_min) grows with the width", WIDTH, "minimum_effective_rank", CONSTANT, math.inf),
    Statement("β falls with width as a power law, exponent −0.7 … −0.8", WIDTH, "trace_ratio", -0.9, -0.6),
    Statement("L_min falls with data as a power law, exponent ≈ 0.5", DATA, "minimum_loss", -0.6, -0.4),
    Statement("Tr Θ_0 is constant in the amount of data", DATA, "initial_trace", -CONSTANT, CONSTANT),
    Statement("χ grows in magnitude with the amount of data", DATA, "adaptation_rate", CONSTANT, math.inf, -1),
    Statement("Γ(Θ_min) falls with the amount of data", DATA, "minimum_effective_rank", -math.inf, -CONSTANT),
)
SATURATES = "Γ(Θ_min) saturates with width"
TRANSITION = {
    "trace_ratio": "the transition width read from β lies at 500–1000",
    "minimum_effective_rank": "the transition width read from Γ lies at 500–1000",
}
AGREE = "β and Γ agree on the transition for deeper networks, and differ for shallow ones"


def judge_claims(
    data: xr.Dataset, groups: Sequence[Group], laws: Sequence[Law], transitions: Sequence[Transition]
) -> list[Claim]:
    """Judge every statement in every group of runs along its axis; those without such a group are not testable.

    Args:
      data: as `ntklens.load` returns it.
      groups: the axes.
      laws: along them.
      transitions: along them.
    """
    claims: list[Claim] = []
    for axis in (WIDTH, DATA):
        own = [group for group in groups if group.axis == axis]
        for group in own:
            claims += _judge_group(data, group, laws, transitions)
        if not own:
            arm = name_protocol(data, list(map(str, data["run"].values)))
            reason = f"{axis} was not swept; type {NEXT[axis]}"
            texts = [statement.text for statement in STATEMENTS if statement.axis == axis]
            texts += [SATURATES, *TRANSITION.values(), AGREE] if axis == WIDTH else []
            claims += [Claim(text, axis, "", arm, NOTHING, NOT_TESTABLE, reason) for text in texts]
    return claims


def _judge_group(data: xr.Dataset, group: Group, laws: Sequence[Law], transitions: Sequence[Transition]) -> list[Claim]:
    arm = name_protocol(data, group.runs)
    own = {law.observable: law for law in laws if (law.axis, law.group) == (group.axis, group.label)}

    def state(text: str, measured: Interval, verdict: str, reason: str) -> Claim:
        return Claim(text, group.axis, group.label, arm, measured, verdict, reason)

    claims = []
    for statement in STATEMENTS:
        if statement.axis != group.axis:
            continue
        law = own.get(statement.observable)
        fit = law.fits.get("power") if law else None
        measured = fit.exponent if fit else NOTHING
        verdict = statement.judge(measured) if fit and fit.sign == statement.sign else NOT_TESTABLE
        reason = _explain(statement, law, fit, verdict)
        claims.append(state(statement.text, measured, verdict, reason))
    if group.axis == WIDTH:
        found = {t.observable: t for t in transitions if (t.axis, t.group) == (group.axis, group.label)}
        claims += _judge_transitions(found, group, state, _find_depth(data, group))
    return claims


def _explain(statement: Statement, law: Law | None, fit: Fit | None, verdict: str) -> str:
    if law is None or fit is None:
        return f"{law.finding if law else 'not measured'}; type {NEXT[statement.axis]}"
    measured = fit.exponent
    text = f"exponent {measured.value:.3f} [{measured.low:.3f}, {measured.high:.3f}]"
    text += f" over {fit.x.min():g} … {fit.x.max():g}"
    if fit.sign != statement.sign:
        sign = "negative" if fit.sign < 0 else "positive"
        return f"{text} of its absolute value: it is {sign}, which the claim excludes"
    if law.preferred != "power":
        text += f", where {law.preferred} describes the points better than one power law"
    if verdict == NOT_TESTABLE:
        text += "; the interval reaches beyond the stated range: more values, more seeds, "
        text += f"or type {NEXT[statement.axis]}"
    if statement.observable == "minimum_loss" and statement.axis == WIDTH:
        text += "; where data are the bottleneck (D = 100) the loss hardly falls with width: "
        text += "compare dataset.train_size=8192"
    return text


def _judge_transitions(
    found: Mapping[str, Transition], group: Group, state: Callable[[str, Interval, str, str], Claim], depth: float
) -> list[Claim]:
    claims = []
    wider = f"sweep wider than {group.x.max():g}, or type {NEXT[WIDTH]}"
    gamma = found.get("minimum_effective_rank")
    saturates = gamma is not None and gamma.within and gamma.method.endswith("plateau")
    claims.append(
        state(
            SATURATES, gamma.scale if saturates and gamma else NOTHING, SUPPORTED if saturates else NOT_TESTABLE,
            gamma.sentence if gamma and saturates else f"{gamma.sentence if gamma else 'not measured'}; {wider}",
        )
    )  # fmt: skip
    for name, text in TRANSITION.items():
        transition = found.get(name)
        if transition is None or not transition.within:
            reason = f"{transition.sentence if transition else 'not measured'}; {wider}"
            claims.append(state(text, NOTHING, NOT_TESTABLE, reason))
            continue
        inside, outside = transition.scale.is_inside(*LIMITS), transition.scale.is_outside(*LIMITS)
        verdict = SUPPORTED if inside else CONTRADICTED if outside else NOT_TESTABLE
        claims.append(state(text, transition.scale, verdict, transition.sentence))
    beta = found.get("trace_ratio")
    if beta is None or gamma is None or not (beta.within and gamma.within) or not math.isfinite(depth):
        reason = f"{compare_transitions(beta, gamma) if beta and gamma else 'not measured'}; {wider}, model.depth=2,4"
        return [*claims, state(AGREE, NOTHING, NOT_TESTABLE, reason)]
    apart = beta.scale.is_outside(gamma.scale.low, gamma.scale.high)
    ratio = Interval(beta.scale.value / gamma.scale.value)
    verdict = SUPPORTED if apart == (depth < DEEP) else CONTRADICTED
    return [*claims, state(AGREE, ratio, verdict, f"depth {depth:g}: {compare_transitions(beta, gamma)}")]


def _find_depth(data: xr.Dataset, group: Group) -> float:
    config = _read_configs(data, group.runs)[:1]
    depth = config[0].get("model.depth") if config else None
    return float(depth) if isinstance(depth, int | float) else math.nan


def _read_configs(data: xr.Dataset, runs: Sequence[str]) -> list[dict[str, object]]:
    if "config" not in data.coords:
        return []
    texts = data["config"].sel(run=list(runs)).values
    return [flatten_config(json.loads(text)) for text in texts if text]


def name_protocol(data: xr.Dataset, runs: Sequence[str]) -> str:
    """Return the arm that runs belong to: `paper`, and every setting in which they depart from it.

    Args:
      data: with the runs' configurations.
      runs: their names.
    """
    configs = _read_configs(data, runs)
    departures = []
    for key, value in PAPER.items():
        own = list(dict.fromkeys(config[key] for config in configs if key in config))
        if any(one != value for one in own):
            departures.append(f"{key.removesuffix('._target_')}={'|'.join(describe_value(one) for one in own)}")
    return ", ".join(["paper", *departures])
