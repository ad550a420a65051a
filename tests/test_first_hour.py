"""What a first hour gets wrong: every line of it is answered by one line that says what to type, status 2, no file.

In this process: a composition takes a tenth of a second, a process of its own two.
"""

import json
import shlex
from importlib.metadata import version

import pytest

from commands import call_ntklens, isolate, list_files

# typed → what the answer must contain; `type`d words are what a shell takes
WRONG = [
    ("seeds=20", "did you mean ensemble=20"),
    ("n_seeds=3", "did you mean ensemble=3"),
    ("width=64", "did you mean model.width=64"),
    ("+width=64", "did you mean model.width=64"),
    ("lr=1e-3", "did you mean optimizer.learning_rate=1e-3"),
    ("optimizer.lr=1e-3", "did you mean optimizer.learning_rate=1e-3"),
    ("epochs=10", "did you mean training.epochs=10"),
    ("batch_size=32", "did you mean training.batch_size=32"),
    ("train_size=64", "did you mean dataset.train_size=64"),
    ("data=mnist", "did you mean dataset=mnist"),
    ("output_dir=out", "did you mean paths.results=out"),
    ("model.widht=3", "did you mean model.width=3"),
    ("--width=64", "type model.width=64"),
    ("--widht 64", "no such option"),
    ("--multirum", "did you mean --multirun"),
    ("--config-dir", "needs a value"),
    ("--config-dir nowhere", "there is no such folder"),
    ("--cfg everything", "must be one of job, hydra, all"),
    ("train", "type task=train"),
    ("mnist_width", "type experiment=mnist_width"),
    ("model.width", "type model.width=VALUE"),
    ("model.width: 3", "type model.width=3"),
    ("model.width==3", "type model.width=3"),
    ("'model.width=3 ensemble=2'", "python -m ntklens.run model.width=3 ensemble=2"),
    ("model.width=1e4", "type model.width=10000"),
    ("training.epochs=2e3", "type training.epochs=2000"),
    ("model.width=1.5", "must be an integer"),
    ("model.width=", "must be an integer"),
    ("model.width=[3,4]", "python -m ntklens.run -m model.width=3,4"),
    ("model.width=[3", "brackets or quotes do not match"),
    ("model.width=null", "needs a value"),
    ("model.width.x=3", "type model.width=VALUE"),
    ("optimizer.learning_rate=fast", "must be a number"),
    ("model.bias=maybe", "must be true or false"),
    ("model.width=3,4 ensemble=3", "type: python -m ntklens.run -m model.width=3,4 ensemble=3"),
    ("'model.width=range(3,5)'", "type: python -m ntklens.run -m model.width='range(3,5)'"),
    ("name=a,b", """name='"a,b"'"""),
    ("scaling=width dataset=digits", "type: python -m ntklens.run -m scaling=width dataset=digits"),
    ("width=3,4 epochs=5", "type: python -m ntklens.run -m model.width=3,4 training.epochs=5"),
    ("seeds=0,1", "type: python -m ntklens.run -m seed=0,1"),
    ("-m model.width=3,4,", "a value between commas is empty; type model.width=3,4"),
    ("keep=kernel", "keep=kernel: must be a list; type keep=[kernel]"),
    ("'name=run # y=1'", """type name='"run # y=1"'"""),
    ("name=größe", """type name='"größe"'"""),
    ("'name=run#1'", """type name='"run#1"'"""),
    ("name=lr=0.1", """type name='"lr=0.1"'"""),
    ("dataset.root=/data/epoch=9", """type dataset.root='"/data/epoch=9"'"""),
    ("-m name=größe,b model.width=3,4", """type name='"größe",b'"""),
    ("name=null", "name=null: must be a folder's name"),
    ("name=", "must be a folder's name"),
    ("name=a/b", "must be a folder's name"),
    ("'name=${nothing}'", "there is no such key"),
    ("hydra.run.dir=out", "type paths.results=out"),
    ("-m hydra.sweep.dir=out model.width=3,4", "type paths.results=out"),
    ("model=MLP", "did you mean model=mlp"),
    ("task=trian", "did you mean task=train"),
    ("dataset=/data/mnist", "type dataset=mnist dataset.root=/data/mnist"),
    ("+experiment=mnist_first", "type experiment=mnist_first"),
    ("optimizer.momentum=0.9", "type optimizer=momentum optimizer.momentum=0.9"),
    ("dataset.classes=9", "type dataset=synthetic dataset.classes=9"),
    ("optimizer=sgd optimizer.momentum=0.9", "type optimizer=momentum optimizer.momentum=0.9"),
    ("optimizer=sgd optimizer.accumulator_dtype=float32", "type +optimizer.accumulator_dtype=float32"),
    ("-m optimizer=adam,sgd optimizer.momentum=0.9", "none of the swept options has it"),
    ("-m model=mlp,lstm model.kernel=1", "model=lstm: no such option; available: causal_transformer, cnn, mlp"),
    ("-m task=train,plan", "it is one for the whole sweep"),
    ("-m task=status model.width=3,4", "type it without -m"),
    ("hydra/launcher=slurm_gpu", "type: python -m ntklens.run -m hydra/launcher=slurm_gpu"),
    ("hydra.launcher.partition=gpu", "type -m hydra/launcher=slurm_gpu hydra.launcher.partition=gpu"),
    ("ensemble=2.5", "such as ensemble=2"),
    ("metrics=kernel_distnce", "must be a list; type metrics=[kernel_distance]"),
    ("metrics=[alignment,kernel_distnce]", "type metrics=[alignment,kernel_distance]"),
    ("metrics=nothing", "must be a list of some of participation_ratio, kernel_distance"),
    ("keep=kernl", "must be a list; type keep=[kernel]"),
    ("-m model.width=64,abc,1.5,32", "model.width=abc: must be an integer; type model.width=64,32"),
    ("-m optimizer.learning_rate=1e-3,fast", "fast: must be a number; type optimizer.learning_rate=0.001"),
    (
        "model.width=32, 64 seed=1",
        "model.width=32, 64: a shell splits this at its spaces; type: "
        "python -m ntklens.run -m model.width=32,64 seed=1",
    ),
    ("-m model.width=32 ,64", "type: python -m ntklens.run -m model.width=32,64"),
    ("-m 'model.width=choice(32,' '64)'", "type: python -m ntklens.run -m model.width='choice(32,64)'"),
    ("seed=1 model.width = 64", "type: python -m ntklens.run seed=1 model.width=64"),
    ("model.width= 64", "type: python -m ntklens.run model.width=64"),
    ("metrics=[alignment, kernel_distance]", "type: python -m ntklens.run metrics='[alignment,kernel_distance]'"),
    ("model.width=32, seed=1", "a value between commas is empty; type model.width=32"),
    ("name=my run", "name=my run: a shell splits this at its spaces; type name='my run'"),
    ("name=run report", "report: not key=value; type task=report"),
    ("task=status name=none format=json", "format: unknown key; did you mean task.format=json\n"),
    ("task=status name=none --format=json", "type task.format=json"),
    ("task=report name=none format=json", "did you mean task.format=json, which belongs to task=plan or task=status"),
    ("task.live=true", "task.live: unknown key; it belongs to task=status; type task=status task.live=true"),
    ("task.nothing=x", "task.nothing: unknown key; the chosen task has none"),
    ("momentum=0.9", "did you mean optimizer.momentum=0.9, which belongs to optimizer=momentum"),
    ("optimizer=momentum momentum=0.9", "did you mean optimizer.momentum=0.9\n"),
    ("model=cnn dataset=synthetic", "model=cnn: takes images"),
    ("-m model=mlp,cnn dataset=synthetic", "model=cnn: takes images"),
    ("optimizer=lion optimizer.learning_rate=auto", "not for optimizer=lion"),
    ("optimizer=lion model.parameterization=mup", "no rule for the rates of optimizer=lion"),
    ("precision=64", "must be one of float32, float64"),
    ("'model.width = 64'", "model.width = 64: type model.width=64"),
    ("'name=[a,b'", "type name='[a,b]'"),
    ("task=report name=a,b", "several sweeps are a list; type name='[a,b]'"),
    ("-m model.width=32 64", "a sweep's values are separated by commas; type model.width=32,64"),
    ("model.width 64", "type model.width=64"),
    ("experiment=mnist_frist", "no such option; did you mean experiment=mnist_first; available: "),
    ("tracking.mode=on", "must be one of auto, online, offline, disabled"),
    ("seed=1..3", "must be an integer; type seed=1 ensemble=3"),
    ("seed=0-19", "type seed=0 ensemble=20"),
    ("-m seed=0:3 ensemble=1", "type seed=0,1,2,3"),
    ("checkpoint.minutes=5min", "must be a number, in minutes; type checkpoint.minutes=5\n"),
    ("checkpoint.minutes=300s", "type checkpoint.minutes=5\n"),
    ("checkpoint.minutes=often", "must be a number, in minutes, such as checkpoint.minutes=5"),
    ("ntk.memory_limit=4GB", "must be a number, in GiB; type ntk.memory_limit=4\n"),
    (
        "ntk.memory_limit=4 GB",
        "ntk.memory_limit=4 GB: a number stands without a unit, in GiB; type ntk.memory_limit=4\n",
    ),
    ("ntk.memory_limit=512MiB", "type ntk.memory_limit=0.5\n"),
    ("training.epochs=10k", "type training.epochs=10000\n"),
    ("optimizer.learning_rate=1e-3s", "type optimizer.learning_rate=0.001\n"),
    ("-m model.width=32-128", "type model.width=32,64,128\n"),
    ("-m model.width=32:128", "type model.width=32,64,128\n"),
    ("-m model.width=8,10k,32..64", "type model.width=8,10000,32,64\n"),
    ("seed=3 model.width=32-128", "type: python -m ntklens.run -m seed=3 model.width=32,64,128\n"),
    ("model.width=wide", "such as model.width=128\n"),
    ("-m hydra/launcher=slurm_gpu hydra.launcher.minutes=2h", "in minutes; type hydra.launcher.minutes=120\n"),
    (
        "task=report model.width=7 name=x",
        "model.width=7: task=report reads name, paths.results, tracking alone; "
        "type: python -m ntklens.run task=report name=x\n",
    ),
    ("task=plan ensemble=5 seed 3", "seed 3: not key=value; type seed=3\n"),
    ("name=5 min", "a shell splits this at its spaces; type name='5 min'\n"),
    ("dataset.name=3 rings", "a shell splits this at its spaces"),
    ("seed=1 to 3", "type seed=1,2,3\n"),
    ("dataset.train_size=10 000", "type dataset.train_size=10000\n"),
    ("training.epochs=5e", "such as training.epochs="),
    ("training.epochs=5m", "such as training.epochs="),
    (
        "task=status name=x ~tracking",
        "~tracking: no group can be left out; leave the word out, or type tracking=OPTION\n",
    ),
    ("task=status name=x retry=true tracking=none", "type: python -m ntklens.run task=status name=x tracking=none\n"),
    (
        "task=sync name=x seed=3 tracking.patience=9",
        "type: python -m ntklens.run task=sync name=x tracking.patience=9\n",
    ),
    ("task=report name=x dataset=mnist", "dataset=mnist: task=report reads name"),
    ("task=report dataset=mnist", "name=mnist: no sweep of this name"),
    ("task=report name=x model.width=3,4", "model.width=3,4: task=report reads name"),
    ("task=status modl.width=3", "modl: unknown key; did you mean model.width=3\n"),
    ("-m modl.width=3,4", "did you mean model.width=3,4\n"),
    ("schema=config", "schema: unknown key; there are "),
    ("hydra/launcher=slrm", "available: basic, local, slurm_cpu, slurm_gpu, stock_local, stock_slurm\n"),
    ("task=status name=none", "there is none yet"),
    ("task=report name=none", "no sweep of this name"),
]


