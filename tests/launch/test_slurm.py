"""What is handed to SLURM, without one: sbatch here only keeps what it is given.

NTKLENS_GOLDEN=write makes the golden files anew; look at what changed before you commit it.
"""

import json
import os
import re
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands import TOY, call_ntklens, run_ntklens, start_ntklens
from ntklens.errors import InputError
from ntklens.launch.slurm import submissions
from ntklens.launch.slurm.client import expand_number
from ntklens.launch.slurm.job import share_slices
from ntklens.launch.slurm.settings import SlurmSettings, check_settings
from ntklens.launch.slurm.status import ask_slurm
from ntklens.launch.slurm.submissions import Submission, ask_for_jobs, find_submitted, forget_ended, read_submissions
from ntklens.launch.slurm.submit import ask_for_memory, ask_for_minutes, cut_into_arrays
from ntklens.report.sweep_table import describe_jobs
from ntklens.store.locks import lock_submission
from ntklens.store.units import write_status
from ntklens.sweep.plan import Slice, Task
from ntklens.sweep.status import Job, read_sweep

GOLDEN = Path(__file__).parent / "golden"
SWEEP = ("-m", "model.width=3,5", *[word for word in TOY if "width" not in word], "name=golden")
SBATCH = r"""#!/bin/bash
for last; do :; done
case "$*" in *--test-only*) eval "$MEANWHILE"; exit 0;; esac
tasks=$(($(sed -nE "s/^#SBATCH --array=0-([0-9]+).*/\1/p" "$last") + 1))
[ -z "$QUOTA" ] || [ $(($(cat "$QUOTA") - tasks)) -ge 0 ] || { echo "sbatch: error: QOSMaxSubmitJobPerUserLimit
sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit)" >&2; exit 1; }
[ -z "$QUOTA" ] || echo $(($(cat "$QUOTA") - tasks)) >"$QUOTA"
cp "$last" "$KEPT/$(ls "$KEPT" | wc -l).sh"
[ -z "$REFUSE" ] || { echo "sbatch: error: $REFUSE" >&2; exit 1; }
echo "Submitted batch job $((77 + $(ls "$KEPT" | wc -l)))"
"""
STOCK = {"stock_slurm": "Job violates accounting/QOS policy"}


@pytest.fixture
def tools(tmp_path):
    """A folder of commands that stand for SLURM's; squeue prints the file `queue`."""
    folder, kept = tmp_path / "tools", tmp_path / "kept"
    kept.mkdir()
    folder.mkdir()
    commands = {
        "sbatch": SBATCH,
        "srun": "#!/bin/bash\n",
        "scontrol": "#!/bin/bash\necho 'MaxArraySize            = 1001'\n",
    }
    commands["squeue"] = f"#!/bin/bash\ncat {tmp_path}/queue 2>/dev/null || true\n"
    for name, text in commands.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder, kept


def submit(tools, tmp_path, *words, without_sweep=False, do=call_ntklens, **environment):
    folder, kept = tools
    here = tmp_path / "here"
    here.mkdir(exist_ok=True)
    path = f"{folder}:{os.environ['PATH']}"
    sweep = ("name=golden",) if without_sweep else SWEEP
    return do(*sweep, *words, cwd=here, PATH=path, KEPT=str(kept), **environment)


@pytest.mark.parametrize("preset", ["slurm_gpu", "slurm_cpu", "slurm_gpu_array", "stock_slurm"])
def test_the_text_given_to_sbatch(tools, tmp_path, preset):
    words = [f"hydra/launcher={preset.removesuffix('_array')}"]
    if preset.endswith("_array"):
        words += ["hydra.launcher.task_minutes=0.001", "hydra.launcher.partition=a100", "hydra.launcher.account=me"]
        words += ["hydra.launcher.setup=[module load cuda]", "+hydra.launcher.more={mail-type: FAIL}"]
        words += ["hydra.launcher.processes=4", "hydra.launcher.constraint='a100|h100'", "hydra.launcher.minutes=90"]
    result = submit(tools, tmp_path, *words, REFUSE=STOCK.get(preset, ""))
    assert result.returncode == (3 if preset in STOCK else 0), result.stderr
    (script,) = tools[1].iterdir()
    text = re.sub(r"[^\s=]*/here/multirun", "RESULTS", script.read_text())
    text = re.sub(r"\d{8}-\d{6}-([0-9a-f]{6})", "SUBMISSION", text)
    text = re.sub(r"golden\.[0-9a-f]{6}", "golden.IDENTITY", text)
    text = re.sub(r"(_log\.(?:out|err)) .* -u -m submitit", r"\1 PYTHON -u -m submitit", text)
    golden = GOLDEN / f"{preset}.sh"
    if os.environ.get("NTKLENS_GOLDEN") == "write":
        golden.write_text(text)
    assert text == golden.read_text()


