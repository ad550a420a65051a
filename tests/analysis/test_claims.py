"""Verdicts on papers: every rule of them, on sweeps whose laws are known."""

import json
import math
import re
import sys

import numpy as np
import pytest
import xarray as xr
from hydra import compose, initialize_config_dir
from scipy.stats import linregress, t

from laws import configure, make_sweep
from ntklens.analysis import claims as package
from ntklens.analysis.claims import (
    describe_column,
    describe_multiplicity,
    find_papers,
    judge_claims,
    name_protocol,
    summarise_claims,
)
from ntklens.analysis.claims.arxiv_2507_05035 import PAPER
from ntklens.analysis.claims.judge import list_missing, measure_coverage
from ntklens.analysis.claims.paper import widen
from ntklens.analysis.diagnostics import diagnose
from ntklens.analysis.groups import arrange_samples, find_groups
from ntklens.analysis.ratio import measure_slope
from ntklens.analysis.settings import describe_differences
from ntklens.config.schemas import find_config_directory, register_schemas
from ntklens.errors import InputError
from ntklens.recording.observables import list_observables, measure_observables
from ntklens.stats.powerlaw import Interval, Law, fit_form, is_constant
from ntklens.stats.samples import summarise
from ntklens.stats.transition import Transition

WHOLE = 2.0 ** np.arange(5, 14)  # 32 … 8192
NONE = Interval()


@pytest.fixture(autouse=True)
def only_this_paper(monkeypatch):
    """The verdicts below are those on one paper, however many there are files of."""
    monkeypatch.setattr("ntklens.analysis.claims.judge.find_papers", lambda: (PAPER,))


def study_quickly(data, transitions=()):
    """Power laws alone: what the claims of exponents read."""
    observables = measure_observables(data)
    groups, laws = find_groups(observables), []
    for group in groups:
        for name in filter(observables.variables.__contains__, list_observables("fitted")):
            try:
                fits = {"power": fit_form(summarise(*arrange_samples(observables, group, name)), "power")}
                refusals = {}
            except InputError as error:
                fits, refusals = {}, {"power": str(error)}
            laws.append(Law(name, group.axis, group.label, fits, "power" if fits else None, refusals, ""))
    return groups, laws, judge_claims(data, groups, laws, transitions)


def judge_sweep(data, transitions=()):
    return study_quickly(data, transitions)[2]


def find(claims, words, group=""):
    return next(claim for claim in claims if words in claim.claim and claim.group == group)


def make_law(widths=WHOLE, exponents=(-0.5, 0.1), **config):
    return make_sweep(widths=widths, seeds=8, exponents=exponents, **(config or configure()))


def cross(scale, low, high, observable="trace_ratio", method="plateau → power", within=True, group=""):
    scale = Interval(scale, low, high) if within else NONE
    return Transition(
        observable, "model.width", group, scale, within, method, 0.001, NONE, NONE, math.nan, "a crossover"
    )


def combine(*sweeps):
    return xr.concat([s.assign_coords(run=[f"{n}-{run}" for run in s.run.values]) for n, s in enumerate(sweeps)], "run")


def test_an_interval_inside_outside_or_across_what_is_stated():
    claims = judge_sweep(make_law())
    loss = find(claims, "L_min falls with width")
    assert (loss.verdict, loss.coverage, loss.range) == ("supported", 1.0, "32 … 8192")
    assert loss.conditions.endswith(": met")
    assert find(claims, "χ is constant in the width").verdict == "supported"
    assert find(claims, "Γ(Θ_min) grows").verdict == "supported"
    trace = find(claims, "Tr Θ_0 grows in proportion")  # affine: 40 (300 + m)
    assert trace.verdict == "contradicted"
    assert find(judge_sweep(make_law(exponents=(-0.3, 0.0))), "L_min falls with width").verdict == "contradicted"
    rough = make_law()
    rough["minimum_test_loss"] = rough.minimum_test_loss * np.exp(0.5 * np.cos(2 * np.arange(9)))[:, None]
    loss = find(judge_sweep(rough), "L_min falls with width")
    assert loss.verdict == "inconclusive"
    assert "the interval reaches beyond what is stated" in loss.reason
    assert "sweep more values of model.width between 32 and 8192" in loss.advice


