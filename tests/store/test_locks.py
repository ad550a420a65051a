"""Who computes what is known to others, and forgotten with its process."""

import subprocess
import sys

import pytest

from ntklens.store import locks
from ntklens.store.locks import find_locked, is_launched, lock_seeds, lock_submission

HOLD = """
import sys
from pathlib import Path
from ntklens.store.locks import lock_launch, lock_seeds, lock_submission
folder, kind = Path(sys.argv[1]), sys.argv[2]
whole = {"launch": lock_launch, "submission": lock_submission}
with whole[kind](folder) if kind in whole else lock_seeds(folder, [int(word) for word in kind.split(",")]) as held:
    print(held, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def hold(tmp_path):
    """Start a process that claims something; it returns what was claimed."""
    started = []

    def start(kind):
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", HOLD, str(tmp_path), kind]
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        started.append(process)
        return process, process.stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_what_another_process_holds_is_left(tmp_path, hold):
    process, held = hold("1,3")
    assert held == "[1, 3]"
    assert find_locked(tmp_path, range(5)) == {1, 3}
    with lock_seeds(tmp_path, range(5)) as claimed:
        assert claimed == [0, 2, 4]
        assert find_locked(tmp_path, range(5)) == {0, 2, 4}  # of its own it needs no lock to know
    process.kill()
    process.wait()
    assert find_locked(tmp_path, range(5)) == set()


def test_a_launch_is_at_work_until_the_last_one_ends(tmp_path, hold):
    assert not is_launched(tmp_path)
    first, _ = hold("launch")
    second, _ = hold("launch")
    for process in (first, second):
        assert is_launched(tmp_path)
        process.kill()
        process.wait()
    assert not is_launched(tmp_path)


def test_looking_disturbs_nobody_who_looks(tmp_path, hold):
    """Two that look at the same moment must not take each other for one that computes."""
    hold("1")
    look = (
        "from pathlib import Path; from ntklens.store.locks import find_locked; "
        f"print(find_locked(Path({str(tmp_path)!r}), range(9000)))"
    )
    looking = [subprocess.Popen([sys.executable, "-c", look], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate()[0].strip() for process in looking] == ["{1}"] * 3


def test_who_looks_for_a_moment_is_not_taken_for_a_launch(tmp_path, hold, monkeypatch):
    process, _ = hold("submission")
    with lock_submission(tmp_path) as mine:
        assert not mine

    def let_go(_seconds):
        process.kill()
        process.wait()

    monkeypatch.setattr(locks.time, "sleep", let_go)
    with lock_submission(tmp_path) as mine:
        assert mine
