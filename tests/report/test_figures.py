"""The figure of a run."""

import numpy as np
import pytest
import xarray as xr

from ntklens.report.figures import RunFigure, draw_run


def make_trajectory(seed, scale=1.0, records=9):
    rng = np.random.default_rng(seed)
    epoch = np.concatenate([[0.0], np.geomspace(1, 100, records - 1)])
    values = {
        "train_loss": np.exp(-epoch / 50),
        "test_loss": 1 + 0.1 * rng.random(records),
        "trace": scale * (1 + epoch),
    }
    values["effective_rank"] = np.where(np.arange(records) % 2, np.nan, 5.0 + rng.random(records))
    variables = {name: ("record", column.astype(np.float32)) for name, column in values.items()}
    attrs = {"state": "done"}
    return xr.Dataset({**variables, "epoch": ("record", epoch), "minimum_epoch": epoch[4]}, attrs=attrs)


def test_drawn_after_another_run_a_figure_is_what_it_is_alone(tmp_path):
    figure = RunFigure()
    figure.draw([make_trajectory(0, 1e6), make_trajectory(1, 2e6)], "another", tmp_path / "again.png")
    figure.draw([make_trajectory(2)], "this", tmp_path / "again.png")
    draw_run([make_trajectory(2)], "this", tmp_path / "alone.png")
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "alone.png").read_bytes()


def test_the_band_is_within_the_panel(tmp_path):
    figure = RunFigure()
    figure.draw([make_trajectory(0, 1.0), make_trajectory(0, 3.0)], "two", tmp_path / "two.png")
    low, high = figure.panels[1].get_ylim()
    assert low < 1.0
    assert high > 3.0 * 101 * 0.9


@pytest.mark.parametrize("state", ["done", "diverged"])
def test_diverged_seeds_are_drawn_only_alone(tmp_path, state):
    other = make_trajectory(0, 1e9)
    other.attrs["state"] = state
    figure = RunFigure()
    figure.draw([make_trajectory(1), other], "", tmp_path / "f.png")
    assert (figure.panels[1].get_ylim()[1] > 1e6) == (state == "done")