@pytest.mark.parametrize(
    ("data", "widths", "coverage"),
    [
        ("mnist", 2.0 ** np.arange(5, 12), 0.75),  # 32 … 2048 of 32 … 8192: three quarters are enough
        ("fashion_mnist", 2.0 ** np.arange(5, 11), 0.625),
        ("mnist", 2.0 ** np.arange(3, 8), 0.25),  # 8 … 128, of which 32 … 128 count
        ("mnist", 2.0 ** np.arange(0, 5), 0.0),
        ("cifar10", 2.0 ** np.arange(5, 12), 0.5),  # 256 … 16384 there
        ("cifar10", 2.0 ** np.arange(8, 14), 5 / 6),
    ],
)
def test_three_quarters_of_the_range_in_log_are_needed(data, widths, coverage):
    claim = find(judge_sweep(make_law(widths, **configure(data))), "L_min falls with width")
    assert claim.coverage == pytest.approx(coverage)
    assert (claim.verdict == "outside") == (coverage < 0.75)
    assert math.isfinite(claim.measured.value)
    if claim.verdict == "outside":
        assert f"{coverage:.0%} (in log) of {claim.range} was swept" in claim.reason


def test_a_part_of_the_range_says_whether_it_agrees_and_what_is_missing():
    half = 2.0 ** np.arange(5, 10)
    claims = judge_sweep(make_law(half))
    assert "that part agrees" in find(claims, "L_min falls with width").why
    assert "that part does not agree" in find(claims, "Tr Θ_0 grows in proportion").why
    assert find(claims, "L_min falls with width").advice == "sweep model.width=1024,2048 as well"
    rough = make_law(half)
    rough["minimum_test_loss"] = rough.minimum_test_loss * np.exp(0.5 * np.cos(2 * np.arange(5)))[:, None]
    assert "that part does not decide" in find(judge_sweep(rough), "L_min falls with width").why


def test_minima_that_come_too_early_are_the_advice():
    """Wider sweeps at the same step would be as unresolved."""
    data = make_law(2.0 ** np.arange(5, 10))
    data["minimum_step"][2:] = 12.0
    claim = find(judge_sweep(data), "L_min falls with width")
    assert math.isnan(claim.measured.value)
    assert claim.advice.startswith("lower optimizer.learning_rate: at model.width 128, 256, 512 the minimum comes too")
    assert "optimizer.learning_rate" not in find(judge_sweep(data), "Tr Θ_0 grows in proportion").advice


@pytest.mark.parametrize("rate", [None, "auto", 1e-3])
def test_advice_on_the_step_can_be_typed(rate):
    """A step that a rule chooses is no setting."""
    data = make_law(2.0 ** np.arange(5, 10), **configure(optimizer__learning_rate=rate))
    data["minimum_step"][2:] = 12.0
    data = data.assign_coords(state=data.state.astype("<U10"))
    data["state"].values[0, 0] = "diverged"
    groups, laws, claims = study_quickly(data)
    states = {"done": data.state.size - 1, "diverged": 1}
    found = diagnose(data, measure_observables(data), groups, laws, [], states)
    advice = [one.advice for one in found if "diverged" in one.sentence or "unresolved" in one.sentence]
    advice.append(find(claims, "L_min falls with width").advice)
    assert len(advice) == 3
    for text in map(str.lower, advice):
        assert ("lower optimizer.learning_rate" in text) == (rate == 1e-3)
        assert ("raise protocol.step_divisor" in text) == (rate != 1e-3)


