"""Tables of the terminal are read back from what is rendered: at no width is a number cut, or missing."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from omegaconf import OmegaConf
from rich.console import Console

from ntklens.recording.observables import OBSERVABLES
from ntklens.report import table
from ntklens.report.fitted import Column, FittedTable, break_heading
from ntklens.report.sweep_table import (
    SWEEP_COLUMNS,
    build_plan_table,
    build_status_table,
    build_sweep_table,
    describe_status,
    describe_sweep_minima,
    format_mean,
    format_progress,
    format_value,
    read_labels,
)
from ntklens.store.units import Unit, find_units, write_unfinished
from ntklens.sweep.plan import Calibration, Configuration, Plan, Slice, Task
from ntklens.sweep.status import RunStatus, SweepStatus

WIDTHS = (60, 80, 100, 120, 150, 200)
AXES = {
    "one": {"model.width": [8, 28124, 131072]},
    "rates": {"model.width": [8, 28124], "optimizer.learning_rate": [1.234e-05, 0.001]},
    "many": {
        "model.width": [16, 28124], "model.depth": [2, 3], "dataset.train_size": [64, 60000],
        "optimizer.learning_rate": [1.234e-05], "training.batch_size": [None], "dataset.data_seed": [123456],
    },
    "long": {"model.a_rather_long_name_of_a_parameter": [1.23456789e-05], "dataset": ["a_folder_with_a_long_name/x"]},
    "none": {},
}  # fmt: skip
STATES = ("done", "diverged", "running", "failed", "interrupted", "queued")
MANY = [Unit(seed, STATES[seed % 6], {}) for seed in range(28124)]


def make_configurations(axes, seeds=20):
    rng = np.random.default_rng(0)
    rows = [{}]
    for name, values in axes.items():
        rows = [row | {name: value} for row in rows for value in values]
    scales = 10.0 ** rng.uniform(-7, 9, len(SWEEP_COLUMNS))
    cfg = OmegaConf.create({"retry": False, "replace": False})
    made = []
    for number, row in enumerate(rows):
        units = [
            Unit(seed, "done", {"observables": dict(zip(SWEEP_COLUMNS, map(float, values), strict=True))})
            for seed, values in enumerate(scales * rng.normal(2.8124, 0.05, (seeds, len(scales))))
        ]
        run = Path("multirun/wide") / f"digits-60000-mlp-w28124-d12-momentum-1.234e-05-498b61c{number}"
        made.append(Configuration(cfg, run, f"k{number}", row, list(range(seeds)), [[]], units))
    return made


def render(one, width):
    console = Console(width=width, file=io.StringIO(), soft_wrap=True, markup=False, highlight=False)
    console.print(one)
    text = console.file.getvalue()
    assert "…" not in text
    return text


def read_rows(text):
    """Return the cells of the rows below the headings; of a list of rows, its lines' ends."""
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if line[:1] == "│"]
    return rows or [[re.split(r"  +", line.strip())[-1]] for line in text.splitlines()]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("axes", AXES.values(), ids=AXES)
def test_no_number_of_a_sweep_is_cut(axes, width):
    configurations = make_configurations(axes)
    text = render(build_sweep_table(configurations), width)
    assert max(map(len, text.splitlines())) <= max(width, 100 if axes == AXES["long"] else 0)
    rows = read_rows(text)
    cells = {cell for row in rows for cell in row}
    for configuration in configurations:
        for value in configuration.axes.values():
            assert format_value(value) in cells
        for name in SWEEP_COLUMNS:
            values = [unit.details["observables"][name] for unit in configuration.units]
            expected = {format_mean(values), format_mean(values, compact=True)}
            (found,) = expected & cells
            # beside the swept values that it belongs to
            if rows[0] != rows[0][:1]:
                own = [format_value(value) for value in configuration.axes.values()] or [configuration.run.name]
                assert any(row[: len(own)] == own and found in row for row in rows)
    for name in SWEEP_COLUMNS:
        assert OBSERVABLES[name].symbol in text


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("axes", AXES.values(), ids=AXES)
def test_no_number_of_a_plan_or_a_state_is_cut(axes, width):
    configurations = make_configurations(axes)
    for configuration in configurations:
        configuration.units = MANY
    tasks = [Task([Slice(k, list(range(28124)), 123456.0)], 123456.0, 1234 << 30) for k in range(len(configurations))]
    plan = Plan(Path("multirun/wide"), "", tuple(configurations), tuple(tasks), Calibration(1.0, 3.0, 0), 2)
    runs = [RunStatus(c.run.name, c.axes, MANY) for c in configurations]
    status = SweepStatus(Path("multirun/wide"), "", runs, 0)
    for shown, numbers in (
        (build_plan_table(plan), ["28124", "34.3 h", "1,234 GiB"]),
        (build_status_table(status), ["4688", "4687", "33%"]),
    ):
        text = render(shown, width)
        cells = [cell for row in read_rows(text) for cell in row]
        for configuration in configurations:
            for value in configuration.axes.values():
                assert format_value(value) in cells
        for number in numbers:
            assert cells.count(number) >= len(configurations)


