"""What a report prints: one screen, whatever the number of groups; reasons once; verdicts where there are any."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from ntklens.analysis.claims import Claim
from ntklens.analysis.diagnostics import NOTE, WARNING, Diagnosis
from ntklens.analysis.groups import find_groups
from ntklens.analysis.study import analyse
from ntklens.analysis.summary import Kind, Sentence
from ntklens.recording.observables import list_observables, measure_observables
from ntklens.report.console import make_console
from ntklens.report.terminal import print_summary
from ntklens.stats.powerlaw import NOTHING, SAME, Law, fit_law
from ntklens.stats.samples import summarise
from ntklens.stats.transition import Transition
from studies import make_data

REASON = "needs 4 points along the axis, there are 2; 3 of 5 are unresolved (minimum before update 30)"
CLAIM = Claim("χ is constant", "model.width", "", "paper", NOTHING, "outside", "", "Someone 2030")


@pytest.fixture(scope="module")
def study():
    data = make_data({"model.width": [8, 16, 32, 64, 128], "model.depth": [1, 2, 3]}, seeds=2, records=6, modes=2)
    observables, x = measure_observables(data), np.array([8.0, 16, 32, 64, 128])
    groups = [group for group in find_groups(observables) if group.axis == "model.width"]
    rng, laws, transitions = np.random.default_rng(0), [], []
    names = [name for name in list_observables("summarised") if name in observables]
    for number, group in enumerate(groups):
        for name in names:
            samples = summarise(x, (100 + x * (name == "initial_trace"))[:, None] * (1 + 0.01 * rng.random((5, 3))))
            law = fit_law(samples, name, group.axis, group.label, forms=("power", "affine"))
            if number and name == "minimum_loss":
                law = Law(name, group.axis, group.label, {}, None, {"power": REASON}, f"no fit: {REASON}")
            laws.append(law)
        for name in ("trace_ratio", "minimum_effective_rank"):
            transitions.append(
                Transition(name, group.axis, group.label, NOTHING, False, "", 0.5, NOTHING, NOTHING, 0.5, "none")
            )
    return SimpleNamespace(
        data=data, observables=observables, groups=groups, laws=laws, transitions=transitions, claims=[CLAIM],
        summary=[Sentence(f"Of kind {kind}.", kind) for kind in Kind],
        diagnoses=[Diagnosis(WARNING, "Something is amiss " * 8, "Do this."), Diagnosis(NOTE, "Known.", "")],
    )  # fmt: skip


def read(study, capsys):
    print_summary(study, make_console())
    return capsys.readouterr().out


def test_three_groups_take_one_screen_of_80_columns_also_in_a_pipe(study, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = read(study, capsys).splitlines()
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    assert text.count(REASON) == 1
    assert f"No law of L_min at depth 2; depth 3: {REASON}." in text
    assert "No crossover of β, Γ_min within the sweep." in text
    assert "1 note" in text
    (row,) = [line for line in lines if "Tr Θ_0" in line and "│" in line]
    assert row.count("~") == 3  # affine


def test_verdicts_are_printed_where_there_is_one(study, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert "Of kind claims." not in read(study, capsys)
    decided = SimpleNamespace(**vars(study) | {"claims": [CLAIM, replace(CLAIM, verdict="supported")]})
    assert "Of kind claims." in read(decided, capsys)


def test_sentences_are_printed_by_what_they_are_of(study, capsys):
    """Laws have tables of their own: of the other kinds every sentence is printed, whatever its words."""
    text = read(study, capsys)
    printed = {kind for kind in Kind if f"Of kind {kind}." in text}
    assert printed == {Kind.SWEEP, Kind.JOINT}


def test_what_a_diagnosis_holds_is_printed_once():
    """That training ended too early is a sentence of the summary, and a warning with the runs: a terminal has one."""
    data = make_data({"model.width": [8, 16]}, seeds=2, records=6, modes=2)
    data["minimum_step"][:] = data.step.isel(record=-1)
    study = analyse(data)
    assert any(sentence.startswith("In 4 of 4 seeds training ended") for sentence in study.summary)
    console = make_console()
    with console.capture() as capture:
        print_summary(study, console)
    assert capture.get().count("training ended before the test loss rose") == 1


def test_a_mean_that_changes_its_sign_has_no_law_in_any_line():
    data = make_data({"model.width": [16, 32, 64, 128]}, seeds=2, records=12, modes=2)
    for sign, words in ((1, "There is no law of β."), (-1, "A law of β whose means are negative is that of −β.")):
        for run in range(2 if sign > 0 else 4):
            data["minimum_trace"][run] = (0.9 - 0.2 * run) * data.trace.isel(record=0)[run]
        study = analyse(data)
        lines = [line for line in study.summary if "the mean is not of one sign along the axis" in line]
        assert [line.startswith("No law of ΔTr, β") for line in lines] == [True] * (sign > 0)
        (shrunk,) = [one for one in study.diagnoses if "β is negative" in one.sentence]
        assert shrunk.advice.startswith(words)


def test_without_a_width_lines_of_a_pipe_are_whole(study, capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert any(line.startswith("warning  Something is amiss") and "Do this." in line
               for line in read(study, capsys).splitlines())  # fmt: skip


def test_many_groups_take_two_tables_and_a_line_that_says_where_the_others_are(study, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    labels = {f"model.depth={depth}": study.groups[0].label for depth in range(1, 12)}
    groups = [replace(study.groups[0], label=label) for label in labels]
    laws = [replace(law, group=new) for new, old in labels.items() for law in study.laws if law.group == old]
    text = read(SimpleNamespace(**vars(study) | {"groups": groups, "laws": laws}), capsys)
    assert text.count("┏") == 2
    assert "depth 8 ┃" in text
    assert "depth 9 ┃" not in text
    assert "3 more groups: in the page's table of fits, and in fits.csv." in text


def test_what_is_the_same_at_every_value_takes_one_line(study, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    same = [
        Law(law.observable, law.axis, law.group, {}, None, {"power": SAME}, SAME, is_same=True)
        if law.observable == "initial_trace" else law for law in study.laws
    ]  # fmt: skip
    text = " ".join(read(SimpleNamespace(**vars(study) | {"laws": same}), capsys).split())
    assert "Tr Θ_0 at depth 1; depth 2; depth 3: the same at every value of the width m." in text


def test_the_zero_of_an_axis_takes_one_line(study, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    groups = [replace(group, zeros=(f"run-{number}",)) for number, group in enumerate(study.groups)]
    text = " ".join(read(SimpleNamespace(**vars(study) | {"groups": groups}), capsys).split())
    assert text.count("model.width=0 (3 configurations) has no place on a logarithmic axis") == 1
