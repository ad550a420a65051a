"""Exit statuses and messages. Bad input: status 2, one line that names the override, nothing written."""

import gzip
import os
import struct
import subprocess
import sys

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from commands import TOY, call_ntklens, list_files, run_ntklens


def encode_labels(count, code=0x08, values=None):
    return gzip.compress(struct.pack(">BBBBI", 0, 0, code, 1, count) + bytes(values or [0] * count))


def expect_refusal(result, folder, *fragments):
    assert result.returncode == 2, result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    for fragment in fragments:
        assert fragment in lines[0]
    assert result.stdout == ""
    assert list_files(folder) == []


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        (["model.widht=3"], ["model.widht", "model.width"]),
        (["foo=3"], ["foo"]),
        (["+foo=3"], ["foo: unknown key"]),
        (["+model.foo=3"], ["model.foo: unknown key"]),
        (["model=foo"], ["model=foo", "mlp"]),
        (["optimizer=nadam"], ["optimizer=nadam", "adam, adamw"]),
        (["experiment=foo"], ["experiment=foo", "mnist_first"]),
        (["model.width=[1"], ["model.width=[1"]),
        (["model=null"], ["must be a string or a list"]),
        (["model._target_=nowhere.Net"], ["_target_=nowhere.Net"]),
        (["optimizer._target_=optax.lion"], ["_target_=optax.lion", "eps"]),
        (["paths.results="], ["paths.results="]),
        (["model.width=0"], ["model.width=0", "positive integer"]),
        (["model.width=-3"], ["model.width=-3", "positive integer"]),
        (["model.width=1.5"], ["model.width", "1.5", "an integer"]),
        (["model.width=wide"], ["model.width", "wide", "an integer"]),
        (["model.depth=0"], ["model.depth=0"]),
        (["model.activation=rleu"], ["model.activation=rleu", "relu"]),
        (["model.parameterization=mupp"], ["model.parameterization=mupp", "standard, ntk, mup"]),
        (["model.parameterization=mup", "optimizer=lion"], ["model.parameterization=mup", "no rule", "optimizer=lion"]),
        (["model.base_width=0"], ["model.base_width=0", "positive integer"]),
        (["dataset.train_size=0"], ["dataset.train_size=0"]),
        (["dataset.train_size=1001"], ["dataset.train_size=1001", "digits has 1000 training images"]),
        (["dataset.input_dim=1.5"], ["dataset.input_dim", "1.5", "an integer"]),
        (["dataset.input_dim=0"], ["dataset.input_dim=0", "positive integer"]),
        (["model.output_scale=0"], ["model.output_scale=0", "positive number"]),
        (["metrics=[linearised_distance]"], ["metrics=[linearised_distance]", "model.linearised=true"]),
        (["dataset.probe_size=0"], ["dataset.probe_size=0"]),
        (["dataset.probe_size=800"], ["dataset.probe_size=800", "797"]),
        (["dataset.test_size=790"], ["dataset.test_size=790"]),
        (["ensemble=0"], ["ensemble=0"]),
        (["ensemble=two"], ["ensemble", "two"]),
        (["seed=-1"], ["seed=-1"]),
        (["training.epochs=0"], ["training.epochs=0"]),
        (["training.epochs=2.5"], ["training.epochs", "2.5"]),
        (["training.loss=hinge"], ["training.loss=hinge", "cross_entropy, mse"]),
        (["training.batch_size=201"], ["training.batch_size=201", "200"]),
        (["optimizer.learning_rate=0"], ["optimizer.learning_rate=0"]),
        (["optimizer.learning_rate=-1e-3"], ["optimizer.learning_rate=-0.001"]),
        (["optimizer.learning_rate=nan"], ["optimizer.learning_rate=nan"]),
        (["optimizer.learning_rate=fast"], ["optimizer.learning_rate=fast", "must be a number"]),
        (["optimizer.learning_rate=null"], ["optimizer.learning_rate=null", "needs a value"]),
        (["optimizer.learning_rate=auto"], ["optimizer.learning_rate=auto", "optimizer=sgd", "not for optimizer=adam"]),
        (
            ["optimizer=lion", "optimizer.learning_rate=auto"],
            ["optimizer.learning_rate=auto", "not for optimizer=lion"],
        ),
        (["protocol=resolved", "optimizer.learning_rate=0.1"], ["optimizer.learning_rate=0.1", "protocol=resolved"]),
        (["protocol=resolved", "optimizer.learning_rate=auto"], ["optimizer.learning_rate=auto", "protocol=resolved"]),
        (["protocol.step_divisor=3"], ["protocol.step_divisor=3", "protocol=resolved"]),
        (["protocol=resolved", "protocol.step_divisor=0"], ["protocol.step_divisor=0", "1 or more"]),
        (["protocol=resolved", "protocol.step_divisor=inf"], ["protocol.step_divisor=inf", "1 or more"]),
        (["+optimizer.eps_root=inf"], ["optimizer.eps_root=inf", "finite"]),
        (["protocol.arm=resovled"], ["protocol.arm=resovled", "paper, resolved"]),
        (["protocol=resolved", "seed=4294967295", "ensemble=1"], ["seed=4294967295", "the pilot's"]),
        (["ntk.engine=fast"], ["ntk.engine=fast", "structured"]),
        (["ntk.trace=rough"], ["ntk.trace=rough", "estimate"]),
        (["ntk.trace_draws=32"], ["ntk.trace_draws=32", "ntk.trace=estimate"]),
        (["ntk.trace=estimate", "ntk.trace_draws=1"], ["ntk.trace_draws=1", "2"]),
        (["ntk.trace=estimate", "ntk.engine=neural_tangents"], ["ntk.engine=neural_tangents", "structured"]),
        (["ntk.memory_limit=0.001"], ["ntk.memory_limit=0.001", "lower model.width"]),
        (["precision=float16"], ["precision=float16"]),
        (["schedule.record_ratio=1.5"], ["schedule.record_ratio=1.5", "1.08"]),
        (["name=a/b"], ["name=a/b"]),
        (["name="], ["name"]),
        (["paths.results=/proc/nowhere"], ["paths.results=/proc/nowhere"]),
        (["scaling=width"], ["scaling=width: a sweep needs -m", "python -m ntklens.run -m scaling=width"]),
    ],
)
def test_bad_input(tmp_path, words, fragments):
    folder = tmp_path / "here"
    folder.mkdir()
    expect_refusal(call_ntklens(*words, cwd=folder), folder, *fragments)


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        (["model.width=7,0"], ["model.width=0"]),
        (["name=../elsewhere", "model.width=7,8"], ["name=../elsewhere"]),
        (["scaling=width", "optimizer.learning_rate=nan"], ["optimizer.learning_rate=nan"]),
        (["protocol=paper,resolved", "optimizer.learning_rate=0.1"], ["optimizer.learning_rate=0.1"]),
        (["optimizer=sgd,adam", "optimizer.learning_rate=auto"], ["optimizer.learning_rate=auto", "optimizer=adam"]),
    ],
)
def test_one_wrong_configuration_of_a_sweep_launches_none(tmp_path, words, fragments):
    folder = tmp_path / "here"
    folder.mkdir()
    expect_refusal(call_ntklens("-m", *TOY, *words, cwd=folder), folder, *fragments)