@pytest.fixture
def call(tmp_path):
    """(words) → (exit status, standard output, standard error) of the program in an empty folder."""
    folder = tmp_path / "here"
    folder.mkdir()

    def run(*words):
        result = call_ntklens(*words, cwd=folder)
        return result.returncode, result.stdout, result.stderr

    return run


@pytest.mark.parametrize(("typed", "answer"), WRONG, ids=[typed for typed, _ in WRONG])
def test_one_line_says_what_to_type(call, tmp_path, typed, answer):
    status, output, errors = call(*shlex.split(typed))
    assert (status, output) == (2, "")
    assert len(errors.splitlines()) == 1, errors
    assert answer in errors
    assert list_files(tmp_path / "here") == []


@pytest.mark.parametrize(
    "typed", ["model=cnn dataset=synthetic", "ntk.memory_limit=0.001", "-m model=cnn dataset=synthetic model.width=8,9"]
)
def test_an_error_is_the_only_line_where_runs_would_be_kept_on_this_disk(tmp_path, typed):
    """Where runs of W&B go is said, without credentials, once nothing is refused any more."""
    folder = tmp_path / "here"
    folder.mkdir()
    result = call_ntklens(*shlex.split(typed), cwd=folder, **isolate(folder))
    assert (result.returncode, result.stdout, len(result.stderr.splitlines())) == (2, "", 1)
    assert list_files(folder) == []