def test_training_that_stopped_before_its_minimum_is_to_be_longer_not_finer():
    data = make_law(2.0 ** np.arange(5, 10))
    data["step"][:] = data.step * (20 / data.step.max())  # all of it before update 30
    data["minimum_step"][:] = data.step.isel(record=-1)
    advice = find(judge_sweep(data), "L_min falls with width").advice
    assert advice.startswith("raise training.epochs: at model.width 32 … 512 (5 values) training ended before the min")
    assert "optimizer.learning_rate" not in advice
    assert "training.epochs" not in find(judge_sweep(data), "Tr Θ_0 grows in proportion").advice


@pytest.mark.parametrize("ends", [(32, 512), (8, 128), (512, 8192), (1, 16), (256, 1024), (20000, 40000)])
def test_the_values_that_are_advised_cover_enough(ends):
    span = (32.0, 8192.0)
    added = list_missing(*ends, span)
    inside = measure_coverage(*ends, span) > 0
    swept = [*added, *(ends if inside else ())]
    assert measure_coverage(min(swept), max(swept), span) >= 0.75 - 1e-9
    assert all(span[0] <= value <= span[1] for value in added)


def test_what_lies_beyond_the_range_does_not_decide():
    """Below width 32 the law is another: the claim is of 32 … 8192."""
    wide = 2.0 ** np.arange(0, 14)
    data = make_law(wide)
    bent = np.where(wide < 32, (32 / wide) ** -0.5, 1.0)
    data["minimum_test_loss"] = data.minimum_test_loss * bent[:, None]
    claim = find(judge_sweep(data), "L_min falls with width")
    assert claim.verdict == "supported"
    assert "over 32 … 8192, the part of 1 … 8192 that the claim is made for" in claim.reason


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (configure("digits", 200), "dataset=digits"),
        (configure("synthetic"), "dataset=synthetic"),
        (configure(model___target_="mine.CNN"), "model=CNN"),
        (configure(model___target_="mine.MLP"), "model=MLP"),  # of the same name, but not ours
        (configure(model__parameterization="mup"), "model.parameterization=mup"),
        (configure(model__parameterization="ntk"), "model.parameterization=ntk"),
        (configure(model__activation="tanh"), "model.activation=tanh"),
        (configure(dataset___target_="mine.load", dataset__name="mnist"), "dataset=mine"),
    ],
)
def test_no_verdict_on_what_the_paper_does_not_state(config, why):
    claims = judge_sweep(make_law(**config))
    swept = [claim for claim in claims if claim.axis == "model.width"]
    assert {claim.verdict for claim in swept} == {"outside"}
    loss = find(claims, "L_min falls with width")
    assert loss.measured.value == pytest.approx(-0.5, abs=0.05)
    assert f"no verdict on the paper: {why}" in loss.reason
    assert f"not met ({why}" in loss.conditions
    (group,) = {condition.advice.partition("=")[0] for condition in PAPER.conditions
                if condition.advice.startswith(why.partition("=")[0] + "=")}  # fmt: skip
    assert f"a verdict needs {group}=" in loss.advice


def test_what_is_not_recorded_is_not_taken_for_what_the_paper_states():
    claims = judge_sweep(make_law(model={"depth": 2}))
    loss = find(claims, "L_min falls with width")
    assert loss.verdict == "outside"
    assert "dataset is not recorded" in loss.conditions


def test_data_files_that_are_not_the_published_ones_have_no_verdict():
    data = make_law()
    data.attrs["provenance"] = '{"data_published": [false]}'
    assert find(judge_sweep(data), "L_min falls with width").verdict == "outside"
    data.attrs["provenance"] = '{"data_published": [true]}'
    assert find(judge_sweep(data), "L_min falls with width").verdict == "supported"
    two = [{"checksum": "a", "published": True}, {"checksum": "b", "published": False}, {"checksum": "c"}]
    data.attrs["provenance"] = json.dumps({"data": two, "data_published": [True, False]})
    for checksum, verdict in (("a", "supported"), ("b", "outside"), ("c", "supported")):
        own = data.assign_coords(data_checksum=("run", [checksum] * data.sizes["run"]))
        loss = find(judge_sweep(own), "L_min falls with width")
        assert loss.verdict == verdict
        assert ("published data files" in loss.advice) == (checksum == "b")