def test_what_sbatch_refuses_is_said_and_the_next_launch_submits_it(tools, tmp_path):
    words = ("hydra/launcher=slurm_cpu",)
    full = submit(tools, tmp_path, *words, REFUSE="Batch job submission failed: Slurm temporarily unable to accept job")
    assert full.returncode == 2
    assert "temporarily unable to accept job" in full.stderr
    assert len(full.stderr.splitlines()) == 1
    assert submit(tools, tmp_path, *words).returncode == 0


def test_what_waits_or_runs_is_not_submitted_again(tools, tmp_path):
    words = ("hydra/launcher=slurm_cpu", "hydra.launcher.task_minutes=0.001")
    assert submit(tools, tmp_path, *words).returncode == 0
    (record,) = (tmp_path / "here" / "multirun" / "golden" / "slurm").glob("*.json")
    job, name = (json.loads(record.read_text())[key] for key in ("job", "name"))
    lines = [f"{job}_{k}|{state}|None|node1|0:01|{name}\n" for k, state in enumerate(("RUNNING", "PENDING", "PENDING"))]
    (tmp_path / "queue").write_text("".join(lines))
    again = submit(tools, tmp_path, *words)
    assert again.returncode == 0, again.stderr
    assert "4 seeds, 0 done, 1 to run" in again.stdout  # the array has four tasks, of which three are known
    assert "3 seeds wait or are computed already" in again.stdout
    assert len(list(tools[1].iterdir())) == 2
    replacing = submit(tools, tmp_path, *words, "replace=true")
    assert replacing.returncode == 2
    assert (
        replacing.stderr
        == "error: replace=true: jobs of golden wait or run; let them end, or type task=cancel, and then replace\n"
    )
    (tmp_path / "queue").unlink()
    (tools[0] / "squeue").write_text("#!/bin/bash\nexit 1\n")
    blind = submit(tools, tmp_path, *words)
    assert blind.returncode == 2
    assert "squeue does not answer" in blind.stderr


def test_a_job_whose_launch_died_before_its_files_were_there_is_replaced(tools, tmp_path):
    words = ("hydra/launcher=slurm_cpu", "hydra.launcher.task_minutes=0.001")
    assert submit(tools, tmp_path, *words).returncode == 0
    (record,) = (tmp_path / "here" / "multirun" / "golden" / "slurm").glob("*.json")
    job, name = (json.loads(record.read_text())[key] for key in ("job", "name"))
    queue = "".join(f"{job}_{k}|PENDING|Priority||0:00|{name}\n" for k in range(4))
    (tmp_path / "queue").write_text(queue)
    assert "0 to run" in submit(tools, tmp_path, *words).stdout
    (record.with_suffix("") / f"{job}_2_submitted.pkl").unlink()
    left = queue.replace(f"{job}_2|PENDING|Priority||0:00|{name}\n", "")
    (tools[0] / "scancel").write_text(
        f"#!/bin/bash\necho $* >>{tmp_path}/cancelled\nprintf '{left}' >{tmp_path}/queue\n"
    )
    (tools[0] / "scancel").chmod(0o755)
    again = submit(tools, tmp_path, *words)
    assert again.returncode == 0, again.stderr
    assert "1 to run" in again.stdout
    assert (tmp_path / "cancelled").read_text() == f"--quiet {job}_2\n"
    assert len(list(tools[1].iterdir())) == 2


def read_records(tmp_path):
    """What the launches of a sweep have written down, and squeue's line for each task of it."""
    paths = sorted((tmp_path / "here/multirun/golden/slurm").glob("*.json"))
    records = [json.loads(path.read_text()) for path in paths]
    records.sort(key=lambda record: int(record["job"] or 0))  # names of one second have no order
    lines = [
        [f"{record['job']}_{k}|PENDING|Priority||0:00|{record['name']}\n" for k in range(len(record["tasks"]))]
        for record in records
    ]
    return records, lines


def test_what_waits_in_a_hidden_partition_is_not_submitted_again(tools, tmp_path):
    words = ("hydra/launcher=slurm_cpu", "hydra.launcher.task_minutes=0.001")
    assert submit(tools, tmp_path, *words).returncode == 0
    _, (lines,) = read_records(tmp_path)
    (tools[0] / "squeue").write_text(f"#!/bin/bash\n[[ $* == *--all* ]] && printf '{''.join(lines)}'; true\n")
    again = submit(tools, tmp_path, *words)
    assert again.returncode == 0, again.stderr
    assert "0 to run" in again.stdout


