"""What other packages are asked for."""

import importlib.util
import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
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


def test_what_a_scan_reads_is_counted():
    """By the installed JAX, and by both forms in which releases keep it."""

    def scan(weight, start, samples):
        return jax.lax.scan(lambda carry, x: ((carry[0] * weight + x, carry[1] + 1.0), x), (start, 0.0), samples)

    (equation,) = (
        equation for equation in jax.make_jaxpr(scan)(2.0, 1.0, jnp.ones(3)).eqns if equation.primitive.name == "scan"
    )
    assert _compat.count_scanned(equation.params) == (1, 2)
    assert _compat.count_scanned({"num_consts": 3, "num_carry": 1}) == (3, 1)
    trees = SimpleNamespace(unpack=lambda: ((None,) * 3, (None,), ()))
    assert _compat.count_scanned({"ft_in": trees}) == (3, 1)