def test_departures_are_named_and_what_is_not_stated_is_none():
    changed = configure(optimizer___target_="optax.sgd", optimizer__learning_rate=0.3, training__loss="mse")
    data = make_law(**changed)
    assert name_protocol(data, list(data.run.values), PAPER) == "paper, training.loss=mse, optimizer=optax.sgd"
    assert find(judge_sweep(data), "L_min falls with width").verdict == "supported"
    assert name_protocol(make_law(), None, PAPER) == "paper"
    assert find(judge_sweep(make_law(**configure(size=250))), "χ is").protocol == "paper, dataset.train_size=250"
    deeper = make_law(**configure(model__depth=4, optimizer__learning_rate=0.02, training__epochs=7))
    assert {claim.protocol for claim in judge_sweep(deeper)} == {"paper"}


@pytest.mark.parametrize("size", [100, 250, 20000])
def test_numbers_in_sentences_are_those_of_the_sweep(size):
    claim = find(judge_sweep(make_law(exponents=(-0.01, 0.1), **configure(size=size))), "L_min falls with width")
    assert claim.verdict == "contradicted"
    limited = f"with {size} training samples data may be the limit"
    assert (limited in claim.reason) == (size < 8192)
    assert ("compare dataset.train_size=8192" in claim.advice) == (size < 8192)


def test_an_axis_that_was_not_swept_has_no_verdict_and_a_command():
    claims = judge_sweep(make_law())
    data = [claim for claim in claims if claim.axis == "dataset.train_size"]
    assert len(data) == 4
    assert {claim.verdict for claim in data} == {"not swept"}
    assert {claim.coverage for claim in data} == {0.0}
    assert data[0].reason.endswith("type python -m ntklens.run -m experiment=mnist_data")
    other = judge_sweep(make_law(**configure("cifar10")))
    assert "dataset=cifar10" in find(other, "Tr Θ_0 is constant in the amount").advice


def list_commands():
    return [
        pytest.param(paper, axis, data, words, id=f"{paper.name}-{axis}-{data}")
        for paper in find_papers()
        for (axis, data), words in paper.commands.items()
    ]


@pytest.mark.parametrize(("paper", "axis", "data", "command"), list_commands())
def test_every_command_that_is_advised_can_be_typed_and_covers_enough(paper, axis, data, command):
    register_schemas()
    words = command.removeprefix("python -m ntklens.run -m ").split()
    with initialize_config_dir(version_base="1.3", config_dir=str(find_config_directory())):
        cfg = compose("config", [word for word in words if word.count(",") == 0], return_hydra_config=True)
    swept = dict(cfg.hydra.sweeper.params or {}) | dict(word.split("=") for word in words if "," in word)
    values = [float(value) for value in str(swept[axis]).split(",")]
    assert data in ("", cfg.dataset.name)
    assert data or paper is not PAPER or cfg.dataset.name == "mnist"
    assert measure_coverage(min(values), max(values), paper.ranges[axis, cfg.dataset.name]) >= 0.75


def test_a_swept_axis_without_a_number_is_no_verdict():
    few = judge_sweep(make_law(np.array([32.0, 8192.0])))
    claim = find(few, "L_min falls with width")
    assert claim.verdict == "inconclusive"
    assert claim.advice == "sweep at least 4 values of model.width (there are 2)"
    assert math.isnan(claim.measured.value)