def test_jobs_of_others_who_launched_the_sweep_are_known(tools, tmp_path, monkeypatch):
    numbers = [str(number) for number in range(1000, 1700)]
    (tools[0] / "squeue").write_text(
        "#!/bin/bash\nfor word; do case $word in --jobs=*) tr , '\\n' <<<${word#--jobs=};; esac; done |\n"
        'while read number; do echo "$number|PENDING|Priority||0:00|name.abc"; done\n'
    )
    monkeypatch.setenv("PATH", f"{tools[0]}:{os.environ['PATH']}")
    theirs = [make_submission(tmp_path / "slurm" / f"{number}.json", number) for number in numbers]
    for submission in theirs:
        submission.store()
    assert ask_for_jobs(theirs) == {}  # ours: --user tells of them
    monkeypatch.setattr(os, "getuid", lambda: os.stat(tmp_path).st_uid + 1)
    jobs = ask_for_jobs(theirs)
    assert list(jobs) == numbers
    assert len(find_submitted(theirs, jobs)) == 2
    forget_ended(theirs, {})
    assert len(list((tmp_path / "slurm").iterdir())) == 700


def test_names_that_are_no_text_and_tasks_told_together_are_read(tools, tmp_path):
    words = ("hydra/launcher=slurm_cpu", "hydra.launcher.task_minutes=0.001")
    assert submit(tools, tmp_path, *words).returncode == 0
    ((record,), _) = read_records(tmp_path)
    together = f"{record['job']}_[0-1,3%2]|PENDING|Priority||0:00|{record['name']}\n"
    (tmp_path / "queue").write_bytes(b"7|RUNNING|None|node1|0:01|caf\xe9\n" + together.encode())
    again = submit(tools, tmp_path, *words)
    assert again.returncode == 0, again.stderr
    assert "1 to run" in again.stdout
    status = submit(tools, tmp_path, "task=status", without_sweep=True)
    assert status.returncode == 3, status.stderr
    assert "3 tasks wait" in status.stdout


def test_a_failed_seed_is_submitted_once_by_retry(tools, tmp_path):
    words = ("hydra/launcher=slurm_cpu", "hydra.launcher.task_minutes=0.001")
    assert submit(tools, tmp_path, *words).returncode == 0
    (record,), (first,) = read_records(tmp_path)
    run, ((seed, _),) = record["tasks"][0][0]
    write_status(tmp_path / "here/multirun/golden" / run / f"seed={seed}", "failed", seed=seed)
    (tmp_path / "queue").write_text("".join(first))  # requeued: it waits, and will not try it again
    retry = submit(tools, tmp_path, *words, "retry=true")
    assert "1 to run" in retry.stdout, retry.stderr
    records, (first, second) = read_records(tmp_path)
    assert [record["retry"] for record in records] == [False, True]
    second[0] = second[0].replace("_0|", "|").replace("PENDING", "RUNNING")  # a job of one task, not at it yet
    (tmp_path / "queue").write_text("".join(first + second))
    assert "0 to run" in submit(tools, tmp_path, *words, "retry=true").stdout
    assert len(list(tools[1].iterdir())) == 2


def test_a_quota_takes_what_fits(tools, tmp_path):
    words = ("hydra/launcher=slurm_cpu", "hydra.launcher.task_minutes=0.001", "ensemble=3")
    (tmp_path / "quota").write_text("4")
    part = submit(tools, tmp_path, *words, QUOTA=str(tmp_path / "quota"))
    assert part.returncode == 3, part.stderr
    assert "4 of 6 tasks were submitted; type the same line later for the rest" in part.stdout
    assert "raise hydra.launcher.task_minutes, lower launch.workers" in part.stdout
    records, lines = read_records(tmp_path)
    assert [len(record["tasks"]) for record in records] == [3, 1]
    assert len(list((tmp_path / "here/multirun/golden/slurm").iterdir())) == 4  # nothing of what was refused is left
    (tmp_path / "queue").write_text("".join(lines[0]) + lines[1][0].replace("_0|", "|"))
    none = submit(tools, tmp_path, *words, QUOTA=str(tmp_path / "quota"))
    assert none.returncode == 2
    assert "QOSMaxSubmitJobPerUserLimit" in none.stderr
    rest = submit(tools, tmp_path, *words)
    assert rest.returncode == 0, rest.stderr
    assert "2 to run" in rest.stdout


