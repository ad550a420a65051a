"""What other packages are asked for."""

import importlib.util
import os
import subprocess
import sys

import pytest

from ntklens import _compat


@pytest.fixture
def cuda(monkeypatch):
    """An environment in which JAX's plugin for CUDA is installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "jax_cuda13_plugin" or find(name))
    monkeypatch.delenv("XLA_FLAGS", raising=False)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, _compat.WITHOUT_TRITON),
        ("--xla_dump_to=there", f"--xla_dump_to=there {_compat.WITHOUT_TRITON}"),
        ("--xla_gpu_enable_triton_gemm=true", "--xla_gpu_enable_triton_gemm=true"),
    ],
)
def test_a_gpu_compiles_without_triton_unless_asked(cuda, monkeypatch, given, expected):
    if given is not None:
        monkeypatch.setenv("XLA_FLAGS", given)
    _compat.leave_out_triton()
    assert os.environ["XLA_FLAGS"] == expected


def test_without_a_gpu_nothing_is_asked(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    _compat.leave_out_triton()
    assert "XLA_FLAGS" not in os.environ


def test_the_installed_jax_knows_the_flag():
    """XLA ends a process that asks for what it does not know."""
    environment = os.environ | {"XLA_FLAGS": _compat.WITHOUT_TRITON, "JAX_PLATFORMS": "cpu"}
    code = "import jax.numpy as jnp; print(float(jnp.ones(2).sum()))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "2.0"), done.stderr