def test_the_sign_that_is_stated_is_needed():
    data = make_law()
    data["minimum_trace"] = data.trace[..., 0] * (1 - 0.5 * (data["model.width"] / 16) ** -0.75)
    claim = find(judge_sweep(data), "β falls with width")
    assert claim.verdict == "inconclusive"
    assert "it is negative, not as stated" in claim.reason


@pytest.mark.parametrize(
    ("scale", "verdict"),
    [((700, 550, 950), "supported"), ((200, 150, 300), "contradicted"), ((600, 300, 900), "inconclusive")],
)
def test_the_transition_width_is_judged_like_an_exponent(scale, verdict):
    claims = judge_sweep(make_law(), [cross(*scale)])
    assert find(claims, "transition width read from β").verdict == verdict
    assert find(claims, "transition width read from Γ").verdict == "inconclusive"


def test_saturation_is_supported_only_by_a_plateau():
    rank = "minimum_effective_rank"
    for method, verdict in (("power → plateau", "supported"), ("plateau → power", "inconclusive")):
        claims = judge_sweep(make_law(), [cross(700, 600, 800, rank, method)])
        assert find(claims, "saturates with width").verdict == verdict
    half = judge_sweep(make_law(2.0 ** np.arange(5, 11)), [cross(700, 600, 800, rank, "power → plateau")])
    assert find(half, "saturates with width").verdict == "outside"


@pytest.mark.parametrize(
    ("depth", "other", "verdict"),
    [
        (2, (100, 80, 120), "supported"),  # apart, shallow
        (2, (690, 600, 820), "contradicted"),  # together, shallow
        (2, (500, 300, 720), "inconclusive"),  # neither
        (2, (690, 200, 2300), "inconclusive"),  # a wide interval that holds the other's value is no agreement
        (3, (690, 200, 2300), "inconclusive"),
        (3, (690, 600, 820), "supported"),
        (3, (100, 80, 120), "contradicted"),
        (4, (690, 600, 820), "supported"),
    ],
)
def test_agreement_of_the_transitions_depends_on_the_depth(depth, other, verdict):
    both = [cross(700, 600, 800), cross(*other, "minimum_effective_rank", "power → plateau")]
    claims = judge_sweep(make_law(**configure(model__depth=depth)), both)
    assert find(claims, "β and Γ agree").verdict == verdict


def test_groups_have_columns_of_their_own_and_the_differences_are_in_words():
    sweeps = [
        make_law(widths, **configure(model__depth=depth, optimizer__learning_rate=rate)).assign_coords(
            {"model.depth": ("run", [depth] * len(widths)), "optimizer.learning_rate": ("run", [rate] * len(widths))}
        )
        for depth, widths, rate in ((2, WHOLE, 1e-3), (3, WHOLE[:4], 3e-4))
    ]
    data = combine(*sweeps)
    groups, _, claims = study_quickly(data)
    wide = [group for group in groups if group.axis == "model.width"]
    assert [group.label for group in wide] == ["model.depth=2", "model.depth=3"]
    assert find(claims, "L_min falls with width", "model.depth=2").verdict == "supported"
    assert find(claims, "L_min falls with width", "model.depth=3").verdict == "outside"
    columns = [describe_column(data, group) for group in wide]
    assert columns[0]["data"] == "mnist, D = 100"
    assert columns[0]["width"] == "32 … 8192 (9 values)"
    assert columns[0]["seeds"] == "8"
    lines = describe_differences(columns)
    assert "model: dense ReLU network, depth 2 | dense ReLU network, depth 3" in lines
    assert "optimiser: Adam, η = 0.001 | Adam, η = 0.0003" in lines
    assert not any(line.startswith(("data", "initialisation", "training", "seeds")) for line in lines)
    assert summarise_claims(claims)[0].startswith("Statements of arXiv 2507.05035 in 2 groups of runs: ")


