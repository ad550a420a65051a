"""Sweeps on a real SLURM, the rehearsal cluster, and what a cluster does to them."""

import contextlib
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from commands import (
    BROKEN,
    NETWORKS,
    TOY,
    call_ntklens,
    find_checkpoints,
    isolate,
    list_files,
    run_ntklens,
    start_ntklens,
)
from ntklens.store.trajectory import read_trajectory
from ntklens.wandb.names import make_id
from ntklens.wandb.runs import list_runs
from transactions import read_run

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
CLUSTER = [sys.executable, str(ROOT / "rehearsal" / "cluster.py")]
PLACE = Path("/var/lib/ntklens-rehearsal")
CONF = PLACE / "etc" / "slurm.conf"
SMALL = [word for word in TOY if not word.startswith(("model.width", "ensemble", "training.epochs"))]
SLURM = ("name=on slurm", "checkpoint.minutes=0.002", "checkpoint.grace=20", "hydra/launcher=slurm_cpu")
SLURM += ("hydra.launcher.task_minutes=0.1",)
SWEEP = ("-m", "model.width=3,5", *SMALL, "ensemble=2", *SLURM)
LONG = (*SWEEP, "training.epochs=60000")


@pytest.fixture(scope="module", autouse=True)
def cluster():
    was_up = (PLACE / "run" / "slurmctld.pid").exists()
    subprocess.run([*CLUSTER, "up"], check=True)
    os.environ["SLURM_CONF"] = str(CONF)
    yield
    if not was_up:
        subprocess.run([*CLUSTER, "down"], check=True)
    del os.environ["SLURM_CONF"]


@pytest.fixture
def hurry():
    """Requeued jobs start at once, and not after two minutes."""
    ended = threading.Event()

    nudge = runpy.run_path(CLUSTER[1])["nudge"]

    def keep_nudging():
        while not ended.wait(1):
            with contextlib.suppress(SystemExit):  # the controller does not answer while it starts
                nudge()

    thread = threading.Thread(target=keep_nudging)
    thread.start()
    yield
    ended.set()
    thread.join()


