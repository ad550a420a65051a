"""The report as a whole: files, page, and studies that have little to show."""

import csv
import json
import re
import warnings
from collections import Counter

import numpy as np
import pytest

from laws import configure, make_sweep
from ntklens.analysis.study import analyse
from ntklens.analysis.summary import Kind, Sentence
from ntklens.report.chart import list_rows
from ntklens.report.charts import build_charts
from ntklens.report.draw import draw_chart
from ntklens.report.glossary import link_terms
from ntklens.report.page import build_page, describe_incomplete, describe_work, split_summary
from ntklens.report.write import MOST_VARIANTS, select_drawn, write_report
from studies import make_study

HOSTILE = "<script>alert(1)</script>\"'&"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("multirun") / "width" / "report"
    (folder.parent).mkdir()
    plan = {"command": "python -m ntklens.run -m scaling=width", "time": "2026-01-02T03:04:05+00:00"}
    (folder.parent / "plan.json").write_text(json.dumps(plan))
    study = make_study(names=["width"], states={"done": 15, "failed": 2, "missing": 1})
    return study, write_report(study, folder)


@pytest.fixture(scope="module")
def short_report(tmp_path_factory):
    """Of a single run, which has fewer figures."""
    study = make_study({}, names=["one"])
    return study, write_report(study, tmp_path_factory.mktemp("multirun") / "one" / "report")


def drop_libraries(html):
    """The page without plotly's script, which holds addresses that it never asks for here."""
    return re.sub(r"<script>/\*\*.*?</script>", "", html, flags=re.DOTALL)


def test_a_report_is_one_page_with_tables_and_figures_beside_it(report):
    _, page = report
    assert {p.name for p in page.parent.iterdir()} == {
        "report.html", "observables.csv", "fits.csv", "claims.csv", "figures",
    }  # fmt: skip
    stems = {p.stem for p in (page.parent / "figures").iterdir()}
    families = (
        "laws",
        "slopes",
        "trajectories",
        "adaptation",
        "trace-law",
        "ratio-split",
        "spectra",
        "layers",
        "layer-order",
    )
    assert stems == {f"{name}-model.width" for name in families}
    assert len(list((page.parent / "figures").iterdir())) == 4 * len(stems)
    assert [p.name for p in page.parent.parent.iterdir() if p.name.startswith(".")] == []


def test_the_page_has_every_part_and_says_what_is_missing(report):
    _, page = report
    html = page.read_text()
    for part in ("summary", "claims", "figures", "fits", "diagnostics", "configuration", "provenance"):
        assert f'<section id="{part}">' in html
    assert "This sweep is not complete: of 18 seeds 2 failed, 1 missing." in html
    assert "are outside what the paper states" in html
    assert "python -m ntklens.run -m scaling=width" in html
    assert "needs 6 points along the axis" in html
    assert "jax: 0.11.2" in html


def read_claims(study):
    html = build_page(study, [], {}, [])
    return html[html.index('<section id="claims">') : html.index('<section id="figures">')]


def test_statements_without_a_verdict_are_said_once():
    """Of digits no statement is made: one sentence, and the numbers; a row for each thing that is shown."""
    own = read_claims(analyse(make_sweep(**configure("digits")), ["digits"]))
    assert own.count("All 9 statements are outside what the paper states (dataset=digits)") == 1
    assert "– outside" not in own
    assert own.count("departs from the paper in</span> dataset=digits<") == 1
    assert own.count("no verdict on the paper") == 0
    few = read_claims(analyse(make_sweep(widths=np.array([16.0, 64.0]), **configure("digits")), ["digits"]))
    shown = re.findall(r'<th scope="row" class="claim">(.*?)</th>', few)
    assert len(shown) < 9
    assert any("; " in row for row in shown)
    assert len(re.findall("needs 4 points along the axis, there are 2", few)) == 1