def test_intervals_are_counted_and_read_together():
    claims = judge_sweep(make_law())
    count = sum(claim.has_interval for claim in claims)
    assert count == 5
    text = describe_multiplicity(claims)
    assert text.startswith("5 intervals of claims stand on this page. At 95 % each, 0.25 of them would miss")
    assert "each at 99 %" in text
    for claim in claims:
        if claim.has_interval:
            assert claim.family.low < claim.measured.low < claim.measured.high < claim.family.high
    assert describe_multiplicity(judge_sweep(make_law(np.array([64.0])))) == ""


def test_a_verdict_that_does_not_survive_the_others_is_marked():
    """L_min's interval lies just inside: widened for five intervals it reaches out."""
    data = make_law(exponents=(-0.425, 0.1))
    data["minimum_test_loss"] = data.minimum_test_loss * np.exp(0.07 * np.cos(2 * np.arange(9)))[:, None]
    claims = judge_sweep(data)
    loss = find(claims, "L_min falls with width")
    assert (loss.verdict, loss.family_verdict) == ("supported", "inconclusive")
    assert "1 verdict would change: the cells name them" in describe_multiplicity(claims)


def test_an_exponent_at_another_level_is_exact():
    from scipy.stats import t

    x = np.array([8.0, 16, 32, 64, 128, 256])
    y = (3 * x**-0.5)[:, None] * np.exp(0.05 * np.random.default_rng(1).standard_normal((6, 5)))
    fit = fit_form(summarise(x, y), "power")
    wide = widen(fit.exponent, fit.profile.degrees, 0.99)
    half = (fit.exponent.high - fit.exponent.low) / 2 / t.ppf(0.975, 4) * t.ppf(0.995, 4)
    assert wide.high - wide.value == pytest.approx(half)
    scale = widen(Interval(100.0, 50.0, 200.0), 4, 0.99, logarithmic=True)
    assert scale.low * scale.high == pytest.approx(100.0**2)
    assert scale.high > 200


def test_a_second_paper_is_one_more_file(monkeypatch, tmp_path):
    (tmp_path / "someone_2030.py").write_text(
        "from ntklens.analysis.claims.paper import Exponent, Paper\n"
        "PAPER = Paper('Someone 2030', (Exponent('Γ_0 grows', 'model.width', 'initial_effective_rank', 0.05, 9),), (),"
        " {}, {}, {}, 'all else', {})\n"
    )
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    monkeypatch.setattr("ntklens.analysis.claims.judge.find_papers", find_papers)
    find_papers.cache_clear()
    try:
        assert {PAPER.name, "Someone 2030"} <= {paper.name for paper in find_papers()}
        claim = find(judge_sweep(make_law(**configure("digits"))), "Γ_0 grows")
        assert (claim.paper, claim.verdict) == ("Someone 2030", "supported")
        assert math.isnan(claim.coverage)
        unswept = find(judge_sweep(make_law(np.array([64.0]))), "Γ_0 grows")
        assert (unswept.verdict, unswept.advice) == ("not swept", "sweep model.width")
    finally:
        sys.modules.pop("ntklens.analysis.claims.someone_2030", None)
        find_papers.cache_clear()


def test_no_trend_is_said_only_where_a_constant_fits():
    rng = np.random.default_rng(3)
    x = 2.0 ** np.arange(3, 9)
    flat = summarise(x, 5 * np.exp(0.2 * rng.standard_normal((6, 8))))
    assert is_constant(flat)
    bent = summarise(x, (1 + np.array([0, 2, 3, 3, 2, 0.0]))[:, None] * np.exp(0.05 * rng.standard_normal((6, 8))))
    assert not is_constant(bent)
    assert not is_constant(summarise(x, np.full((6, 1), 5.0)))  # one seed: nothing is known of its error
    from ntklens.stats.powerlaw import _describe

    texts = [_describe({"power": fit_form(samples, "power")}, "power", {}) for samples in (flat, bent)]
    assert texts[0].startswith(("shows no trend", "is constant"))
    assert texts[1].startswith("bends, and has no resolved trend: a power law is rejected (p = 0.0")
    assert "no trend" not in texts[1]


