"""What `import ntklens` offers: light to import, every name there, with the types that functions return."""

import ast
import inspect
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import ntklens
from references import compute_layer_kernels

HEAVY = ("jax", "flax", "optax", "scipy", "xarray", "h5py", "matplotlib", "plotly", "wandb", "sklearn", "hydra")


def f(params, x):
    return jnp.tanh(x @ params["hidden"]["w"] + params["hidden"]["b"][None]) @ params["out"]["w"]


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    shapes = {"hidden": {"w": (3, 5), "b": (5,)}, "out": {"w": (5, 2)}}
    params = {
        layer: {name: jnp.asarray(rng.standard_normal(shape)) for name, shape in leaves.items()}
        for layer, leaves in shapes.items()
    }
    return params, jnp.asarray(rng.standard_normal((4, 3))), jnp.asarray(rng.standard_normal((6, 3)))


def test_the_import_is_light_and_names_come_when_they_are_used():
    code = (
        "import sys, ntklens; assert callable(ntklens.ntk); ntklens.__version__; "
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("name", ntklens.__all__)
def test_every_public_name_is_there_and_described(name):
    assert inspect.getdoc(getattr(ntklens, name))


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(ntklens.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
    seen = {alias.asname for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen | {"__version__"} == set(ntklens.__all__)
    assert ntklens.__version__ == version("ntklens")
    assert (Path(ntklens.__file__).parent / "py.typed").exists()


def test_what_functions_return_has_a_public_type():
    x = np.array([8.0, 16, 32, 64, 128])
    samples = ntklens.summarise(x, x[:, None] ** -0.5 * [[0.9, 1, 1.1]], ("seed",))
    law = ntklens.fit_law(samples, "y", "x")
    fit = ntklens.fit_form(samples, "power")
    values = (samples, law, fit, *fit.parameters.values(), ntklens.find_transition(samples, "y", "x"))
    for value in values:
        assert getattr(ntklens, type(value).__name__) is type(value)
    annotated = {"analyse": ntklens.Study, "load_snapshots": dict[str, ntklens.Snapshot]}
    for name, kind in annotated.items():
        assert inspect.signature(getattr(ntklens, name), eval_str=True).return_annotation == kind
    for name, kind in {"groups": "Group", "laws": "Law", "surfaces": "Surface", "claims": "Claim"}.items():
        assert ntklens.Study.__annotations__[name] == list[getattr(ntklens, kind)]


def test_kernels_have_the_names_that_people_look_for(problem):
    params, x1, x2 = problem
    shares = compute_layer_kernels(f, params, x1, x2)
    theta = sum(shares.values())
    found = ntklens.ntk(f, params, x1, x2)
    assert found.shape == (4, 2, 6, 2)
    np.testing.assert_allclose(found, theta, rtol=1e-4, atol=1e-5)
    for layer, share in ntklens.ntk_by_layer(f, params, x1, x2).items():
        np.testing.assert_allclose(share, shares[layer], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(ntklens.kernel(f, params, x=x1, x2=x2), found)
    np.testing.assert_array_equal(ntklens.ntk(f, params, x1), ntklens.ntk(f, params, x1, x2=x1))
    assert ntklens.layer_kernels(f, params, x=x1, x2=x2).keys() == shares.keys()
    assert ntklens.ntk_trace(f, params, x1).shape == ()
    assert float(ntklens.ntk_trace(f, params, x1)) == pytest.approx(float(ntklens.trace(ntklens.ntk(f, params, x1))))
    assert float(ntklens.ntk_trace(f, params, x1, x2[:4])) == pytest.approx(
        np.einsum("icic->", theta[:, :, :4]), rel=1e-4
    )
    with pytest.raises(ValueError, match="x1 holds 4 samples, x2 6: only a square kernel has a trace"):
        ntklens.ntk_trace(f, params, x1, x2)


def test_the_module_of_the_kernel_is_its_function_too():
    import ntklens.ntk.structured  # this makes `ntklens.ntk` the module

    assert list(inspect.signature(ntklens.ntk).parameters) == ["f", "params", "x1", "x2"]
    assert ntklens.ntk.structured.ntk.__doc__.startswith("The neural tangent kernel")
