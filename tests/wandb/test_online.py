"""The real W&B client against as much of a server as it needs, on loopback: healthy, broken in the middle, back."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from commands import BROKEN, TOY, call_ntklens, isolate, list_files, run_ntklens, start_ntklens
from ntklens.store.locks import Locks
from ntklens.store.trajectory import encode_trajectory, read_trajectory
from ntklens.wandb.runs import find_unsynced, hash_id, list_begun, list_runs
from transactions import read_run

WORDS = (*TOY, "training.epochs=4000", "tracking.interval=1", "tracking.patience=60")


def connect(server, folder):
    return isolate(folder) | {"WANDB_API_KEY": "0123456789" * 4, "WANDB_BASE_URL": server.address}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


def find_steps(folder):
    """W&B id → the steps that its trajectory has."""
    trajectories = [read_trajectory(path) for path in folder.glob("multirun/synthetic/*/seed=*/trajectory.nc")]
    return {f"synthetic-{t.attrs['run_key']}-{t.attrs['seed']}": t.step.values.tolist() for t in trajectories}


@pytest.mark.slow
def test_a_run_is_uploaded_whole(folder, serve):
    server = serve()
    result = call_ntklens(*WORDS, cwd=folder, **connect(server, folder))
    assert (result.returncode, result.stderr) == (0, "")
    assert "wandb sync" not in result.stdout
    steps = find_steps(folder)
    assert len(steps) == 2
    for run, wanted in steps.items():
        assert server.get_steps(run) == wanted
        assert server.complete[run] == 0
        assert server.buckets[run]["groupName"].startswith("synthetic-24-mlp")
        assert server.summaries[run]["minimum_loss"] > 0
    names = {artifact["name"] for artifact in server.artifacts.values() if artifact.get("committed")}
    assert {f"trajectory-{run}" for run in steps} < names
    assert {use["runName"] for use in server.used} == set(steps)
    assert not find_unsynced(folder / "multirun" / "synthetic")
    status = call_ntklens("task=status", "name=synthetic", cwd=folder)
    address = f"wandb    {server.address}/someone/ntklens"
    assert [line for line in status.stdout.splitlines() if "wandb" in line] == [address]
    assert address in result.stdout
    before = len(server.operations)
    assert call_ntklens(*WORDS, cwd=folder, **connect(server, folder)).returncode == 0
    assert len(server.operations) == before  # what is there is not sent again


@pytest.mark.slow
@pytest.mark.parametrize("breaks", ["die", 429, 500])
def test_a_server_that_breaks_in_the_middle_costs_nothing_but_the_upload(folder, serve, breaks):
    server = serve(breaks)
    result = run_ntklens(*WORDS, cwd=folder, **connect(server, folder))
    assert result.returncode == 0
    (line,) = result.stderr.splitlines()
    assert line.startswith("wandb: ")
    assert "results are untouched" in line
    assert "task=sync name=synthetic" in result.stdout or "wandb sync multirun/synthetic/wandb" in result.stdout
    sweep, steps = folder / "multirun" / "synthetic", find_steps(folder)
    assert server.refused
    begun = list_begun(sweep)
    assert begun
    assert not begun & {run.id for run in find_unsynced(sweep)}
    for run in find_unsynced(sweep):
        assert [row["_step"] for row in read_run(run.path).history] == steps[run.id]
    described = json.loads(call_ntklens("task=status", "name=synthetic", "task.format=json", cwd=folder).stdout)
    assert set(described["unsynced"]) == {run.id for run in find_unsynced(sweep)} | begun
    for run in set(steps) - {run.id for run in find_unsynced(sweep)} - begun:
        assert server.get_steps(run) == steps[run]
    # The server comes back; the lines that were printed bring it everything.
    server.broken, server.breaks = None, ""
    for number, run in enumerate(sorted(begun)):  # also where it had taken a part
        server.history[run] = {k: v for k, v in server.history[run].items() if k < 20 * (number + 1)}
        server.summaries.pop(run, None)
    command = [Path(sys.executable).with_name("wandb"), "sync", "multirun/synthetic/wandb"]
    environment = os.environ | connect(server, folder) | {"WANDB_MODE": "online"}
    synced = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert synced.returncode == 0, synced.stderr
    uploaded = call_ntklens("task=sync", "name=synthetic", "tracking.patience=60", cwd=folder, **environment)
    assert (uploaded.returncode, uploaded.stderr) == (0, "")
    for run, wanted in steps.items():
        assert server.get_steps(run) == wanted, server.history[run]
    assert not find_unsynced(sweep)
    assert not list_begun(sweep)


@pytest.mark.slow
def test_a_server_that_is_not_there(folder, serve):
    server = serve()
    environment = connect(server, folder)
    server.close()
    result = run_ntklens(*TOY, "tracking.patience=5", cwd=folder, **environment)
    assert result.returncode == 0
    (line,) = result.stderr.splitlines()
    assert line.startswith("wandb: ")
    assert "2 runs are on this disk only" in result.stdout
    assert len(find_unsynced(folder / "multirun" / "synthetic")) == 2


SLOW = """
import os, sys, time
if os.path.exists("second") or not os.path.exists("first"):
    open("first", "w").close()
