"""A sweep as a person types it: planned, launched, looked at, launched again."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

import ntklens
from commands import ALONE, BROKEN, TOY, call_ntklens, find_checkpoints, list_files, run_ntklens, start_ntklens
from ntklens.config.lines import format_command
from ntklens.store.units import read_status

SMALL = [word for word in TOY if "width" not in word]
SWEEP = ("-m", "scaling=width", "model.width=3,5,8", *SMALL, "launch.workers=1")
NAME = "synthetic_width"


def find_seeds(folder, name=NAME):
    return sorted((folder / "multirun" / name).glob("*/seed=*"))


def stamp(folder, name=NAME):
    files = (folder / "multirun" / name).glob("*/seed=*/trajectory.nc")
    return {path.parent: path.stat().st_mtime_ns for path in files}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep") / "here"
    folder.mkdir()
    result = call_ntklens(*SWEEP, cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder, result


@pytest.fixture
def copy(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "here")
    return tmp_path / "here"


@pytest.mark.slow
def test_logs_and_status_tell_the_folders_apart_by_what_is_swept(copy):
    logs = "".join(log.read_text() for log in (copy / "multirun" / NAME / "logs").glob("*.log"))
    table = call_ntklens("task=status", f"name={NAME}", cwd=copy).stdout
    for width in (3, 5, 8):
        (run,) = (copy / "multirun" / NAME).glob(f"*-w{width}-*")
        assert f" {run.name}: model.width={width}\n" in logs
        assert f" *-{run.name[-8:]} " in table


def test_says_what_it_will_do_and_what_it_found(finished):
    folder, result = finished
    assert result.stderr == ""
    assert "3 configurations, 6 seeds, 0 done, 6 to run" in result.stdout
    assert "peak memory" in result.stdout
    for fragment in ("model.", "width", "2/2", "L_min", "Γ_min", "task=status name=synthetic_width"):
        assert fragment in result.stdout
    data = ntklens.load(folder / "multirun" / NAME)
    assert data["model.width"].values.tolist() == [3, 5, 8]
    assert (data.state == "done").all()
    stopped = int((data.minimum_step >= data.step.max("record")).sum())
    assert stopped
    assert (
        f"in {stopped} of 6 seeds the minimum is the last record or next to it: raise training.epochs" in result.stdout
    )


def test_a_second_launch_computes_nothing(copy):
    before = stamp(copy)
    result = call_ntklens(*SWEEP, cwd=copy)
    assert result.returncode == 0, result.stderr
    assert "6 done, 0 to run" in result.stdout
    assert "2/2" in result.stdout
    assert stamp(copy) == before


@pytest.mark.slow
def test_only_what_is_new_is_computed(copy):
    before = stamp(copy)
    result = call_ntklens(*SWEEP, "model.width=5,9", "ensemble=3", cwd=copy)
    assert result.returncode == 0, result.stderr
    assert "6 seeds, 2 done, 4 to run" in result.stdout
    assert {path: time for path, time in stamp(copy).items() if path in before} == before
    status = call_ntklens("task=status", f"name={NAME}", cwd=copy)
    assert status.returncode == 0
    assert "6 done of 6 seeds" in status.stdout
    assert "2 other runs lie in" in status.stdout


def test_status_tells_states_and_what_to_type(copy):
    first, second, third = find_seeds(copy)[:3]
    (first / "trajectory.nc").unlink()
    (first / "status.json").write_text(json.dumps({"state": "interrupted", "step": 5, "steps": 10}))
    (second / "trajectory.nc").unlink()
    (second / "status.json").unlink()
    result = call_ntklens("task=status", f"name={NAME}", cwd=copy)
    assert result.returncode == 3
    assert "4 done, 1 interrupted, 1 queued of 6 seeds" in result.stdout
    assert "python -m ntklens.run -m scaling=width model.width=3,5,8" in result.stdout
    assert "next     python -m ntklens.run -m scaling=width" in result.stdout
    (third / "trajectory.nc").unlink()
    (third / "status.json").write_text(json.dumps({"state": "failed", "error": "RuntimeError: why"}))
    result = call_ntklens("task=status", f"name={NAME}", cwd=copy)
    assert result.returncode == 1
    assert "failed   1 seed: RuntimeError: why" in result.stdout
    assert re.search(r"retry    python .* retry=true", result.stdout)
    described = json.loads(call_ntklens("task=status", f"name={NAME}", "task.format=json", cwd=copy).stdout)
    assert described["states"]["failed"] == 1
    assert described["exit_status"] == 1


@pytest.mark.parametrize(
    "text", ["{}", "[1]", "7", '{"version": 1, "command": 3, "configurations": [{"run": 1}]}', "{"]
)
def test_files_that_say_nonsense_are_said(copy, text):
    (copy / "multirun" / NAME / "plan.json").write_text(text)
    find_seeds(copy)[0].joinpath("status.json").write_text('{"state": "done", "bytes": "many", "observables": [1]}')
    find_seeds(copy)[1].joinpath("status.json").write_text(text)
    result = call_ntklens("task=status", f"name={NAME}", cwd=copy)
    assert result.returncode == 3, result.stderr  # what was asked for is not known
    assert "plan.json cannot be read" in result.stderr
    assert "6 done of 6 seeds" in result.stdout
    result = call_ntklens(*SWEEP, cwd=copy)
    assert result.returncode == 0, result.stderr
    assert "2/2" in result.stdout


def test_a_file_where_a_seed_belongs_is_said(copy):
    path = find_seeds(copy)[0]
    shutil.rmtree(path)
    path.touch()
    result = call_ntklens(*SWEEP, cwd=copy)
    assert result.returncode == 2
    assert f"{path.name} is a file" in result.stderr


@pytest.mark.slow
def test_nobody_reading_the_output_ends_nothing(tmp_path):
    launch = start_ntklens(*SWEEP, cwd=tmp_path)
    launch.stdout.close()
    assert launch.wait(timeout=200) == 0
    launch.stderr.close()
    assert len(find_seeds(tmp_path)) == 6
    assert all(read_status(path)["state"] == "done" for path in find_seeds(tmp_path))


@pytest.mark.slow
def test_a_full_disk_under_the_output_ends_nothing(copy):
    with open("/dev/full", "w") as full:
        process = subprocess.run(
            [sys.executable, "-m", "ntklens.run", "task=status", f"name={NAME}"],
            cwd=copy, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert process.returncode == 0
    assert process.stderr == "standard output: No space left on device; nothing more is printed there\n"


@pytest.mark.parametrize("words", [(), ("task.format=json",)])
def test_the_exit_status_does_not_depend_on_who_reads(copy, words):
    find_seeds(copy)[0].joinpath("trajectory.nc").unlink()
    launch = start_ntklens("task=status", f"name={NAME}", *words, cwd=copy)
    launch.stdout.close()
    assert launch.wait(timeout=60) == 3
    assert launch.stderr.read() == ""
    launch.stderr.close()


def test_a_sweep_over_several_folders_writes_all_or_nothing(copy):
    before = stamp(copy)
    words = (*SWEEP, f"name={NAME},other", "paths.results=multirun,/proc/x", "replace=true")
    result = call_ntklens(*words, cwd=copy)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert stamp(copy) == before
    assert not (copy / "multirun" / "other").exists()


def test_lines_to_type_next_are_whole(tmp_path):
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own" / "experiment" / "mine.yaml").write_text("# @package _global_\nensemble: 1\n")
    words = ("-m", "--config-dir", "own", "+experiment=mine", "name=a b", "model.width=3,5", *SMALL)
    words = tuple("experiment=mine" if word.startswith("+") else word for word in words)
    once = ("task=plan", "++retry=true", "task.format=json")
    described = json.loads(call_ntklens(*words, *once, cwd=tmp_path).stdout)
    assert shlex.split(described["command"])[3:] == list(words)


def test_status_of_nothing_says_what_there_is(copy):
    result = call_ntklens("task=status", "name=other", cwd=copy)
    assert result.returncode == 2
    assert result.stderr == "error: name=other: no sweep of this name in multirun; there is synthetic_width\n"


def test_a_plan_writes_nothing(tmp_path):
    result = call_ntklens(*SWEEP, "task=plan", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "to run" in result.stdout
    described = json.loads(call_ntklens(*SWEEP, "task=plan", "task.format=json", cwd=tmp_path).stdout)
    assert described["states"]["queued"] == 6
    assert described["estimated_seconds"] > 0
    assert described["command"] == "python -m ntklens.run " + " ".join(SWEEP)
    assert [c["axes"] for c in described["configurations"]] == [{"model.width": w} for w in (3, 5, 8)]
    planned = [piece for task in described["tasks"] for piece in task["slices"]]
    assert sorted(piece[0] for piece in planned) == [0, 1, 2]
    single = call_ntklens(*TOY, "task=plan", cwd=tmp_path)
    assert single.returncode == 0, single.stderr
    assert "1 configuration, 2 seeds" in single.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        (("model.width=3,-5",), ("model.width=-5",)),
        (("training.batch_size=8,99", "model.width=3"), ("training.batch_size=99",)),
        (("ntk.memory_limit=0.45", "model.width=3,20000"), ("raise ntk.memory_limit", "one seed of width 20000 needs")),
        (("ntk.engine=structured,neural_tangents", "model.width=3"), ("ntk.engine", "cannot be swept")),
        (("++launch.workers=1,2",), ("launch.workers", "cannot be swept")),
        (("hydra.sweeper.zip=[1,2]",), ("hydra.sweeper.zip=[1, 2]", "list of axes")),
        (("task=status",), ("task=status", "without -m")),
        (("launch.workers=0",), ("launch.workers=0", "positive")),
        (("launch.workers=1,2",), ("launch.workers", "cannot be swept")),
        (("task=train,plan",), ("task", "cannot be swept")),
        (("task=plan", "task.format=xml"), ("task.format=xml", "table, json")),
        (("scaling=width,depth",), ("scaling", "cannot be swept", "a line for each")),
        (("seed=range(3,3)",), ("seed=range(3,3)", "without values")),
    ],
)
def test_a_wrong_sweep_is_refused_before_anything_is_written(tmp_path, words, fragments):
    result = call_ntklens(*SWEEP, *words, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert len(result.stderr.splitlines()) == 1
    for fragment in fragments:
        assert fragment in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_failing_configuration_fails_alone_and_is_retried_on_request(tmp_path):
    (tmp_path / "broken_model.py").write_text(BROKEN)
    (tmp_path / "fail").touch()
    words = (*SWEEP, "model._target_=broken_model.MLP")
    result = call_ntklens(*words, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    assert "failed   2 seeds: RuntimeError: no such luck" in result.stdout
    assert "retry=true" in result.stdout
    states = {path: read_status(path) for path in find_seeds(tmp_path)}
    failed = [status for path, status in states.items() if "-w5-" in str(path)]
    assert [status["state"] for status in states.values()].count("done") == 4
    assert all("no such luck" in status["traceback"] for status in failed)
    done = stamp(tmp_path)
    (tmp_path / "fail").unlink()
    again = call_ntklens(*words, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert again.returncode == 1
    assert "2 failed before" in again.stdout
    assert stamp(tmp_path) == done
    retried = call_ntklens(*words, "retry=true", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert retried.returncode == 0, retried.stderr
    assert "6 seeds, 4 done, 2 to run" in retried.stdout
    assert {path: time for path, time in stamp(tmp_path).items() if path in done} == done
    assert call_ntklens("task=status", f"name={NAME}", cwd=tmp_path).returncode == 0


@pytest.mark.slow
def test_replace_computes_anew_and_keeps_the_old_until_then(copy):
    before = stamp(copy)
    words = (*SWEEP, "model.width=3,5", "replace=true")
    result = call_ntklens(*words, cwd=copy)
    assert result.returncode == 0, result.stderr
    assert "4 results are invalidated" in result.stdout
    after = stamp(copy)
    assert {path for path in before if before[path] == after[path]} == {p for p in before if "-w8-" in str(p)}
    assert not list(copy.rglob("*.replaced"))


@pytest.mark.parametrize("single", [False, True])
def test_replace_takes_nothing_back_before_the_input_is_checked(copy, single):
    before = stamp(copy)
    sweep = [word for word in SWEEP if word != "-m" and not word.startswith(("model.width", "scaling"))]
    words = (*sweep, "model.width=3", f"name={NAME}") if single else SWEEP
    result = call_ntklens(*words, "replace=true", "ntk.memory_limit=1e-6", cwd=copy)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert stamp(copy) == before


def test_a_plan_of_replacing_says_what_it_would_compute(copy):
    result = call_ntklens(*SWEEP, "replace=true", "task=plan", cwd=copy)
    assert result.returncode == 0, result.stderr
    assert "6 done, 6 to run" in result.stdout


def test_a_seed_killed_between_publication_and_status_is_finished_later(copy):
    path = find_seeds(copy)[0]
    expected = read_status(path)["observables"]
    (path / "status.json").write_text(json.dumps({"state": "running"}))
    (path / "checkpoint").mkdir()
    result = call_ntklens(*SWEEP, cwd=copy)
    assert result.returncode == 0, result.stderr
    assert "0 to run" in result.stdout
    assert read_status(path)["observables"] == expected
    assert not (path / "checkpoint").exists()


@pytest.mark.slow
def test_two_launches_at_the_same_moment_share_the_work(tmp_path):
    words = (*SWEEP, "training.epochs=3000", "model.width=3,5,8,11")
    launches = [start_ntklens(*words, cwd=tmp_path) for _ in range(2)]
    for launch in launches:
        output, errors = launch.communicate(timeout=300)
        assert launch.returncode == 0, errors
        assert "2/2" in output
    published = []
    for log in (tmp_path / "multirun" / NAME / "logs").glob("*.log"):
        published += [line.split(" ", 1)[1] for line in log.read_text().splitlines() if "published" in line]
    assert len(published) == len(set(published)) == 4  # no configuration was computed twice


@pytest.mark.slow
def test_ctrl_c_ends_in_order_and_the_next_launch_continues(tmp_path):
    words = (*SWEEP, "training.epochs=200000", "checkpoint.minutes=0.001", "launch.workers=2")
    launch = start_ntklens(*words, cwd=tmp_path)
    wait_for(lambda: len(find_checkpoints(tmp_path)) >= 2)
    status = run_ntklens("task=status", f"name={NAME}", cwd=tmp_path)
    assert status.returncode == 3
    assert "running" in status.stdout
    launch.send_signal(signal.SIGINT)
    _, errors = launch.communicate(timeout=60)
    assert launch.returncode == 130
    assert errors == f"interrupted: finished seeds are kept; to continue type: {format_command(words)}\n"
    assert not find_workers(tmp_path)
    assert "interrupted" in run_ntklens("task=status", f"name={NAME}", cwd=tmp_path).stdout
    launch = start_ntklens(*words, cwd=tmp_path)
    logs = tmp_path / "multirun" / NAME / "logs"
    wait_for(lambda: any(re.search(r"from update [1-9]", log.read_text()) for log in logs.glob("*.log")))
    launch.kill()  # its workers notice, and end
    launch.communicate()
    wait_for(lambda: not find_workers(tmp_path))


@pytest.mark.slow
def test_a_launch_that_is_asked_to_end_at_once_does(tmp_path):
    """Its worker has begun, but has no task yet."""
    launch = start_ntklens(*SWEEP, "training.epochs=200000", cwd=tmp_path)
    wait_for(lambda: find_workers(tmp_path))
    launch.send_signal(signal.SIGTERM)
    launch.communicate(timeout=30)  # and not after checkpoint.grace
    assert launch.returncode == 130
    assert not find_workers(tmp_path)


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def find_workers(folder):
    """The processes that work in a folder."""
    import psutil

    found = []
    for process in psutil.process_iter(["cmdline"]):
        try:
            if "ntklens.launch.local.worker" in (process.info["cmdline"] or []) and process.cwd() == str(folder):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced(tmp_path):
    words = (*SWEEP, "training.epochs=20000")
    launch = start_ntklens(*words, cwd=tmp_path)
    wait_for(lambda: list((tmp_path / "multirun" / NAME).glob("*/seed=0/status.json")))
    (worker,) = find_workers(tmp_path)
    worker.kill()
    _, errors = launch.communicate(timeout=300)
    assert launch.returncode == 0, errors
    assert len(list((tmp_path / "multirun" / NAME / "logs").glob("*.log"))) == 2


@pytest.mark.slow
def test_a_task_whose_workers_die_has_failed(tmp_path):
    words = (*SWEEP, "training.epochs=1000000000", "model.width=3", "ensemble=1")
    launch = start_ntklens(*words, cwd=tmp_path)
    killed = set()
    while launch.poll() is None:
        for worker in find_workers(tmp_path):
            seeds = list((tmp_path / "multirun" / NAME).glob("*/seed=0/status.json"))
            if any(read_status(path.parent).get("pid") == worker.pid for path in seeds):
                killed.add(worker.pid)
                worker.kill()
        time.sleep(0.1)
    output, _ = launch.communicate(timeout=60)
    assert launch.returncode == 1
    assert len(killed) == 2
    assert "ended by signal SIGKILL; out of memory?" in output


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_result_that_may_not_be_read_is_said(copy):
    path = find_seeds(copy)[0]
    (path / "status.json").unlink()
    (path / "trajectory.nc").chmod(0)
    result = call_ntklens(*SWEEP, cwd=copy)
    assert result.returncode == 2
    assert "cannot be opened" in result.stderr


def test_a_read_only_result_is_a_result(copy):
    for path in copy.rglob("trajectory.nc"):
        path.chmod(0o444)
    result = call_ntklens(*SWEEP, cwd=copy)
    assert result.returncode == 0, result.stderr
    assert "0 to run" in result.stdout


@pytest.mark.slow
def test_a_clock_that_was_set_back_changes_nothing(copy):
    """Everything there seems to be written tomorrow."""
    tomorrow = time.time() + 86400
    for path in copy.rglob("*"):
        os.utime(path, (tomorrow, tomorrow))
    path = find_seeds(copy)[0]
    (path / "trajectory.nc").unlink()
    (path / "status.json").write_text(json.dumps({"state": "running", "heartbeat": tomorrow, "host": "elsewhere"}))
    result = call_ntklens(*SWEEP, cwd=copy)
    assert result.returncode == 0, result.stderr
    assert "5 done, 1 to run" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["hydra/launcher=basic", "hydra/sweeper=basic"])
def test_hydras_own_launcher_and_sweeper_keep_working(tmp_path, launcher):
    result = call_ntklens(*SWEEP, launcher, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert len(list(tmp_path.rglob("trajectory.nc"))) == 6
    second = call_ntklens(*SWEEP, launcher, cwd=tmp_path)
    assert second.returncode == 0, second.stderr


@pytest.mark.slow
def test_programs_are_shared_by_the_next_job(tmp_path):
    """In one place: before JAX 0.11 the folder's own path was part of what a program is found by."""
    words = (*SWEEP, "ensemble=1")  # else a plan may cut seeds apart, by what the first launch took
    assert run_ntklens(*words, cwd=tmp_path, **ALONE).returncode == 0
    cache = tmp_path / "multirun" / ".compilation_cache"
    assert list(cache.rglob("*-cache"))
    # The large ones: what takes about as long to compile as is worth keeping may be kept at either launch.
    before = [name for name in list_files(cache) if "jit_measure_records" in name]
    result = run_ntklens(*words, "replace=true", cwd=tmp_path, **ALONE)
    assert result.returncode == 0, result.stderr
    assert before
    assert [name for name in list_files(cache) if "jit_measure_records" in name] == before


@pytest.mark.slow
def test_a_single_run_leaves_failed_seeds_alone_without_retry(tmp_path):
    (tmp_path / "multirun").mkdir()
    assert call_ntklens(*TOY, "ensemble=1", cwd=tmp_path).returncode == 0
    (run,) = (path for path in (tmp_path / "multirun" / "synthetic").iterdir() if path.is_dir())
    (run / "seed=1").mkdir()
    (run / "seed=1" / "status.json").write_text(json.dumps({"state": "failed", "error": "RuntimeError: why"}))
    result = call_ntklens(*TOY, cwd=tmp_path)
    assert result.returncode == 1
    assert "seed 1 failed before: RuntimeError: why" in result.stderr
    assert call_ntklens(*TOY, "retry=true", cwd=tmp_path).returncode == 0


def test_the_worker_ends_when_its_input_closes():
    process = subprocess.run(
        [sys.executable, "-m", "ntklens.launch.local.worker"],
        input="",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert process.returncode == 0
