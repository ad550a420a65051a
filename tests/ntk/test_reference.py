import importlib.machinery
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from cases import CASES, MLP, build_flax
from ntklens import _compat
from ntklens.ntk import reference, structured


def assert_close(actual, expected):
    assert actual.shape == expected.shape
    assert jnp.abs(actual - expected).max() <= 1e-12 * jnp.abs(expected).max()


QUICK = ("mlp depth 2 with bias", "list of weights and biases", "cnn", "tied weights W and its transpose")
COMPARED = [
    pytest.param(case, id=case.name, marks=[] if case.name in QUICK else pytest.mark.slow)
    for case in CASES
    if case.neural_tangents
]


@pytest.mark.parametrize("case", COMPARED)
@pytest.mark.usefixtures("x64")
def test_neural_tangents_agrees(case):
    f, params, x = case.make()
    expected = jax.jit(lambda params: reference.kernel(f, params, x))(params)
    assert_close(structured.kernel(f, params, x), expected)


@pytest.mark.usefixtures("x64")
def test_cross_kernels_agree():
    f, params, x = build_flax(MLP(6, 3), 4, 5)
    x2 = 0.5 * x[:2] + 0.25
    assert_close(structured.kernel(f, params, x, x2), reference.kernel(f, params, x, x2))


@pytest.mark.usefixtures("x64")
def test_layers_agree():
    f, params, x = build_flax(MLP(6, 3), 4, 5)
    expected = reference.layer_kernels(f, params, x)
    layers = structured.layer_kernels(f, params, x)
    assert list(expected) == list(layers)
    for layer, share in layers.items():
        assert_close(share, expected[layer])


def test_tensorflow_is_neither_imported_nor_needed():
    program = """
import sys
sys.modules["tensorflow"] = None  # importing it would fail
sys.modules["tf2jax"] = None
import jax.numpy as jnp
from ntklens.ntk import reference
print(float(reference.kernel(lambda w, x: x @ w, jnp.ones((2, 1)), jnp.ones((1, 2)))[0, 0, 0, 0]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["2.0"]


def test_nothing_of_jax_is_patched_before_neural_tangents_is_needed():
    program = """
import sys
import jax.core
import ntklens.ntk.reference
assert "neural_tangents" not in sys.modules
assert not hasattr(jax.core, "Literal")
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_missing_neural_tangents_is_named_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "neural_tangents", raising=False)
    monkeypatch.setattr(sys, "meta_path", [importlib.machinery.BuiltinImporter])
    with pytest.raises(ImportError, match=r"pip install --no-deps neural-tangents==0\.6\.5"):
        _compat.import_neural_tangents()