else:
    open("second", "w").close()
    {trouble}
sys.path.remove(os.path.dirname(os.path.dirname(__file__)))
del sys.modules["wandb"]
import wandb
"""


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["time.sleep(15)", "raise ImportError('wandb is broken')"])
def test_what_befalls_the_process_that_writes_offline_is_its_own_matter(folder, serve, trouble):
    server = serve()
    environment = connect(server, folder) | {"PYTHONPATH": str(folder)}
    server.close()
    (folder / "wandb").mkdir()
    (folder / "wandb" / "__init__.py").write_text(SLOW.format(trouble=trouble))
    result = call_ntklens(*TOY, "tracking.patience=5", cwd=folder, **environment)
    assert result.returncode == 0
    written = len(find_unsynced(folder / "multirun" / "synthetic"))
    if "sleep" in trouble:  # slow to start is not broken
        assert (written, len(result.stderr.splitlines())) == (2, 1)
        assert "2 runs are on this disk only" in result.stdout
    else:
        assert (written, len(result.stderr.splitlines())) == (0, 2)
        assert "wandb is broken; results are untouched, the same line" in result.stderr.splitlines()[1]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_and_continued_job_is_one_run(folder, serve, number):
    server = serve()
    words = (*WORDS, "training.epochs=1500000", "training.stop_after=1400000", "checkpoint.minutes=0.01")
    process = start_ntklens(*words, cwd=folder, **connect(server, folder))
    deadline = time.monotonic() + 120
    while len(server.history) < 2 or min(map(len, server.history.values())) < 1:
        assert time.monotonic() < deadline, server.operations
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert not find_steps(folder)
    reached = {run: len(lines) for run, lines in server.history.items()}
    result = call_ntklens(*words, cwd=folder, **connect(server, folder))
    assert (result.returncode, result.stderr) == (0, "")
    steps = find_steps(folder)
    assert set(steps) == set(reached)
    for run, wanted in steps.items():
        assert server.get_steps(run) == wanted
        assert len(wanted) > reached[run]
    assert len(list_runs(folder / "multirun" / "synthetic")) == 2


@pytest.mark.slow
def test_a_failed_seed_says_why_and_goes_on_when_tried_again(folder, serve):
    server = serve()
    (folder / "broken_model.py").write_text(BROKEN)
    (folder / "fail").touch()
    small = [word for word in TOY if "width" not in word]
    words = ("-m", "scaling=width", "model.width=4,5", "model._target_=broken_model.MLP", *small, "name=synthetic")
    environment = connect(server, folder) | {"PYTHONPATH": str(folder)}
    assert call_ntklens(*words, cwd=folder, **environment).returncode == 1
    failed = {run for run, status in server.complete.items() if status == 1}
    assert len(failed) == 2
    assert {server.summaries[run]["state"] for run in failed} == {"failed"}
    assert all("no such luck" in server.summaries[run]["error"] for run in failed)
    status = call_ntklens("task=status", "name=synthetic", cwd=folder)
    assert "wandb sync" not in status.stdout
    assert "task=sync" not in status.stdout
    (folder / "fail").unlink()
    assert call_ntklens(*words, "retry=true", cwd=folder, **environment).returncode == 0
    steps = find_steps(folder)
    assert failed < set(steps)
    for run, wanted in steps.items():
        assert server.get_steps(run) == wanted
        assert server.complete[run] == 0
        assert server.summaries[run]["state"] == "done"
        assert server.summaries[run].get("error") is None
    assert not list_begun(folder / "multirun" / "synthetic")


@pytest.mark.slow
def test_workspace_and_report_are_saved_once_and_brought_up_to_date(folder, serve):
    server = serve()
    small = [word for word in TOY if "width" not in word]
    environment = connect(server, folder)
    words = ("-m", "scaling=width", *small, "name=synthetic", "tracking=none", "model.width=3,5")
    assert call_ntklens(*words, cwd=folder, **environment).returncode == 0
    first = call_ntklens("task=dashboard", "name=synthetic", cwd=folder, **environment)
    assert (first.returncode, first.stderr) == (0, "")
    saved = [line for line in first.stdout.splitlines() if line.startswith("saved")]
    assert [line.split()[1] for line in saved] == ["workspace", "report"]
    before = {number: dict(view) for number, view in server.views.items()}
    assert [view["type"] for view in before.values()] == ["project-view", "runs"]
    plan = folder / "multirun" / "synthetic" / "plan.json"
    plan.write_text(plan.read_text().replace("model.width", "model.depth"))  # another sweep under its name
    second = call_ntklens("task=dashboard", "name=synthetic", cwd=folder, **environment)
    assert [line for line in second.stdout.splitlines() if line.startswith("saved")] == saved
    assert list(server.views) == list(before)
    assert all(server.views[number]["spec"] != view["spec"] for number, view in before.items())
    server.views.clear()  # somebody removes them
    assert call_ntklens("task=dashboard", "name=synthetic", cwd=folder, **environment).returncode == 0
    assert len(server.views) == 2
    server.broken = 500
    failed = call_ntklens("task=dashboard", "name=synthetic", cwd=folder, **environment)
    assert failed.returncode == 3
    assert failed.stderr.startswith("wandb: ")
    assert len(failed.stderr.splitlines()) == 1


@pytest.mark.parametrize("mode", [pytest.param("offline", marks=pytest.mark.slow), "disabled"])
def test_credentials_are_not_used_where_that_is_not_wanted(folder, serve, mode):
    server = serve()
    result = call_ntklens(*TOY, f"tracking.mode={mode}", cwd=folder, **connect(server, folder))
    assert result.returncode == 0
    assert not server.operations
    assert (folder / "multirun" / "synthetic" / "wandb").exists() == (mode == "offline")


@pytest.mark.slow
def test_a_result_that_changes_is_another_run(folder, serve):
    server = serve()
    environment = connect(server, folder)
    assert call_ntklens(*TOY, cwd=folder, **environment).returncode == 0
    steps, before = find_steps(folder), {run: dict(lines) for run, lines in server.history.items()}
    path = min(folder.glob("multirun/synthetic/*/seed=0/trajectory.nc"))
    trajectory = read_trajectory(path)
    trajectory.trace.values[-1] *= 2
    path.write_bytes(encode_trajectory(trajectory))
    (first,) = [run for run in steps if run.endswith("-0")]
    for lost in (False, True):  # also where this disk does not know what the server has
        if lost:
            shutil.rmtree(folder / "multirun" / "synthetic" / "wandb")
        result = call_ntklens(*TOY, cwd=folder, **environment)
        assert (result.returncode, result.stderr) == (0, "")
        assert {run: server.history[run] for run in before} == before
        assert set(server.history) == {*before, f"{first}-v2"}
        assert server.get_steps(f"{first}-v2") == steps[first]
        last = json.loads(list(server.history[f"{first}-v2"].values())[-1])
        assert last["ntk/trace"] == float(trajectory.trace[-1])
        assert not list_begun(folder / "multirun" / "synthetic")
        assert not find_unsynced(folder / "multirun" / "synthetic")


@pytest.mark.slow
def test_what_is_computed_again_to_the_same_end_is_the_same_run(folder, serve):
    server = serve()
    assert call_ntklens(*WORDS, cwd=folder, **connect(server, folder)).returncode == 0
    before = {run: dict(lines) for run, lines in server.history.items()}
    result = call_ntklens(*WORDS, "replace=true", cwd=folder, **connect(server, folder))
    assert (result.returncode, result.stderr) == (0, "")
    assert server.history == before
    shutil.rmtree(folder / "multirun" / "synthetic")
    result = call_ntklens(*WORDS, cwd=folder, **connect(server, folder))
    assert (result.returncode, result.stderr) == (0, "")
    assert server.history == before
    assert len(list_runs(folder / "multirun" / "synthetic")) == 2
    assert not find_unsynced(folder / "multirun" / "synthetic")


def test_an_address_that_is_none_is_refused(folder, serve):
    environment = connect(serve(), folder) | {"WANDB_BASE_URL": "notaurl"}
    result = call_ntklens(*TOY, cwd=folder, **environment)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert "WANDB_BASE_URL: notaurl is no address" in line
    assert list_files(folder) == []


@pytest.mark.slow
def test_what_another_process_writes_is_left_to_it(folder, serve):
    server = serve()
    assert call_ntklens(*TOY, "training.epochs=4000", "tracking=none", cwd=folder).returncode == 0
    (first, second), sweep = sorted(steps := find_steps(folder)), folder / "multirun" / "synthetic"
    (sweep / "wandb").mkdir()
    locks = Locks(sweep / "wandb")
    assert locks.take(hash_id(first))
    # Locks are a process's: ours must not be the one that is to respect them.
    result = run_ntklens(*WORDS, "replace=true", cwd=folder, **connect(server, folder))
    assert (result.returncode, result.stderr) == (0, "")
    assert list(server.history) == [second]  # neither shown while it trained, nor written when it was there
    uploaded = run_ntklens("task=sync", "name=synthetic", cwd=folder, **connect(server, folder))
    assert uploaded.returncode == 3
    locks.give_back(hash_id(first))
    uploaded = call_ntklens("task=sync", "name=synthetic", cwd=folder, **connect(server, folder))
    assert (uploaded.returncode, uploaded.stderr) == (0, "")
    assert {run: server.get_steps(run) for run in server.history} == steps


@pytest.mark.slow
def test_a_sync_that_cannot_write_says_so(folder, serve):
    assert call_ntklens(*TOY, "tracking=none", cwd=folder).returncode == 0
    (folder / "wandb").mkdir()
    (folder / "wandb" / "__init__.py").write_text("raise ImportError('wandb is broken')")
    environment = connect(serve(), folder) | {"PYTHONPATH": str(folder)}
    result = call_ntklens("task=sync", "name=synthetic", cwd=folder, **environment)
    assert result.returncode == 3
    assert "the server lacks 2 of 2 runs" in result.stdout
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_dashboard_does_not_wait_for_ever(folder, serve):
    assert call_ntklens(*TOY, "tracking=none", cwd=folder).returncode == 0
    server = serve()
    server.broken = "hang"
    started = time.monotonic()
    result = run_ntklens(
        "task=dashboard", "name=synthetic", "tracking.patience=2", cwd=folder, **connect(server, folder)
    )
    assert result.returncode == 3
    assert time.monotonic() - started < 150  # however much else the machine does
    (line,) = result.stderr.splitlines()
    assert line.startswith("wandb: no answer within 4 s")
    assert (folder / "multirun" / "synthetic" / "wandb" / "dashboard.json").exists()


@pytest.mark.slow
def test_a_dashboard_does_not_wait_for_a_process_of_wandbs_that_stands_still(folder, serve):
    """At its end wandb waits for it without limit; whoever reads the command's output waited, too."""
    assert call_ntklens(*TOY, "tracking=none", cwd=folder).returncode == 0
    launch = start_ntklens(
        "task=dashboard", "name=synthetic", "tracking.patience=10", cwd=folder, **connect(serve(), folder)
    )
    stopped = None
    while stopped is None and launch.poll() is None:
        for process in psutil.Process(launch.pid).children(recursive=True):
            if process.name() == "wandb-core":
                process.suspend()
                stopped = process
    _, errors = launch.communicate(timeout=120)
    assert launch.returncode == 3, errors
    assert errors.startswith("wandb: ")
    assert len(errors.splitlines()) == 1
    assert not stopped.is_running() or stopped.status() == psutil.STATUS_ZOMBIE  # ended; its new parent reaps it
