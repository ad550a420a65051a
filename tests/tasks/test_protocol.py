"""Both arms in one line: planned, run, shown."""

import csv
import json

import pytest

from commands import TOY, call_ntklens

SMALL = [word for word in TOY if "width" not in word and "ensemble" not in word]
LINE = ("-m", *SMALL, "model.width=4,6", "ensemble=1", "tracking=none", "launch.workers=1")
BOTH = (*LINE, "protocol=paper,resolved")


@pytest.mark.slow
def test_both_arms_in_one_line(tmp_path):
    plans = [("task=plan", "task.format=json", *line, "name=arms") for line in (BOTH, LINE)]
    plan, given = (json.loads(call_ntklens(*words, cwd=tmp_path).stdout) for words in plans)
    seconds = [sum(task["seconds"] for task in one["tasks"]) for one in (plan, given)]
    assert seconds[0] > 2 * seconds[1]  # as many runs twice, and two pilots
    table = call_ntklens("task=plan", *BOTH, "name=arms", cwd=tmp_path).stdout
    assert table.count("pilot") == 2
    assert table.count("0.001") == 2  # the given step beside

    result = call_ntklens(*BOTH, "name=arms", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    steps = {
        path.parent.name: json.loads(path.read_text())["learning_rate"]
        for path in (tmp_path / "multirun" / "arms").glob("*/step.json")
    }
    assert len(steps) == 2
    assert all("adam-resolved" in name for name in steps)
    status = json.loads(call_ntklens("task=status", "task.format=json", "name=arms", cwd=tmp_path).stdout)
    assert {run["run"]: run["step"] for run in status["runs"] if run["step"]} == steps
    shown = call_ntklens("task=status", "name=arms", cwd=tmp_path).stdout
    again = call_ntklens("task=plan", *BOTH, "name=arms", cwd=tmp_path).stdout
    assert all(f"{step:.4g}" in text for step in steps.values() for text in (result.stdout, shown, again))
    assert all(text.count("0.001 ") == 2 for text in (result.stdout, again))

    assert call_ntklens("task=report", "name=arms", cwd=tmp_path).returncode == 0
    with (tmp_path / "multirun" / "arms" / "report" / "observables.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["protocol.arm"] for row in rows].count("resolved") == 2
    for row in rows:
        assert float(row["learning_rate"]) == pytest.approx(steps.get(row["run"], 1e-3), rel=1e-6)
        assert row["resolution"] in ("open", "unresolved", "resolved")


@pytest.mark.slow
def test_a_single_run_says_its_step_and_its_plateau(tmp_path):
    result = call_ntklens(*SMALL, "protocol=resolved", "ensemble=1", "tracking=none", "name=one", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    (path,) = (tmp_path / "multirun" / "one").glob("*/step.json")
    stored = json.loads(path.read_text())
    assert f"step     {stored['learning_rate']:.4g} (pilot: {stored['status']}; n1 = " in result.stdout
    assert "plateau  within 1 % of the minimum from update" in result.stdout