def test_missing_data_and_no_network(tmp_path):
    folder = tmp_path / "here"
    folder.mkdir()
    nowhere = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https")}
    result = run_ntklens("dataset=mnist", f"dataset.root={tmp_path}/data", cwd=folder, **nowhere)
    expect_refusal(result, folder, f"dataset.root={tmp_path}/data", "mnist", "NTKLENS_DATA")


@pytest.mark.parametrize(
    ("damage", "fragment"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:20]), "train-labels-idx1-ubyte.gz"),
        (lambda path: path.write_bytes(b"not gzip at all"), "train-labels-idx1-ubyte.gz"),
        (lambda path: path.write_bytes(encode_labels(200, code=0x0D)), "train-labels-idx1-ubyte.gz"),
        (lambda path: path.write_bytes(encode_labels(200, values=[77] * 200)), "train-labels-idx1-ubyte.gz"),
    ],
    ids=["truncated", "corrupted", "wrong dtype", "label out of range"],
)
def test_damaged_data(tmp_path, damage, fragment):
    folder, mnist = tmp_path / "here", tmp_path / "data" / "mnist"
    folder.mkdir()
    mnist.mkdir(parents=True)
    for kind in ("train", "t10k"):
        images = struct.pack(">BBBBIII", 0, 0, 8, 3, 200, 28, 28) + bytes(200 * 784)
        (mnist / f"{kind}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (mnist / f"{kind}-labels-idx1-ubyte.gz").write_bytes(encode_labels(200))
    damage(mnist / "train-labels-idx1-ubyte.gz")
    expect_refusal(call_ntklens("dataset=mnist", cwd=folder, NTKLENS_DATA=str(tmp_path / "data")), folder, fragment)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_unwritable_output_directory(tmp_path):
    folder = tmp_path / "here"
    folder.mkdir(mode=0o500)
    expect_refusal(call_ntklens(cwd=folder), folder, "paths.results=multirun")


def test_output_directory_that_is_a_file(tmp_path):
    folder = tmp_path / "here"
    folder.mkdir()
    (tmp_path / "file").write_text("")
    expect_refusal(
        call_ntklens(f"paths.results={tmp_path}/file", cwd=folder), folder, "paths.results: ", "/file is a file"
    )


def test_a_typo_inside_a_group_file_fails_at_composition(tmp_path):
    folder, conf = tmp_path / "here", tmp_path / "conf"
    folder.mkdir()
    (conf / "model").mkdir(parents=True)
    (conf / "model" / "typo.yaml").write_text("defaults: [mlp, _self_]\nwidht: 3\n")
    result = call_ntklens("--config-dir", str(conf), "model=typo", cwd=folder)
    expect_refusal(result, folder, "widht")


def test_hydra_shows_the_configuration_and_writes_nothing(tmp_path):
    result = call_ntklens("--cfg", "job", *TOY, cwd=tmp_path)
    assert result.returncode == 0
    assert "width: 6" in result.stdout
    assert list_files(tmp_path) == []


@pytest.mark.slow
def test_a_command_leaves_the_process_as_it_was(tmp_path):
    """A failed command, one that trains in double precision, one that shows help: then the first again."""
    before = sys.argv, sys.stdout, dict(os.environ), HydraConfig.initialized(), GlobalHydra.instance().is_initialized()
    assert call_ntklens("model.width=0", cwd=tmp_path).returncode == 2
    assert call_ntklens(*TOY, "precision=float64", "ensemble=1", cwd=tmp_path).returncode == 0
    assert "== Configuration groups ==" in call_ntklens("--help", cwd=tmp_path).stdout
    status = call_ntklens("task=status", "name=synthetic", cwd=tmp_path)
    assert (status.returncode, status.stderr) == (0, "")
    assert before == (
        sys.argv, sys.stdout, dict(os.environ), HydraConfig.initialized(), GlobalHydra.instance().is_initialized()
    )  # fmt: skip
    assert call_ntklens("model.width=0", cwd=tmp_path).returncode == 2


def test_a_closed_output_is_no_failure(tmp_path):
    line = f'exec "{sys.executable}" -m ntklens.run task=status name=none >&- 2>err'
    subprocess.run(["sh", "-c", line], cwd=tmp_path, check=False)
    assert (tmp_path / "err").read_text().startswith("error: ")
    assert len((tmp_path / "err").read_text().splitlines()) == 1