@pytest.mark.parametrize(
    ("config", "jobs"), [("MaxArraySize = 0", 4), ("SchedulerParameters = bf_max=1,max_array_tasks=3", 2)]
)
def test_arrays_are_as_the_cluster_allows_them(tools, tmp_path, config, jobs):
    (tools[0] / "scontrol").write_text(f"#!/bin/bash\necho '{config}'\n")
    result = submit(tools, tmp_path, "hydra/launcher=slurm_cpu", "hydra.launcher.task_minutes=0.001")
    assert result.returncode == 0, result.stderr
    assert len(list(tools[1].iterdir())) == jobs


def test_a_job_that_slurm_takes_after_it_timed_out_is_known(tools, tmp_path):
    words = ("hydra/launcher=slurm_cpu", "hydra.launcher.task_minutes=0.001")
    late = submit(
        tools, tmp_path, *words, REFUSE="Batch job submission failed: Socket timed out on send/recv operation"
    )
    assert late.returncode == 3
    assert "whether SLURM took it is not known" in late.stdout
    _, (lines,) = read_records(tmp_path)
    (tmp_path / "queue").write_text("".join(lines).replace("None_", "12_"))
    (tools[0] / "scancel").write_text(f"#!/bin/bash\necho $* >>{tmp_path}/cancelled\n")
    (tools[0] / "scancel").chmod(0o755)
    assert submit(tools, tmp_path, *words).returncode == 0
    assert (tmp_path / "cancelled").read_text() == "--quiet 12_0 12_1 12_2 12_3\n"  # without files they can only fail


def test_what_ends_between_plan_and_submission_is_not_submitted(tools, tmp_path):
    words = ("hydra/launcher=slurm_cpu", "hydra.launcher.task_minutes=0.001")
    assert submit(tools, tmp_path, *words, REFUSE="not now").returncode == 2
    plan = json.loads((tmp_path / "here/multirun/golden/plan.json").read_text())
    run = plan["configurations"][0]["run"]
    ends = f"mkdir -p '{run}/seed=1'; echo '{{\"state\": \"failed\"}}' >'{run}/seed=1/status.json'"
    result = submit(tools, tmp_path, *words, MEANWHILE=f"cd multirun/golden; {ends}")
    assert result.returncode == 0, result.stderr
    assert "4 to run" in result.stdout
    ((record,), _) = read_records(tmp_path)
    assert [run, [[1, 1]]] not in [piece for task in record["tasks"] for piece in task]
    assert len(record["tasks"]) == 3


@pytest.mark.slow
def test_waiting_without_squeue_says_so_and_ends_with_the_last_seed(tools, tmp_path):
    (tools[0] / "squeue").write_text("#!/bin/bash\nexit 1\n")
    launch = submit(tools, tmp_path, "hydra/launcher=slurm_cpu", "launch.wait=true", do=start_ntklens)
    timer = threading.Timer(120, launch.kill)
    timer.start()
    assert launch.stderr.readline() == "squeue does not answer: waiting until all seeds are there, or it does\n"
    ((record,), _) = read_records(tmp_path)
    for run, ((first, last),) in (piece for task in record["tasks"] for piece in task):
        for seed in range(first, last + 1):
            write_status(tmp_path / "here/multirun/golden" / run / f"seed={seed}", "failed", seed=seed)
    _, errors = launch.communicate()
    timer.cancel()
    assert launch.returncode == 1
    assert not errors


def test_nothing_is_cancelled_while_a_launch_submits(tools, tmp_path):
    assert submit(tools, tmp_path, "hydra/launcher=slurm_cpu").returncode == 0
    with lock_submission(tmp_path / "here/multirun/golden"):
        busy = submit(tools, tmp_path, "task=cancel", without_sweep=True, do=run_ntklens)  # locks are a process's
    assert busy.returncode == 2
    assert "a launch submits jobs of this sweep at this moment" in busy.stderr
    free = submit(tools, tmp_path, "task=cancel", without_sweep=True)
    assert free.stdout == "golden has no jobs in SLURM\n"


@pytest.mark.parametrize("name", ["clusters", "cluster", "M", "parsable", "wait", "test-only", "quiet", "job_name"])
def test_options_under_which_jobs_would_not_be_known_are_refused(name):
    with pytest.raises(InputError, match=rf"^hydra\.launcher\.more\.{name}: "):
        check_settings(SlurmSettings(more={name: "x"}))
    check_settings(SlurmSettings(more={"mail-type": "FAIL", "wait-all-nodes": 1, "mem-bind": "local"}))