@pytest.mark.parametrize(
    ("typed", "error"),
    [
        ("model.width=0,1", "model.width=0: must be a positive integer"),
        ("dataset.train_size=20,5000", "dataset.train_size=5000: digits has 1000 training images"),
        ("model.width=8,8 dataset.train_size=5000", "dataset.train_size=5000: digits has 1000 training images"),
    ],
)
def test_notes_of_a_sweep_come_after_its_errors(call, typed, error):
    status, output, errors = call("-m", "optimizer=momentum,sgd", "optimizer.momentum=0.5", *typed.split())
    assert (status, output, errors) == (2, "", f"error: {error}\n")


@pytest.mark.parametrize(
    ("typed", "once"),
    [
        ("model.width=8,9,8", "model.width=8"),
        ("optimizer.learning_rate=0.1,1e-1", "optimizer.learning_rate=0.1"),
        ("model=mlp,mlp", "model=mlp"),
        ("seed=1,0,1 ensemble=2", "seed=1"),
    ],
)
def test_what_a_sweep_lists_twice_is_computed_once_and_said(call, typed, once):
    status, output, errors = call("-m", "task=plan", "ensemble=1", *typed.split())
    assert (status, errors) == (0, "")
    assert f"         more than once in the sweep, computed once: {once}\n" in output
    status, output, errors = call("-m", "task=plan", "task.format=json", "ensemble=1", *typed.split())
    assert (status, json.loads(output)["version"]) == (0, 1)
    assert f"more than once in the sweep, computed once: {once}\n" in errors


