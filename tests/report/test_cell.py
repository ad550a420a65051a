"""What a notebook shows: a study as a table, a report's figure in a cell."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest

import ntklens
from ntklens.analysis.claims import summarise_claims
from ntklens.errors import InputError
from studies import make_study


@pytest.fixture(scope="module")
def study():
    return make_study(names=["width <1>"], states={"done": 15, "failed": 2})


def test_a_study_is_a_short_table(study):
    text = repr(study)
    lines = text.splitlines()
    assert len(text) < 4000
    assert lines[0] == f"Study of width <1>: {study.data.sizes['run']} runs × 3 seeds (15 done, 2 failed)"
    law = study.laws[0]
    row = next(line for line in lines if line.startswith(law.observable))
    assert f"{law.fits[law.preferred].exponent.value:.3f} [" in row
    for line, law in zip(lines[2:], study.laws, strict=False):  # no power law is named that is none
        assert ("  power  " in line) == (law.preferred == "power" and law.course.is_power)
    assert [line for line in lines if "arXiv 2507.05035" in line] == summarise_claims(study.claims)
    assert "outside" not in text  # of runs that the paper states nothing of


def test_a_study_is_a_table_of_html_in_which_names_are_text(study):
    html = study._repr_html_()
    assert html.count("<tr>") == 1 + len(study.laws)
    assert "width &lt;1&gt;" in html
    assert "<1>" not in html


def test_a_study_of_one_run_and_one_of_many_groups_are_short_too():
    single = make_study(axes={})
    assert "no axis was swept" in repr(single)
    many = make_study(axes={"model.width": [16, 32, 64, 128], "model.depth": [1, 2, 3, 4]}, seeds=2)
    assert len(repr(many).splitlines()) < 40
    assert f"{len(many.laws) - 20} more laws" in repr(many)


def test_a_row_without_a_fit_gives_the_reason():
    short = make_study(axes={"model.width": [16, 32, 64]}, names=())
    lines = repr(short).splitlines()
    assert lines[0].startswith("Study: 3 runs")
    row = next(line for line in lines if line.startswith("minimum_loss "))
    assert row.endswith("no fit  needs 4 points along the axis, there are 3")
    assert "<td>no fit</td><td>needs 4 points along the axis, there are 3</td>" in short._repr_html_()


def test_a_study_is_named_by_the_sweeps_that_were_loaded(study):
    loaded = study.data.assign_attrs(sweeps='["w", "d"]')
    assert repr(ntklens.analyse(loaded)).startswith("Study of w + d: 5 runs")
    assert repr(ntklens.analyse(loaded, ["mine"])).startswith("Study of mine: 5 runs")


def test_what_was_not_loaded_is_a_sentence(study):
    for call in (ntklens.analyse, ntklens.measure_observables):
        with pytest.raises(InputError, match=r"here a path: ntklens\.load\('multirun/w'\)$"):
            call("multirun/w")
        with pytest.raises(InputError, match=r"takes what ntklens\.load\(path\) returns; here a list$"):
            call([study.data])
        with pytest.raises(InputError, match=r"no dimension run, which .*; \.isel\(run=\[0\]\) keeps it"):
            call(study.data.isel(run=0))
        with pytest.raises(InputError, match=r"no dimension seed"):
            call(study.data.isel(seed=0))
    for names in (range(5), ["a"] * 5):
        with pytest.raises(InputError, match=r"^data: along run stand the names of the runs, texts that differ"):
            ntklens.analyse(study.data.assign_coords(run=list(names)))
    assert ntklens.analyse(study.data.isel(run=[0], seed=[0])).laws == []


def test_the_readmes_line_draws_against_epoch(study):
    matplotlib.use("agg")
    readme = Path(__file__).parents[2] / "README.md"
    (line,) = (line for line in readme.read_text(encoding="utf-8").splitlines() if ".plot.line(" in line)
    lines = eval(line, {"data": study.data})
    assert len(lines) == study.data.sizes["seed"]
    for seed, drawn in enumerate(lines):
        own = study.data.isel(run=0, seed=seed)
        np.testing.assert_array_equal(drawn.get_xdata(), own.epoch)
        np.testing.assert_array_equal(drawn.get_ydata(), own.trace)
    assert lines[0].axes.get_xlabel().startswith("epoch")


def test_a_figure_is_drawn_by_name(study):
    names = ntklens.draw(study)
    assert "laws-model.width" in names
    figure = ntklens.draw(study, "laws")
    assert isinstance(figure, matplotlib.figure.Figure)
    assert len(figure.axes) > 3
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert len(ntklens.draw(study, "laws-model.width").axes) == len(figure.axes)


def test_wrong_arguments_of_draw_are_a_sentence(study):
    with pytest.raises(InputError, match=r"no figure 'law'; did you mean laws\?"):
        ntklens.draw(study, "law")
    with pytest.raises(InputError, match=r"takes what ntklens\.analyse\(data\) returns; here a ndarray"):
        ntklens.draw(np.zeros(3), "laws")
