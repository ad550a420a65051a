"""Bars keep their numbers at 80 columns, and the time left follows the plan."""

import io
import re
import time
from types import SimpleNamespace

import pytest
from rich.console import Console

from ntklens.jobs import watcher
from ntklens.jobs.watcher import ProgressBar
from ntklens.launch.local.bar import SweepBar, TimeLeft
from ntklens.sweep.plan import Slice, Task
from ntklens.training.schedule import make_geometric_steps

NAME = "fashion_mnist-60000-mlp-w28124-d12-momentum-1.234e-05-498b61c5"


def render(bar, width):
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
    console.print(bar.progress.get_renderable())
    (line,) = console.file.getvalue().rstrip("\n").split("\n")
    assert len(line) <= width
    return line


def make_bar(width, tasks=200, seconds=3600.0):
    pieces = [Task([Slice(k, list(range(20)), seconds)], seconds, 0) for k in range(tasks)]
    cfg = SimpleNamespace(label="model.width=28124")
    plan = SimpleNamespace(name=NAME, tasks=pieces, seconds=tasks * seconds / 2, configurations=[cfg] * tasks)
    return SweepBar(plan, Console(width=width, file=io.StringIO(), force_terminal=True))


@pytest.mark.parametrize("width", [60, 80, 100, 120, 150])
def test_a_bar_keeps_bar_count_and_time_left(width):
    bar = ProgressBar("importing JAX", Console(width=width, file=io.StringIO(), force_terminal=True))
    assert "importing" in render(bar, width)
    bar.begin(123_456, 200, NAME)
    bar.progress.start_task(bar.bar)
    assert "-:--:--" in render(bar, width)
    for _ in range(2):
        bar.advance(6_000, "")
        bar.advance(0, "loss 0.123")
        time.sleep(0.01)
    line = render(bar, width)
    assert "12,000/123,456" in line
    assert re.search(r" ━╸ {14} 12,000", line)  # sixteen columns of bar, a tenth of them done
    assert line.split("123,456")[1].split()[0].count(":") == 2  # h:mm:ss
    assert line.startswith("fashion")
    assert ("updates/s" in line) == (width >= 100)
    line = render(make_bar(width), width)
    assert "0/4000 seeds" in line
    assert re.search(r" {17} 0/4000 seeds", line)
    assert "4 days, 4:00:00" in line


@pytest.mark.parametrize("slower", [0.2, 1.0, 5.0])
def test_the_time_left_follows_the_plan_without_jumps(monkeypatch, slower):
    """Tasks take `slower` times their estimates, after half a minute in which nothing is done."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    bar = make_bar(80, tasks=40, seconds=30.0)  # two side by side: 600 s by the plan
    truth = 30 + 600 * slower
    assert bar.left.find(now[0]) == 600
    shown = [600.0]
    while now[0] < 1000 + truth - 1:
        now[0] += 1.0
        passed = now[0] - 1030
        whole, part = divmod(max(passed, 0.0), 30 * slower)
        if passed > 0 and bar.finished < 40 * whole:
            for slot in (0, 1):
                bar.take({"event": "slice", "slot": slot, "seconds": 30.0, "finished": 20, "busy": 0, "error": ""})
        elif passed > 0 and now[0] % 5 == 0:
            for slot in (0, 1):
                share = part / (30 * slower)
                bar.take({"event": "progress", "slot": slot, "configuration": 0, "share": share, "note": ""})
        shown.append(bar.left.find(now[0]))
        left = 1000 + truth - now[0]
        if left > 20:
            assert shown[-2] / 1.5 < shown[-1] < shown[-2] * 1.5
            if passed > truth / 2:
                assert left / 2.5 < shown[-1] < left * 2.5


def test_the_time_left_is_the_plans_estimate_at_first_and_nothing_at_last():
    left = TimeLeft(100.0)
    assert left.find(5.0) == left.find(60.0) == 100  # nothing is done yet: imports, compilations
    left.note(0.01, 60.0)
    left.note(0.51, 110.0)
    assert left.find(110.0) == 49  # as planned
    assert left.find(160.0) > 49  # slower than planned
    left.note(1.0, 170.0)
    assert left.find(170.0) == 0


def test_the_time_left_counts_records_beside_updates_and_no_compilation(monkeypatch):
    """A record of 0.1 s after each of the first updates, of 1 ms each; a minute of compilation."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    pace, steps = watcher.Pace(9000, 220), make_geometric_steps(9000, 1.035)
    truth = 9000 * 1e-3 + len(steps) * 0.1
    assert len(steps) == pytest.approx(220, rel=0.1)
    done, shown = 0, []
    for index, step in enumerate(steps):
        if step > done:
            now[0] += (step - done) * 1e-3 + (20 if step == 1 else 0)
            pace.advance(int(step) - done, "")
            done = int(step)
        pace.advance(0, "")  # a look in between
        now[0] += 0.1 + (40 if not index else 0)
        pace.advance(0, "loss 0.1")
        shown.append((pace.find_left(), 60 + truth - now[0]))
    assert [left for left, _ in shown[:2]] == [None, None]
    assert len([left for left, _ in shown if left is None]) <= 2
    for left, right in shown[2:-20]:
        assert left == pytest.approx(right, rel=0.2)
    assert pace.find_share() == pytest.approx(1, abs=0.05)


def test_where_nobody_watches_lines_say_how_far_it_is(monkeypatch, capsys):
    monkeypatch.setattr(watcher, "LINE_SECONDS", 0.02)
    with ProgressBar("importing JAX", Console(file=io.StringIO(), force_terminal=False)) as bar:
        time.sleep(0.1)
        assert capsys.readouterr().out == ""  # the input is not checked yet
        bar.begin(1000, 3, "digits")
        time.sleep(0.2)
        assert "digits: compiling, 0 of 1,000 updates" in capsys.readouterr().out
        bar.advance(0, "loss 0.2")
        bar.advance(1, "")
        time.sleep(0.2)
        assert "digits: compiling, 1 of 1,000 updates" in capsys.readouterr().out
        bar.advance(0, "loss 0.1")
        bar.advance(499, "")
        time.sleep(0.2)
        assert "digits: 500 of 1,000 updates, about 0 s left" in capsys.readouterr().out
    time.sleep(0.1)
    capsys.readouterr()
    time.sleep(0.1)
    assert capsys.readouterr().out == ""