@pytest.mark.parametrize("width", WIDTHS[1:])
def test_no_number_of_a_run_is_cut(monkeypatch, width):
    rng = np.random.default_rng(0)
    scales = 10.0 ** rng.uniform(-7, 9, len(OBSERVABLES))
    seeds = [dict(zip(OBSERVABLES, scales * (1 + 0.03 * rng.random(len(scales))), strict=True)) for _ in range(20)]
    monkeypatch.setattr(table, "compute_observables", lambda seed: seeds[seed.attrs["seed"]])
    text = render(
        table.build_summary_table([xr.Dataset(attrs={"state": "done", "seed": seed}) for seed in range(20)]), width
    )
    for name, one in OBSERVABLES.items():
        assert not one.main or format_mean([seed[name] for seed in seeds]) in text


def make_unit(seed, step, last):
    return Unit(seed, "done", {"observables": {"minimum_step": step}, "at_last_record": last})


def test_minima_that_decide_nothing_are_counted_below_the_table():
    units = [make_unit(0, 500, False), make_unit(1, 500, True), make_unit(2, 20, True), make_unit(3, 20, False)]
    (configuration,) = make_configurations({"model.width": [64]})[:1]
    configuration.units = [*units, Unit(4, "failed", {}), Unit(5, "done", {"observables": {"minimum_step": 3}})]
    assert describe_sweep_minima([configuration]) == [
        "in 2 of 4 seeds the minimum is the last record or next to it: raise training.epochs",
        "in 1 of 4 seeds the minimum comes before update 30 (unresolved): lower optimizer.learning_rate, or type "
        "protocol=resolved",
    ]
    (chosen,) = make_configurations({"model.width": [64]})[:1]
    chosen.units = units
    chosen.cfg.optimizer = {"learning_rate": None}
    divided = "raise protocol.step_divisor"
    assert describe_sweep_minima([chosen])[1].endswith(f"(unresolved): {divided}")
    both = describe_sweep_minima([configuration, chosen])[1]
    assert both.startswith("in 2 of 8 seeds")
    assert both.endswith(f"or type protocol=resolved; where a rule chooses the step {divided}")
    configuration.units = units[:1]
    assert describe_sweep_minima([configuration]) == []


def test_a_status_is_sorted_by_the_swept_values_whatever_is_complete():
    ready, waiting = [Unit(0, "done", {})], [Unit(0, "queued", {})]
    runs = [
        RunStatus(str(width), {"model.width": width}, ready if width < 100 else waiting) for width in (128, 16, 64, 32)
    ]
    text = render(build_status_table(SweepStatus(Path("multirun/wide"), "", runs, 0)), 100)
    assert all(f" *-{width} " in text for width in (16, 32, 64, 128))  # the end of each folder's name
    assert [row[0] for row in read_rows(text)] == ["16", "32", "64", "128"]
    one = SweepStatus(Path("multirun/wide"), "", runs[:1], 0)
    assert describe_status(one)[0] == "1 queued of 1 seed"
    assert "wide: 1 configuration\n" in render(build_status_table(one), 100)