def test_a_power_law_is_supported_only_where_the_points_do_not_bend():
    """The exponent alone lies inside what is stated in all three; the middle one bends, the last is too short."""
    verdicts = {}
    for name, x, bend in (("straight", 8, 0.0), ("bent", 8, 0.03), ("short", 4, 0.0)):
        widths = np.geomspace(32, 4096, x).round()
        data, place = make_law(widths), np.log(widths / 360)
        data["minimum_test_loss"] = data.minimum_test_loss * np.exp(-bend * place**2)[:, None]
        verdicts[name] = find(judge_sweep(data), "L_min falls with width")
    assert {name: claim.verdict for name, claim in verdicts.items()} == {
        "straight": "supported", "bent": "inconclusive", "short": "inconclusive",
    }  # fmt: skip
    assert "the exponent agrees, but a power law is rejected" in verdicts["bent"].why
    assert "4 points are too few" in verdicts["short"].why


def test_a_constant_is_supported_only_where_the_points_do_not_bend():
    """χ rises by 18 % and falls again: its mean slope lies within ±0.05, as that of one that is level does."""
    hump = np.exp(0.165 * np.array([0, 0.4, 0.7, 0.9, 1, 0.9, 0.7, 0.4, 0]))[:, None]
    claims = {}
    for name, curve in (("level", np.ones((9, 1))), ("bent", hump), ("short", np.ones((9, 1)))):
        data = make_law()
        change = (data.trace - data.trace.isel(record=0)) * xr.DataArray(curve, dims=("run", "seed")).squeeze("seed")
        data["trace"] = data.trace.isel(record=0) + change
        data = data.isel(run=[0, 3, 5, 8]) if name == "short" else data
        claims[name] = find(judge_sweep(data), "χ is constant in the width")
    assert [claim.verdict for claim in claims.values()] == ["supported", "inconclusive", "inconclusive"]
    assert "4 points are too few" in claims["short"].why
    assert claims["bent"].measured.is_inside(-0.05, 0.05)
    assert claims["bent"].family_verdict == "inconclusive"
    assert re.match(r"the exponent agrees, but the points bend: means between .*, 1[6-9] % apart", claims["bent"].why)


def list_diagnoses(data):
    groups, laws, _ = study_quickly(data)
    return diagnose(data, measure_observables(data), groups, laws, [], {"done": data.state.size})


def test_a_ratio_that_does_not_fall_is_no_fault_under_mup():
    data = make_law(**configure(model__parameterization="mup"))
    data["minimum_trace"] = data.trace[..., 0] * 3
    (own,) = [one for one in list_diagnoses(data) if "β does not fall" in one.sentence]
    assert own.severity == "note"
    assert "model.parameterization=mup" in own.sentence


def find_ratio(initial, change):
    """The diagnoses of β where Tr Θ_0 and ΔTr have these values."""
    data = make_law()
    start = np.asarray(initial)[:, None] * np.exp(0.02 * np.random.default_rng(4).standard_normal((9, 8)))
    data["trace"] = data.trace - data.trace.isel(record=0) + start[..., None]
    data["minimum_trace"] = data.trace.isel(record=0) + np.asarray(change)[:, None]
    return [one for one in list_diagnoses(data) if re.search("β (falls|does not fall)", one.sentence)]


def test_why_beta_does_not_fall_is_read_from_the_split_of_its_slope():
    grown, flat = 40 * (300 + WHOLE), np.full(9, 2e4)
    (both,) = find_ratio(grown, 3 * grown)  # Tr Θ_0 grows, and is no reason for β to fall
    assert both.severity == "note"
    assert "β does not fall" in both.sentence
    assert "Tr Θ_0 grows, and ΔTr with it: the sweep is not too narrow" in both.sentence
    assert re.search(r"\+0\.\d\d \[\+.* by ΔTr and -0\.\d\d \[-.* by Tr Θ_0 alone", both.sentence)
    (narrow,) = find_ratio(flat, 3 * flat)
    assert narrow.severity == "warning"
    assert "Tr Θ_0 does not grow over 32 … 8192" in narrow.sentence
    assert narrow.advice == "Sweep model.width beyond 8192."


