"""`ntklens.train`: the command line's training as a function."""

import pytest

import ntklens
from commands import TOY


def test_a_run_is_trained_and_loaded_like_that_of_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = ntklens.train(TOY)
    printed = capsys.readouterr().out
    assert data.sizes["run"] == 1
    assert data["seed"].values.tolist() == [0, 1]
    assert (data["state"] == "done").all()
    assert 'ntklens.load("multirun/synthetic")' in printed
    words = dict(word.split("=") for word in TOY) | {"ensemble": 1}
    again = ntklens.train({"dataset": words.pop("dataset"), **words, "seed": 1}, quiet=True)  # computes nothing
    assert again["seed"].values.tolist() == [1]
    assert float(again["minimum_trace"].sum()) == float(data["minimum_trace"].sel(seed=1).sum())
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.width=abc"], "model.width=abc: must be an integer"),
        (["model.widht=3"], "model.width"),
        (["model=nothing"], "model"),
        (["training.epochs=-1"], "training.epochs"),
        ({"model": {"width": 0}}, "model.width"),
        (["-m", "scaling=width"], "takes the overrides of one configuration, not -m"),
        (["task=report"], "not task=report"),
        ("model.width=3", "takes a list of overrides"),
    ],
)
def test_bad_input_is_raised_in_one_line_before_anything_is_written(overrides, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ntklens.InputError) as caught:
        ntklens.train(overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr() == ("", "")