def test_a_departure_from_the_paper_is_named():
    own = read_claims(analyse(make_sweep(**configure("mnist", training__loss="mse")), ["mnist"]))
    assert re.search("departs from the paper in</span> training.loss=mse", own)
    assert own.count("of 32 … 8192 was swept") == 1
    assert own.count("; that part") == len(re.findall("– outside", own))


def test_the_page_asks_the_network_for_nothing(report):
    _, page = report
    html = drop_libraries(page.read_text())
    assert len(html) < 400_000
    for address in re.findall(r"""(?:src|href|action|data)\s*=\s*["']?([^"'\s>]+)""", html):
        assert not re.match(r"(https?:)?//", address), address
    assert "@import" not in html
    assert "url(" not in html


def test_every_file_that_the_page_names_is_there(report):
    _, page = report
    links = re.findall(r'<a href="([^"#]+)"', drop_libraries(page.read_text()))
    assert len(links) > 20
    assert all((page.parent / link).is_file() for link in links)


def test_a_second_report_takes_the_place_of_the_first(short_report):
    study, page = short_report
    (page.parent / "figures" / "old.png").write_text("of another sweep")
    assert write_report(study, page.parent) == page
    assert not (page.parent / "figures" / "old.png").exists()


def test_a_report_that_fails_leaves_the_old_one(short_report, monkeypatch):
    study, page = short_report
    before = page.read_bytes()
    monkeypatch.setattr("ntklens.report.write.build_page", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(study, page.parent)
    assert page.read_bytes() == before
    assert [p.name for p in page.parent.parent.iterdir() if p.name.startswith(".")] == []


def test_the_csv_beside_a_figure_holds_what_is_drawn(tmp_path):
    chart = next(c for c in build_charts(make_study()) if c.family == "trajectories")
    draw_chart(chart, tmp_path)
    with (tmp_path / f"{chart.stem}.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(list_rows(chart.select_static()))
    (loss,) = (panel for panel in chart.panels if panel.name == "loss")
    curve = next(s for s in loss.series if s.role == "mean" and s.detail == "test")
    written = [
        r for r in rows if (r["panel"], r["series"], r["role"], r["detail"]) == ("loss", curve.key, "mean", "test")
    ]
    np.testing.assert_allclose([float(r["x"]) for r in written], curve.x)
    np.testing.assert_allclose([float(r["y"]) for r in written], curve.y)
    assert not any(r["role"] == "seed" for r in rows)


def test_the_line_of_the_adaptation_rate_has_its_slope():
    study = make_study()
    chart = next(c for c in build_charts(study) if c.family == "adaptation")
    (panel,) = chart.panels
    line = next(s for s in panel.series if s.role == "fit" and s.key == "64")
    slopes = np.diff(line.y) / np.diff(np.log(line.x))
    np.testing.assert_allclose(slopes, float(study.observables.adaptation_rate[2].mean()), rtol=1e-6)


def test_negative_rates_are_drawn_with_their_sign_turned():
    chart = next(c for c in build_charts(make_study()) if c.family == "laws")
    panel = next(p for p in chart.panels if p.name == "adaptation_rate")
    assert panel.y_label == "−χ"
    assert panel.y_log
    assert all((s.y[np.isfinite(s.y)] > 0).all() for s in panel.series)


def test_a_family_in_two_pieces_loses_no_chart():
    study = make_study({"model.width": [8, 16, 32, 64], "model.depth": [1, 2, 3]}, records=12)
    charts = build_charts(study)
    mixed = [charts[-1], *charts[:-1:2], *charts[1:-1:2]]
    page = json.loads(re.search(r'id="data-families">(.*?)</script>', build_page(study, mixed, {}, []), re.DOTALL)[1])
    assert Counter(chart.family for chart in mixed) == {name: len(one["variants"]) for name, one in page.items()}


def test_sentences_stand_in_parts_by_what_they_are_of():
    """Whatever they say: a law may end in a colon, and a joint law is of no group."""
    kinds = (Kind.SWEEP, Kind.CLAIMS, Kind.HEAD, Kind.LAW, Kind.LAW, Kind.HEAD, Kind.LAW, Kind.JOINT)
    parts = split_summary([Sentence(f"{number}:", kind) for number, kind in enumerate(kinds)])
    assert [(part["head"], part["sentences"]) for part in parts] == [
        ("", ["0:", "1:"]), ("2:", ["3:", "4:"]), ("5:", ["6:"]), ("", ["7:"]),
    ]  # fmt: skip


def test_hostile_names_stay_text(tmp_path):
    study = make_study(
        {"model.activation": ["relu", HOSTILE], "model.width": [16, 32]}, names=[HOSTILE], summary=[Sentence(HOSTILE)]
    )
    charts = build_charts(study)
    html = drop_libraries(build_page(study, charts, {}, [{"command": HOSTILE}]))
    assert "<script>alert" not in html
    assert html.count("</script>") == html.count("<script")
    for chart in select_drawn(charts)[:2]:
        assert all(path.parent == tmp_path for path in draw_chart(chart, tmp_path))


@pytest.mark.slow
def test_many_groups_are_on_the_page_but_few_are_drawn():
    charts = build_charts(make_study({"model.width": [8, 16, 32], "model.depth": list(range(1, 9))}, records=12))
    assert sum(chart.family == "trajectories" for chart in charts) == 11
    drawn = [chart for chart in select_drawn(charts) if chart.family == "trajectories"]
    assert len(drawn) == MOST_VARIANTS
    assert any(chart.family == "surfaces" for chart in charts)


STRANGE = {
    "one run": {"axes": {}},
    "one seed": {"seeds": 1},
    "one run, one seed": {"axes": {}, "seeds": 1},
    "one value": {"axes": {"model.width": [16]}},
    "no spectra": {"rank": False},
    "categories": {"axes": {"model.activation": ["relu", "tanh", "gelu"]}},
    "forty values": {"axes": {"model.width": list(range(8, 328, 8))}, "seeds": 2, "records": 10},
    "all diverged": {"diverged": [(run, seed) for run in range(5) for seed in range(3)]},
    "nothing there": {"missing": [(run, seed) for run in range(5) for seed in range(3)]},
    "a run is missing": {"missing": [(2, seed) for seed in range(3)], "diverged": [(0, 0)]},
    "two axes": {"axes": {"model.width": [8, 16, 32], "dataset.train_size": [64, 128]}},
}


@pytest.mark.slow
@pytest.mark.parametrize("options", STRANGE.values(), ids=STRANGE.keys())
def test_whatever_a_study_holds_is_reported_without_a_warning(tmp_path, options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = write_report(make_study(**options), tmp_path / "sweep" / "report")
    html = page.read_text()
    data = re.search(r'id="data-families">(.*?)</script>', html, re.DOTALL)
    families = json.loads(data[1])
    if options != STRANGE["nothing there"]:
        assert "trajectories" in families
    else:
        assert families == {}
        assert "There is nothing to draw" in html


def test_single_seeds_are_capped_and_the_page_says_so():
    study = make_study({"model.width": [16, 32]}, seeds=300, records=8, modes=4)
    chart = next(c for c in build_charts(study) if c.family == "trajectories")
    seeds = [s for s in chart.panels[1].series if s.role == "seed"]
    assert sum(len(np.unique(s.seeds)) for s in seeds) == 400
    assert "Of single seeds 400 of 600 are drawn" in chart.caption


def test_a_complete_sweep_has_no_banner():
    assert describe_incomplete({"done": 3, "diverged": 1, "failed": 0}) == ""


def test_every_symbol_leads_to_its_line_in_the_glossary(report):
    html = drop_libraries(report[1].read_text())
    used = set(re.findall(r'href="#term-(\w+)"', html))
    there = set(re.findall(r'<dt id="term-(\w+)"', html))
    assert {"loss", "trace", "ratio", "rate", "rank", "change", "exponent"} <= used <= there
    assert '<a class="term" href="#term-rank">Γ<sub>min</sub></a>' in html
    claims = re.search(r'<section id="claims">.*?</section>', html, re.DOTALL)[0]
    assert '<a class="term" href="#term-ratio">β</a> falls with width' in claims


def test_a_link_stands_in_text_alone():
    assert link_terms('<a href="β">β</a> <code>χ</code> β') == (
        '<a href="β">β</a> <code>χ</code> <a class="term" href="#term-ratio">β</a>'
    )
    assert link_terms("αβ ΔTr") == "".join(
        f'<a class="term" href="#term-{name}">{text}</a>{space}'
        for name, text, space in (("exponent", "α", ""), ("ratio", "β", " "), ("change", "ΔTr", ""))
    )


def test_the_page_says_what_was_done():
    study = make_study()
    configs = [json.dumps({**configure(size=77), "model": {**configure()["model"], "width": w}}) for w in (16, 32, 64)]
    study.data["config"] = ("run", np.array([*configs, configs[0], configs[1]], object))
    study.data["N"], study.data["C"] = ((("run", "seed"), np.full(study.data.state.shape, float(n))) for n in (48, 7))
    text = describe_work(study, [{"time": "2026-01-02T03:04:05+00:00"}])
    for words in (
        "D = 77", "Adam, η = 0.0001", "cross-entropy, 500 epochs", "N = 48", "C = 7", "computed on cpu, float32",
        "2026-01-02", "Seeds done of each: 3", "depth 2", "standard (LeCun normal)", "width 16, 32, 64",
    ):  # fmt: skip
        assert words in text, words
    assert "random signs" not in text
    assert "N probe inputs, held out from training, and C outputs" in text


def test_the_page_says_of_a_probe_only_what_is_known():
    """That of a loop of one's own, or of a loader of one's own, may be anything."""
    study = make_study()
    study.data["N"] = (("run", "seed"), np.full(study.data.state.shape, 48.0))
    facts = {**json.loads(study.data.attrs.get("provenance", "{}")), "data": [{"test_size": 1000}]}
    study.data.attrs["provenance"] = json.dumps(facts)
    for config, known in ((configure(), True), ({"model": {"width": 8}}, False)):
        study.data["config"] = ("run", np.array([json.dumps(config)] * study.data.sizes["run"], object))
        text = describe_work(study, [])
        assert ("The minimum is chosen on one half of 1000 test samples" in text) == known
        assert ("held out" in text) == known
        assert "N = 48" in text


def test_the_page_says_that_traces_are_estimated():
    study = make_study()
    config = json.dumps({**configure(), "ntk": {"trace": "estimate", "trace_draws": 8}})
    study.data["config"] = ("run", np.array([config] * study.data.sizes["run"], object))
    assert "Traces are estimated from 8 draws of random signs." in describe_work(study, [])


def test_no_group_is_hidden_and_four_stand_side_by_side():
    kinds = ["relu", "tanh", "gelu", "silu", "erf"]
    study = make_study({"model.width": [8, 16, 32, 64], "model.activation": kinds}, seeds=2, records=12)
    html = drop_libraries(build_page(study, [], {}, []))
    assert "more sentences" not in html
    claims = re.search(r'<section id="claims">.*?</section>', html, re.DOTALL)[0]
    heads = re.findall(r"<thead>(.*?)</thead>", claims, re.DOTALL)
    assert [head.count("<th") - 1 for head in heads] == [4, 1]
    summary = re.search(r'<section id="summary">.*?</section>', html, re.DOTALL)[0]
    assert all(f"at model.activation={kind} (4 values" in summary for kind in kinds)
    assert all(f">{kind}</b>" in claims for kind in kinds)
    for row in re.findall(r"<tr><th scope=.row.*?</tr>", claims, re.DOTALL):
        assert row.count("<td") in (4, 1)
    assert "what would decide" in claims


def test_forms_without_a_fit_are_no_errors(report):
    html = drop_libraries(report[1].read_text())
    assert "refused" not in html
    assert "forms could not be fitted, mostly for too few points" in html
    assert "misfit" not in html