def test_a_plan_says_how_many_seeds_several_first_seeds_make(call):
    status, output, errors = call("-m", "task=plan", "seed=1,2,3")
    assert (status, errors) == (0, "")
    assert (
        "         seeds 1…7: ensemble=5 starts 5 at each of the 3 values of seed; for these 3 alone type ensemble=1\n"
        in output
    )
    assert "         seeds 0…1, 10…11: ensemble=2" in call("-m", "task=plan", "seed=0,10", "ensemble=2")[1]
    for typed in (("seed=1,2,3", "ensemble=1"), ("ensemble=3",)):
        output = call("-m", "task=plan", *typed)[1]
        assert "3 seeds" in output
        assert "more than once" not in output
        assert "values of seed" not in output


def test_the_version_is_that_of_ntklens(call):
    status, output, errors = call("--version")
    assert (status, errors) == (0, "")
    assert output.startswith(f"ntklens {version('ntklens')} (JAX {version('jax')}, ")
    assert len(output.splitlines()) == 1


def test_help_lists_what_is_for_users(call):
    status, output, errors = call("--help")
    assert (status, errors) == (0, "")
    assert "\ntask: cancel, dashboard, plan, report, status, sync, train\n" in output
    assert "schema" not in output
    assert output.endswith("hydra/launcher: basic, local, slurm_cpu, slurm_gpu, stock_local, stock_slurm\n")


def test_options_may_stand_anywhere(call):
    status, output, errors = call("model.width=8,9", "-m", "ensemble=1", "task=plan")
    assert (status, errors) == (0, "")
    assert "2 configurations" in output


def test_a_key_of_one_swept_option_goes_to_that_option(call):
    status, output, errors = call("-m", "optimizer=momentum,sgd", "optimizer.momentum=0.5", "ensemble=1", "task=plan")
    assert status == 0
    assert errors == ""
    assert "         optimizer.momentum is left out where there is no such key: optimizer=sgd\n" in output
    assert "2 configurations" in output
    status, output, _ = call("-m", "optimizer=momentum,sgd", "optimizer.momentum=0.5,0.7", "ensemble=1", "task=plan")
    assert status == 0
    assert "3 configurations" in output  # sgd once