def test_a_fall_of_beta_is_put_down_to_the_trace_before_training_only_where_the_split_shows_it():
    grown, flat = 40 * (300 + WHOLE), np.full(9, 2e4)
    (found,) = find_ratio(grown, flat)
    assert found.severity == "note"
    assert "β falls because Tr Θ_0 grows" in found.sentence
    assert not find_ratio(flat, 1e7 / WHOLE)  # by ΔTr alone
    assert not find_ratio(grown, 1e7 / WHOLE)  # by both


def test_slopes_have_the_intervals_of_linear_regression_and_of_seeds():
    rng = np.random.default_rng(0)
    logs = np.log(3 * WHOLE**-0.5) + 0.05 * rng.standard_normal(9)
    line = linregress(np.log(WHOLE), logs)
    half = t.ppf(0.975, 7) * line.stderr
    by_scatter, by_seeds = (measure_slope(WHOLE, logs, np.full(9, v), np.ones(9)) for v in (1e-6, 1.0))
    assert [by_scatter.value, by_scatter.low] == pytest.approx([line.slope, line.slope - half], rel=1e-9)
    place = np.log(WHOLE) - np.log(WHOLE).mean()
    assert by_seeds.high - by_seeds.value == pytest.approx(t.ppf(0.975, 7) / math.sqrt(np.sum(place**2)))
    weights = rng.uniform(0.5, 2, 9)
    weighted = measure_slope(WHOLE, logs, np.full(9, 1e-6), weights)
    (slope, _), covariance = np.polyfit(np.log(WHOLE), logs, 1, w=np.sqrt(weights), cov=True)
    half = t.ppf(0.975, 7) * math.sqrt(covariance[0, 0])
    assert [weighted.value, weighted.high] == pytest.approx([slope, slope + half], rel=1e-9)


def test_groups_that_are_trained_by_different_amounts_are_said():
    def train(steps, arms=("paper", "paper")):
        parts = []
        for loss, arm, step in zip(("cross_entropy", "mse"), arms, steps, strict=True):
            part = make_law(WHOLE[:4]).assign_coords(
                {"training.loss": ("run", [loss] * 4), "protocol.arm": ("run", [arm] * 4)}
            )
            part["minimum_step"][:] = np.array([200, 200, 200, step])[:, None]
            parts.append(part.isel(run=slice(len(parts), None)))  # groups need not have the same values
        return [one for one in list_diagnoses(combine(*parts)) if "amounts of training" in one.sentence]

    (found,) = train((40, 160))
    assert "by a factor of up to 4, at model.width=256 between 40 (training.loss=cross_entropy" in found.sentence
    assert "protocol=resolved" in found.advice
    assert not train((80, 160))
    assert not train((40, 160), ("paper", "resolved"))  # arms differ in the step by design


@pytest.mark.parametrize("size", [128, 48])
def test_another_probe_is_advised_where_one_can_be_drawn(size):
    own = configure(dataset___target_="own_data.load")
    settable = configure(dataset___target_="own_data.load", dataset__probe_seed=None)
    for config, there in ((own, False), (settable, True), (configure(), True)):
        data = make_law(**config)
        data["N"] = (("run", "seed"), np.full(data.state.shape, float(size)))
        (own,) = [one for one in list_diagnoses(data) if "one probe" in one.sentence]
        assert f"one probe of {size} inputs" in own.sentence
        assert ("dataset.probe_seed=0,1,2,3" in own.advice) == there
        assert "nested" in own.advice
        assert "128" not in own.sentence.replace(f"of {size}", "")