def test_another_users_seeds_are_not_lost(tmp_path, monkeypatch, tools):
    monkeypatch.setenv("PATH", f"{tools[0]}:{os.environ['PATH']}")
    submission = make_submission(tmp_path / "sweep" / "slurm" / "a.json")
    submission.store()
    monkeypatch.setenv("SLURM_JOB_ID", "12_1")
    (tmp_path / "sweep" / "run").mkdir()
    (tmp_path / "sweep" / "run" / "config.yaml").touch()
    fresh = {"heartbeat": time.time(), "host": "node1"}
    write_status(tmp_path / "sweep" / "run" / "seed=1", "running", seed=1, **fresh)
    status = ask_slurm(read_sweep(tmp_path / "sweep"))
    assert "lost     1 seed" in describe_jobs(status)[0]
    monkeypatch.setattr(os, "getuid", lambda: os.stat(tmp_path).st_uid + 1)
    status = ask_slurm(read_sweep(tmp_path / "sweep"))
    assert not status.lost
    assert [line for line in describe_jobs(status) if "not known to squeue (jobs of user" in line]


def make_submission(path, job="12", tasks=3):
    return Submission(path, "name.abc", [[("run", [k]), ("other", [k])] for k in range(tasks)], job)


def make_job(number, name="name.abc"):
    return Job(number, "RUNNING", "None", "node1", "0:01", name)


def test_numbers_stand_for_jobs():
    assert expand_number("12_[0-2,7,10-14:2%2]") == [f"12_{k}" for k in (0, 1, 2, 7, 10, 12, 14)]
    assert expand_number("12_3") == ["12_3"]
    assert expand_number("12") == ["12"]
    assert expand_number("nonsense") == []


def test_submissions_are_found_by_their_number_and_by_their_name(tmp_path, monkeypatch):
    known = make_submission(tmp_path / "slurm" / "a.json")
    known.store()
    unknown = make_submission(tmp_path / "slurm" / "b.json", job=None)  # its launch died before it knew
    unknown.name = "name.def"
    unknown.store()
    (tmp_path / "slurm" / "c.json").write_text('{"name": 3}')
    read = read_submissions(tmp_path)
    assert read == [known, unknown]
    numbers = {"12_1": "name.abc", "12_2": "another.def", "13": "name.def", "9_0": "else"}
    jobs = {number: make_job(number, name) for number, name in numbers.items()}
    submitted = find_submitted(read, jobs)
    assert {key: job.number for key, job in submitted.items()} == {
        ("run", 1): "12_1", ("other", 1): "12_1", ("run", 0): "13", ("other", 0): "13",
    }  # fmt: skip
    here = {"13": make_job("13", "name.def")}
    monkeypatch.setattr(submissions.os, "getuid", lambda: os.stat(tmp_path).st_uid + 1)
    forget_ended(read, here)  # another's
    monkeypatch.undo()
    assert len(list((tmp_path / "slurm").iterdir())) == 3
    forget_ended(read, here)
    assert [path.name for path in (tmp_path / "slurm").iterdir()] == ["b.json", "c.json"]


def test_arrays_hold_tasks_alike_and_no_more_than_the_cluster_takes():
    tasks = [Task([Slice(0, [k], 1.0)], seconds, 2**30) for k, seconds in enumerate([60.0] * 7 + [36000.0] * 5)]
    arrays = list(cut_into_arrays(tasks, SlurmSettings(), 1.5, 3))
    assert [len(array) for array in arrays] == [3, 2, 3, 3, 1]
    assert sorted(task.slices[0].seeds[0] for array in arrays for task in array) == list(range(12))
    assert ask_for_minutes(arrays[0], SlurmSettings(), 1.5) == 1440  # 22.7 hours, and no more than a day
    assert ask_for_minutes(arrays[0], SlurmSettings(most_minutes=600), 1.5) == 600
    assert ask_for_minutes(arrays[-1], SlurmSettings(), 1.5) == 15
    assert ask_for_memory(arrays[-1], SlurmSettings()) == 2
    assert ask_for_memory(arrays[-1], SlurmSettings(processes=4)) == 8


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 5))
def test_processes_of_a_job_share_its_seeds(counts, size):
    slices = [{"run": str(k), "seeds": list(range(count))} for k, count in enumerate(counts)]
    shares = [share_slices(slices, rank, size) for rank in range(size)]
    shared = [(piece["run"], seed) for share in shares for piece in share for seed in piece["seeds"]]
    assert sorted(shared) == sorted((piece["run"], seed) for piece in slices for seed in piece["seeds"])
    assert len(shared) == len(set(shared))
