"""A local sweep is killed again and again at random moments, relaunched in other packings, and ends complete.

NTKLENS_KILL_EXAMPLES sets how many sweeps are tormented (default 2); each is killed up to six times.
"""

import os
import re
import signal
import time

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from commands import TOY, run_ntklens, start_ntklens
from ntklens.store.trajectory import read_trajectory

EXAMPLES = int(os.environ.get("NTKLENS_KILL_EXAMPLES", "2"))
UPDATES, SEEDS, WIDTHS = 3000, 4, (3, 5)
SMALL = [word for word in TOY if not word.startswith(("model.width", "ensemble"))]
SWEEP = ("-m", f"model.width={','.join(map(str, WIDTHS))}", *SMALL, f"training.epochs={UPDATES}", f"ensemble={SEEDS}")
SWEEP += ("name=killed", "checkpoint.minutes=0.0005", "checkpoint.grace=20")
VICTIMS = st.sampled_from(["launch", "worker", "everything"])
SIGNALS = st.sampled_from([signal.SIGKILL, signal.SIGTERM, signal.SIGUSR2])
# Packings: how many processes, and how many seeds the memory lets train together.
PACKINGS = st.tuples(st.integers(1, 3), st.sampled_from(["null", "0.46", "1"]))
KILLS = st.lists(st.tuples(st.floats(0.0, 9.0), SIGNALS, VICTIMS, PACKINGS), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "here"
    folder.mkdir()
    assert run_ntklens(*SWEEP, "launch.workers=1", cwd=folder).returncode == 0
    return {path.relative_to(folder): read_trajectory(path) for path in folder.rglob("trajectory.nc")}


def find_tree(process):
    try:
        parent = psutil.Process(process.pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def kill_one(launch, number, victim):
    tree = find_tree(launch)
    chosen = {"launch": tree[:1], "worker": tree[1:2], "everything": tree}[victim]
    for process in chosen:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue


def stamp(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("trajectory.nc")}


def read_published(folder):
    """The (run, seed) that workers came to the end of, as their logs tell."""
    published = []
    for log in sorted((folder / "multirun" / "killed" / "logs").glob("*.log")):
        for line in log.read_text().splitlines():
            if match := re.search(r"\S+ (\S+): seeds? (.*) published", line):
                published += [(match[1], seed) for seed in expand(match[2])]
    return published


def expand(text):
    if "…" in text:
        first, last = map(int, text.split("…"))
        return list(range(first, last + 1))
    return [int(word) for word in text.split(",")]


@pytest.mark.slow
@settings(
    max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES <= 2, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(kills=KILLS)
def test_a_killed_sweep_ends_complete(kills, undisturbed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed") / "here"
    folder.mkdir()
    finished = {}
    for delay, number, victim, (workers, memory) in kills:
        words = (f"launch.workers={workers}", f"ntk.memory_limit={memory}")
        launch = start_ntklens(*SWEEP, *words, cwd=folder)
        time.sleep(delay)
        kill_one(launch, number, victim)
        launch.communicate(timeout=120)
        assert launch.returncode in (0, 1, 3, 130, -signal.SIGKILL, -signal.SIGUSR2, -signal.SIGTERM)
        assert finished.items() <= stamp(folder).items()  # what is published stays as it is
        finished = stamp(folder)
    result = run_ntklens(*SWEEP, cwd=folder)  # without retry=true: to be killed is no failure
    assert result.returncode == 0, result.stderr
    assert finished.items() <= stamp(folder).items()
    published = read_published(folder)
    assert len(published) == len(set(published))  # no seed was computed to its end twice
    assert len(list(folder.rglob("trajectory.nc"))) == len(WIDTHS) * SEEDS
    assert not list(folder.rglob("checkpoint"))
    assert not list(folder.rglob("attempt-*"))
    for place, expected in undisturbed.items():
        trajectory = read_trajectory(folder / place)
        for name in ("train_loss", "test_loss", "trace", "logit_norm"):
            early = (expected.epoch <= 10).values
            np.testing.assert_allclose(trajectory[name][early], expected[name][early], rtol=1e-6, err_msg=name)
            to_100 = (expected.epoch <= 100).values
            np.testing.assert_allclose(trajectory[name][to_100], expected[name][to_100], rtol=5e-3, err_msg=name)
