"""Lines that are printed do what they say: read back by a real shell and by Hydra's grammar."""

import os
import shutil
import subprocess
import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from commands import TOY, call_ntklens
from ntklens.config.lines import (
    COMMAND,
    drop_words,
    format_command,
    format_override,
    hold_back,
    list_continuing,
    order_words,
    suggest_quotes,
)

VALUES = [
    "größe", "a b", " a ", "lr=0.1 #2", "it's", 'say "x"', "both ' and \"", "a,b", "{x}", "a{b}", "[x]", "$HOME",
    "${x}", "a${b}", "\\", "a\\", "\\${x}", "a\\'b", 'a\\"b', "x!y", "3", "null", "true", "nan", "1e3", "", "~/x", "~",
    "`ls`", "a*b", "?", "a(b)", "choice(1)", "range(3)", "-m", "x:y", "x;y", "<>|&", "%", "@", "=", "=ls",
    "Überprüfung, κ=2",
    ["a,b", "c d", "ü"], ["it's", 'x"y'], {"a": 1, "b": "x y,z"}, None, True, 3, 1e-5, -1.5,
]  # fmt: skip
SHELLS = [shell for shell in ("bash", "zsh", "sh") if shutil.which(shell)]


def read_in_shell(shell, line):
    """Return the words that a program gets which a shell starts with this line."""
    result = subprocess.run([shell, "-c", line], capture_output=True, text=True, check=True)
    return result.stdout.split("\0")[:-1]


@pytest.mark.parametrize("shell", SHELLS)
def test_shell_and_hydra_read_what_was_meant(shell):
    words = [format_override("name", value) for value in VALUES]
    line = format_command(words).replace(COMMAND, r"printf '%s\0'")
    assert read_in_shell(shell, line) == words
    for word, value in zip(words, VALUES, strict=True):
        override = OverridesParser.create().parse_override(word)
        assert not override.is_sweep_override()
        assert OmegaConf.to_container(OmegaConf.create({"name": override.value()}), resolve=True) == {"name": value}


def test_lines_stay_as_plain_as_they_can_be():
    assert format_command(["-m", format_override("name", "on slurm")]) == f"{COMMAND} -m name='on slurm'"
    assert format_command(["a.b=1e-3", "~model.width", "x=1,2"]) == f"{COMMAND} a.b=1e-3 '~model.width' x=1,2"


def test_options_come_first_with_their_values():
    typed = ["model.width=8", "--config-dir", "my conf", "-m", "ensemble=1", "--cfg", "job", "-cd=x"]
    assert order_words(typed) == [
        "--config-dir",
        "my conf",
        "-m",
        "--cfg",
        "job",
        "-cd=x",
        "model.width=8",
        "ensemble=1",
    ]


def test_what_is_done_once_is_left_out():
    words = ["-m", "task=plan", "task.format=json", "++retry=true", "replace=true", "name=task=x", "tasks=3"]
    assert list_continuing(words) == ["-m", "name=task=x", "tasks=3"]
    assert drop_words(["a.b=1", "a.c=2", "a=3"], "a.") == ["a=3"]


def test_values_of_a_swept_group_are_held_back():
    words = ["-m", "optimizer=momentum,sgd", "optimizer.momentum=0.5", "optimizer.learning_rate=1,2", "model.width=3"]
    assert hold_back(words) == [*words[:2], "optimizer.momentum=choice(0.5)", *words[3:]]
    assert hold_back(words[1:]) == words[1:]  # no sweep


@pytest.mark.parametrize("word", ["name=größe", "name=a#b", "paths.results=/x/y=z", "name=~/x", "dataset.root=a&b"])
def test_suggested_quotes_are_read(word):
    (read,) = read_in_shell("sh", f"printf '%s\\0' {suggest_quotes(word, False)}")
    key, _, value = word.partition("=")
    override = OverridesParser.create().parse_override(read)
    assert (override.key_or_group, override.value()) == (key, value)


@pytest.mark.slow
def test_the_line_that_continues_a_single_run_continues_it(tmp_path):
    """With a folder of its own groups, and a name that shell and Hydra would both misread."""
    (tmp_path / "my conf" / "model").mkdir(parents=True)
    (tmp_path / "my conf" / "model" / "narrow.yaml").write_text("defaults: [mlp, _self_]\nwidth: 4\n")
    name = "größe $HOME #2, it's lr=0.1"
    words = [*TOY, "model=narrow", format_override("name", name), "tracking=none", "--config-dir", "my conf"]
    words.remove("model.width=6")
    first = call_ntklens(*words, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    lost = next((tmp_path / "multirun" / name).glob("*/seed=1"))
    shutil.rmtree(lost)
    status = call_ntklens("task=status", format_override("name", name), cwd=tmp_path)
    assert status.returncode == 0  # nobody knows any more that there was a second seed
    lost.mkdir()
    status = call_ntklens("task=status", format_override("name", name), cwd=tmp_path)
    assert status.returncode == 3, status.stderr
    (line,) = [line for line in status.stdout.splitlines() if line.startswith("next")]
    folder = os.path.dirname(sys.executable)
    env = os.environ | {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "NTKLENS_CACHE": str(tmp_path.parent / "ntklens-cache"),
    }
    again = subprocess.run(
        ["bash", "-c", line.removeprefix("next").strip()], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert again.returncode == 0, again.stderr
    assert (lost / "trajectory.nc").exists()
    assert "1 seed in" in again.stdout
    assert len(list((tmp_path / "multirun" / name).glob("*-mlp-*"))) == 1
    (line,) = [line for line in again.stdout.splitlines() if line.startswith("next")]
    for word in ("--config-dir 'my conf'", "model=narrow", "ensemble=2", " -m ", "scaling=width"):
        assert word in line