def test_runs_of_loops_of_ones_own_stand_in_a_status_by_what_they_differ_in():
    names = [f"own-width={width}-rate=1e-05-loss=mse-{width:08x}" for width in (8, 128)]
    status = SweepStatus(Path("multirun/mine"), "", [RunStatus(name, {}, [Unit(0, "done", {})]) for name in names], 0)
    text = render(build_status_table(status), 80)
    assert [row[0] for row in read_rows(text)] == ["8", "128"]
    assert all(f"*-{name[-8:]}" in text for name in names)
    assert "own-" not in text
    twice = [f"own-width={width}-width=4-1a2b3c4d" for width in (8, 16)]  # of model.width and teacher.width
    for others in (names[:1], [*names, "mnist-100-mlp-w8-1a2b3c4d"], ["own-" + 96 * "a" + "-1a2b3c4d"] * 2, twice):
        assert read_labels(others) == [{}] * len(others)


@pytest.mark.parametrize("state", ["running", "failed"])
def test_the_progress_of_a_killed_seed_is_that_of_its_checkpoint(tmp_path, state):
    """A heartbeat may be older than the checkpoint, and who notes that a worker was killed knows neither."""
    seed = tmp_path / "run" / "seed=0"
    write_unfinished(tmp_path / "run", [0], "running", step=0, steps=100)
    (seed / "checkpoint").mkdir()
    for step in (10, 40):
        (seed / "checkpoint" / f"{step}.json").write_text("{}")
    if state == "failed":
        write_unfinished(tmp_path / "run", [0], state, error="the process that computed it ended by SIGKILL")
    (unit,) = find_units(tmp_path / "run", [0])
    assert unit.state == ("failed" if state == "failed" else "interrupted")
    assert format_progress([unit]) == "40%"


def test_headings_are_broken_behind_dots():
    assert break_heading("optimizer.learning_rate", 9) == "optimizer.\nlearning_\nrate"
    assert break_heading("optimizer.learning_rate", 14) == "optimizer.\nlearning_rate"
    assert break_heading("seeds", 2) == "seeds"


def test_few_columns_need_one_table():
    columns = [Column("model.width", ["8"], key=True), Column("loss", [("0.5 ± 0.1", "0.5(1)")])]
    assert render(FittedTable("title", columns), 80).count("┏") == 1
    assert "0.5 ± 0.1" in render(FittedTable("title", columns), 80)
    assert "0.5(1)" in render(FittedTable("title", columns), 20)
    assert render(FittedTable("title", columns), 10).count("┏") == 0


@pytest.mark.parametrize(
    "second", [{"protocol.arm": ["paper", "resolved"]}, {"optimizer.learning_rate": [0.001, 3e-4]}]
)
def test_a_sweep_over_two_axes_takes_two_tables_of_80_columns(second):
    """Means and errors as digits have them; written to the point, they took three tables."""
    means = dict(zip(SWEEP_COLUMNS, (0.404, 16499, 698357, 114, -197810, 24.9, 25.0), strict=True))
    spread = dict(zip(SWEEP_COLUMNS, (0.023, 1628, 88416, 17, 24027, 2.0, 1.5), strict=True))
    configurations = make_configurations({"dataset.train_size": [100, 8192], **second}, seeds=2)
    for unit in (unit for configuration in configurations for unit in configuration.units):
        side = 2 * unit.seed - 1
        unit.details["observables"] = {name: means[name] + side * spread[name] for name in SWEEP_COLUMNS}
    assert render(build_sweep_table(configurations), 80).count("┏") == 2


@pytest.mark.parametrize(
    ("values", "wide", "narrow"),
    [
        ([28124.0], "28124", "28124"),
        ([28093.0, 28155.0], "28,124 ± 31", "28124(31)"),
        ([1.2e-5, 1.268e-5], "0.00001234 ± 0.00000034", "0.00001234(34)"),
        ([1.2e-9, 1.268e-9], "(1.234 ± 0.034)e-09", "1.234(34)e-9"),
        ([2.0e12, 2.1e12], "(2.050 ± 0.050)e+12", "2.050(50)e12"),
        ([654000.0, 742700.0], "698,350 ± 44350", "6.98(44)e5"),
        ([0.25, 0.25, 0.25 + 1e-16], "0.25 ± 0", "0.25 ± 0"),
        ([], "–", "–"),
    ],
)
def test_means_are_written_with_two_digits_of_their_error(values, wide, narrow):
    assert format_mean(values) == wide
    assert format_mean(values, compact=True) == narrow