@pytest.fixture(autouse=True)
def no_jobs_are_left():
    yield
    call("scancel", "--user=root", check=False)
    wait_for(lambda: not call("squeue", "-h"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "here"
    folder.mkdir()
    words = [word for word in LONG if not word.startswith("hydra")]
    assert run_ntklens(*words, cwd=folder).returncode == 0
    return {path.relative_to(folder): read_trajectory(path) for path in folder.rglob("trajectory.nc")}


def call(*command, check=True):
    return subprocess.run(command, capture_output=True, text=True, check=check, timeout=60).stdout.strip()


def wait_for(condition, seconds=300):  # however much else the machine does
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return value


def list_running():
    return call("squeue", "-h", "-r", "-t", "R", "-p", "gpu", "-o", "%i").split()


def find_processes(folder):
    """The processes of jobs that work in a folder, the youngest last."""
    found = []
    for process in psutil.process_iter(["cmdline", "create_time"]):
        words = process.info["cmdline"] or []
        if "submitit.core._submit" in words and str(folder) in words[-1] and "python" in Path(words[0]).name:
            found.append(process)
    return sorted(found, key=lambda process: process.info["create_time"])


def read_log(folder):
    return "".join(path.read_text() for path in sorted((folder / "multirun" / "on slurm" / "slurm").glob("*/*.out")))


def stamp(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("trajectory.nc")}


def finish(folder, undisturbed):
    """Launch until all is done, and compare it with what nobody disturbed."""
    done = stamp(folder)
    result = run_ntklens(*LONG, "launch.wait=true", cwd=folder)
    assert result.returncode == 0, result.stdout + result.stderr + read_log(folder)
    assert done.items() <= stamp(folder).items()
    published = re.findall(r"(\S+): seeds? ([\d, …]+) published", read_log(folder))
    assert len(published) == len(set(published))
    assert not list(folder.rglob("checkpoint"))
    assert {path.relative_to(folder) for path in stamp(folder)} == set(undisturbed)
    for place, expected in undisturbed.items():
        trajectory = read_trajectory(folder / place)
        for name in ("train_loss", "test_loss", "trace"):
            for last, bound in ((10, 1e-6), (100, 5e-3)):
                within = (expected.epoch <= last).values
                np.testing.assert_allclose(trajectory[name][within], expected[name][within], rtol=bound, err_msg=name)


def test_a_detached_launch_says_where_to_look_and_submits_nothing_twice(tmp_path):
    words = (*SWEEP, "training.epochs=3000000")  # ends after whatever follows, also on a slow machine
    launch = run_ntklens(*words, cwd=tmp_path)
    assert launch.returncode == 0, launch.stderr
    submitted = re.search(r"job      \d+: (\d+) tasks?, \d+ min, 1 GB each", launch.stdout)
    assert submitted
    assert "status   python -m ntklens.run task=status name='on slurm'" in launch.stdout
    jobs = set(call("squeue", "-h", "-r", "-o", "%i").split())
    assert len(jobs) == int(submitted[1]) > 1
    again = run_ntklens(*words, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "0 to run" in again.stdout
    assert "wait or are computed already" in again.stdout
    assert set(call("squeue", "-h", "-r", "-o", "%i").split()) <= jobs
    wait_for(lambda: list_running() and find_checkpoints(tmp_path))
    status = call_ntklens("task=status", "name=on slurm", cwd=tmp_path)
    assert status.returncode == 3
    assert re.search(r"slurm    \d+ tasks? runs? on node\d", status.stdout)
    described = json.loads(call_ntklens("task=status", "name=on slurm", "task.format=json", cwd=tmp_path).stdout)
    assert {job["number"] for job in described["jobs"]} <= jobs
    more = run_ntklens(*words, "ensemble=3", cwd=tmp_path)  # only what is new
    assert more.returncode == 0, more.stderr
    assert "2 to run" in more.stdout
    cancelled = call_ntklens("task=cancel", "name=on slurm", cwd=tmp_path)
    assert cancelled.returncode == 0, cancelled.stderr
    assert " cancelled" in cancelled.stdout
    wait_for(lambda: not call("squeue", "-h"))
    assert call_ntklens("task=cancel", "name=on slurm", cwd=tmp_path).stdout == "on slurm has no jobs in SLURM\n"
    assert call_ntklens("task=status", "name=on slurm", cwd=tmp_path).returncode == 3


def kill_a_process(folder):
    running = list_running()
    find_processes(folder)[-1].kill()
    wait_for(lambda: set(running) - set(list_running()))


def cancel_a_task(folder):
    call("scancel", list_running()[0])


def preempt(folder):
    wrap = ["--partition=high", "--exclusive", "--nodes=4", "--wrap=sleep 3", "--output=/dev/null", "--time=1"]
    job = call("sbatch", "--parsable", *wrap)
    wait_for(lambda: call("squeue", "-h", "-j", job, "-o", "%T", check=False) in ("RUNNING", "COMPLETING", ""))


def requeue(folder):
    call("scontrol", "requeue", list_running()[0])


def ask_in_the_first_second(folder):
    call("scontrol", "requeue", first := list_running()[0])
    wait_for(lambda: first not in list_running())
    wait_for(lambda: first in list_running())
    call("scancel", "--signal=USR2", first)


def kill_a_node(folder):
    """Its daemon dies, its task survives, and SLURM starts a second copy of it elsewhere."""
    node = call("squeue", "-h", "-r", "-t", "R", "-p", "gpu", "-o", "%N").split()[0]
    pid = int((PLACE / "run" / f"slurmd-{node}.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: "down" in call("sinfo", "-h", "-N", "-p", "gpu", "-n", node, "-o", "%t"))
    subprocess.run([*CLUSTER, "up"], check=True, capture_output=True)


def restart_the_controller(folder):
    pid = int((PLACE / "run" / "slurmctld.pid").read_text())
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie")
    time.sleep(2)
    subprocess.run([*CLUSTER, "up"], check=True, capture_output=True)


EVENTS = [
    kill_a_process, cancel_a_task, preempt, requeue, ask_in_the_first_second, kill_a_node, restart_the_controller,
]  # fmt: skip


ONE_AFTER_ANOTHER = [
    (kill_a_process, cancel_a_task), (requeue, ask_in_the_first_second), (preempt, restart_the_controller),
    (kill_a_node,),
]  # fmt: skip


@pytest.mark.parametrize("events", ONE_AFTER_ANOTHER, ids=lambda events: events[0].__name__)
def test_nothing_a_cluster_does_loses_a_run(tmp_path, undisturbed, hurry, events):
    assert run_ntklens(*LONG, cwd=tmp_path).returncode == 0
    for event in events:
        wait_for(lambda: list_running() and find_checkpoints(tmp_path))
        event(tmp_path)
    finish(tmp_path, undisturbed)


def test_all_of_it_at_once(tmp_path, undisturbed, hurry):
    launches = [start_ntklens(*LONG, cwd=tmp_path) for _ in range(2)]
    for launch in launches:
        output, errors = launch.communicate(timeout=120)
        assert launch.returncode == 0, output + errors
    for event in EVENTS:
        if wait_for(lambda: list_running() or not call("squeue", "-h")) is True:
            break  # all has ended already
        try:
            event(tmp_path)
        except (IndexError, subprocess.CalledProcessError, AssertionError):  # what it was about to hit has just ended
            subprocess.run([*CLUSTER, "up"], check=True, capture_output=True)
    finish(tmp_path, undisturbed)


def test_a_launch_that_is_killed_while_it_submits_submits_nothing_twice(tmp_path, undisturbed, hurry):
    launch = start_ntklens(*LONG, cwd=tmp_path)
    wait_for(lambda: list(tmp_path.glob("multirun/*/slurm/*.json")))
    launch.kill()
    launch.communicate()
    finish(tmp_path, undisturbed)


@pytest.mark.parametrize("minutes", ["0.002", "1000000"])  # a run is long, or short, by what it will take in the end
def test_a_time_limit_is_no_end(tmp_path, hurry, minutes):
    words = (*SWEEP, "training.epochs=1000000000", "model.width=3", "ensemble=1", "hydra.launcher.minutes=1")
    words += (f"checkpoint.minutes={minutes}",)
    assert run_ntklens(*words, cwd=tmp_path).returncode == 0
    wait_for(lambda: "goes back into the queue" in read_log(tmp_path))
    wait_for(lambda: re.search(r"from update [1-9]\d+ of", read_log(tmp_path)))
    assert "asked to end by SIGUSR2: seeds are saved" in read_log(tmp_path)


def test_a_failing_configuration_fails_alone_in_our_states_and_in_slurms(tmp_path):
    (tmp_path / "broken_model.py").write_text(BROKEN)
    (tmp_path / "fail").touch()
    words = (*SWEEP, "training.epochs=20", "model._target_=broken_model.MLP", "launch.wait=true")
    words += ("hydra.launcher.task_minutes=0.001",)
    result = run_ntklens(*words, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert result.returncode == 1, result.stderr
    assert "failed   2 seeds: RuntimeError: no such luck" in result.stdout
    assert "FAILED" in call("sacct", "-n", "-X", "-P", "-o", "State", "--name", find_job_name(tmp_path))
    assert "RuntimeError: no such luck" in read_log(tmp_path)
    status = call_ntklens("task=status", "name=on slurm", cwd=tmp_path)
    assert status.returncode == 1
    assert "2 done, 2 failed of 4 seeds" in status.stdout
    done = stamp(tmp_path)
    (tmp_path / "fail").unlink()
    assert run_ntklens(*words, cwd=tmp_path, PYTHONPATH=str(tmp_path)).returncode == 1
    retried = run_ntklens(*words, "retry=true", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert retried.returncode == 0, retried.stdout
    assert "4 seeds, 2 done, 2 to run" in retried.stdout
    assert done.items() <= stamp(tmp_path).items()


def find_job_name(folder):
    return ",".join(json.loads(path.read_text())["name"] for path in folder.glob("multirun/*/slurm/*.json"))


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (("hydra.launcher.partition=nope",), "invalid partition specified: nope"),
        (("hydra.launcher.account=nobody",), "Invalid account"),
        (("hydra/launcher=slurm_gpu", "hydra.launcher.gpus=9"), "node configuration is not available"),
        (("hydra.launcher.cpus=0",), "hydra.launcher.cpus=0"),
        (("checkpoint.grace=70000",), "Invalid --signal specification"),
        (("hydra.launcher.minutes=1", "checkpoint.grace=60"), "the signal to save would come at once"),
        (("hydra.launcher.most_minutes=1", "checkpoint.grace=60"), "hydra.launcher.most_minutes=1: the signal to save"),
        (("+hydra.launcher.more.array=0-2",), "array is set by the plan"),
        (("+hydra.launcher.more.clusters=all",), "hydra.launcher.more.clusters: with it"),
        (("name=a%j",), "SLURM replaces %"),
        (("hydra.launcher.memory_gb=0.1",), "one seed of width 3 needs about"),
    ],
)
def test_what_slurm_would_not_take_is_refused_before_anything_is_written(tmp_path, words, fragment):
    result = call_ntklens(*SWEEP, "training.epochs=20", *words, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert fragment in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_quota_takes_what_it_takes_and_the_next_launch_the_rest(tmp_path):
    words = (*SWEEP, "training.epochs=20", "hydra.launcher.qos=two", "hydra.launcher.task_minutes=0.001")
    call("sacctmgr", "-i", "add", "qos", "two", "set", "MaxSubmitJobsPerUser=2")
    call("sacctmgr", "-i", "modify", "user", "root", "set", "qos+=two")
    try:
        call("scontrol", "update", "partitionname=gpu", "state=down")  # so that nothing ends meanwhile
        part = run_ntklens(*words, cwd=tmp_path)
        assert part.returncode == 3, part.stderr
        assert "2 of 4 tasks were submitted" in part.stdout
        full = run_ntklens(*words, cwd=tmp_path)
        assert full.returncode == 2, full.stdout
        assert "QOSMaxSubmitJobPerUserLimit" in full.stderr
        call("scontrol", "update", "partitionname=gpu", "state=up")
        wait_for(lambda: not call("squeue", "-h"))
        few = run_ntklens(*words, "hydra.launcher.task_minutes=60", "launch.wait=true", cwd=tmp_path)
        assert few.returncode == 0, few.stderr
    finally:
        call("scontrol", "update", "partitionname=gpu", "state=up")
        call("sacctmgr", "-i", "modify", "user", "root", "set", "qos-=two")
        call("sacctmgr", "-i", "delete", "qos", "two")


def test_without_sacct_and_without_squeue(tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sbatch", "srun", "squeue", "scontrol", "scancel", "env", "bash", "sh"):
        (tools / name).symlink_to(call("which", name))
    folder = tmp_path / "here"
    folder.mkdir()
    words = (*SWEEP, "training.epochs=20")
    result = run_ntklens(*words, "launch.wait=true", cwd=folder, PATH=str(tools))
    assert result.returncode == 0, result.stderr
    (tools / "squeue").unlink()
    again = run_ntklens(*words, cwd=folder, PATH=str(tools))  # all is done: nothing is to be asked
    assert again.returncode == 0, again.stderr
    more = run_ntklens(*words, "ensemble=3", cwd=folder, PATH=str(tools))
    assert more.returncode == 2
    assert "squeue does not answer" in more.stderr
    status = call_ntklens("task=status", "name=on slurm", cwd=folder, PATH=str(tools))
    assert status.returncode == 0, status.stderr


def test_several_processes_share_the_seeds_of_a_task(tmp_path):
    words = (*SWEEP, "training.epochs=20", "launch.wait=true", "hydra.launcher.processes=2", "model.width=3")
    result = run_ntklens(*words, "hydra.launcher.task_minutes=60", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert len(list(tmp_path.rglob("*_log.out"))) == 2
    assert "2/2" in result.stdout


def test_a_job_that_computes_nothing_is_told(tmp_path):
    words = (*SWEEP, "training.epochs=20", "launch.wait=true", "hydra.launcher.task_minutes=60")
    result = run_ntklens(*words, "hydra.launcher.setup=[exit 3]", cwd=tmp_path)
    assert result.returncode == 3
    assert re.search(r"slurm    a job ended before anything was computed: \d+ FAILED; its output is in", result.stdout)
    assert run_ntklens(*words, cwd=tmp_path).returncode == 0


def test_what_the_launching_job_has_is_not_its_jobs(tmp_path):
    words = (*SWEEP, "training.epochs=20", "launch.wait=true", "hydra.launcher.task_minutes=60", "name=a,b")
    inside = {
        "SLURM_MEM_PER_CPU": "100",
        "SLURM_ARRAY_JOB_ID": "9",
        "SLURM_ARRAY_TASK_ID": "9",
        "SQUEUE_STATES": "FAILED",
    }
    result = run_ntklens(*words, cwd=tmp_path, **inside)
    assert result.returncode == 0, result.stdout + result.stderr
    assert len(stamp(tmp_path)) == 8


def test_any_process_of_a_job_can_put_it_back_into_the_queue(tmp_path, hurry):
    """The first has finished its share when the signal comes."""
    words = (*SWEEP, "model.width=3", "training.epochs=20,4000000", "ensemble=1", "hydra.launcher.processes=2")
    assert run_ntklens(*words, "hydra.launcher.task_minutes=100000", cwd=tmp_path).returncode == 0
    wait_for(lambda: stamp(tmp_path) and find_checkpoints(tmp_path))
    time.sleep(3)
    call("scancel", "--signal=USR2", list_running()[0])
    wait_for(lambda: "goes back into the queue" in read_log(tmp_path))


def test_stock_launchers_keep_working(tmp_path):
    words = [word for word in (*SWEEP, "training.epochs=20", "ensemble=2") if not word.startswith("hydra")]
    for launcher in ("stock_slurm", "stock_local"):
        result = run_ntklens(*words, f"hydra/launcher={launcher}", f"name={launcher}", cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert len(list((tmp_path / "multirun" / launcher).rglob("trajectory.nc"))) == 4


@pytest.mark.parametrize("kind", ["mlp", *(pytest.param(kind, marks=pytest.mark.release) for kind in NETWORKS)])
def test_jobs_that_are_put_back_leave_whole_runs_in_wandb(tmp_path, hurry, kind):
    folder = tmp_path / "here"
    folder.mkdir()
    sweep = (*NETWORKS[kind], *SLURM) if kind in NETWORKS else LONG
    words, environment = (*sweep, "tracking.mode=offline"), isolate(folder)
    assert run_ntklens(*words, cwd=folder, **environment).returncode == 0
    wait_for(lambda: list_running() and find_checkpoints(folder))
    call("scontrol", "requeue", list_running()[0])
    result = run_ntklens(*words, "launch.wait=true", cwd=folder, **environment)
    assert result.returncode == 0, result.stdout + result.stderr + read_log(folder)
    runs = list_runs(folder / "multirun" / "on slurm")
    steps = {run.id: [row["_step"] for row in read_run(run.path).history] for run in runs}
    assert all(run.whole for run in runs)
    count = {"mlp": 4, "images": 3, "tokens": 2}[kind]
    assert len(runs) == len(steps) == count
    assert steps == find_steps(folder)
    assert f"{count} runs are on this disk only; to upload: wandb sync 'multirun/on slurm/wandb'" in result.stdout
    assert list_files(tmp_path / "home") == []


def test_many_jobs_that_start_at_once_share_a_server(tmp_path, serve):
    server, folder = serve(), tmp_path / "here"
    folder.mkdir()
    environment = isolate(folder) | {"WANDB_API_KEY": "0123456789" * 4, "WANDB_BASE_URL": server.address}
    words = ("-m", "model.width=3,5", *SMALL, "ensemble=3", "name=on slurm", "training.epochs=4000")
    words += ("hydra/launcher=slurm_cpu", "hydra.launcher.task_minutes=0.001", "launch.wait=true")
    result = run_ntklens(*words, cwd=folder, **environment)
    assert result.returncode == 0, result.stdout + result.stderr + read_log(folder)
    assert "6 SLURM tasks" in result.stdout
    steps = find_steps(folder)
    assert len(steps) == 6
    assert {run: server.get_steps(run) for run in server.history} == steps
    assert set(server.complete.values()) == {0}
    assert f"wandb    {server.address}/someone/ntklens" in result.stdout
    assert "on this disk only" not in result.stdout
    assert list_files(tmp_path / "home") == []


def find_steps(folder):
    """W&B id → the steps that its trajectory has."""
    paths = sorted((folder / "multirun" / "on slurm").glob("*/seed=*/trajectory.nc"))
    return {
        make_id("on slurm", t.attrs["run_key"], [int(t.attrs["seed"])]): t.step.values.tolist()
        for t in map(read_trajectory, paths)
    }
