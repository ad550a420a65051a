"""Kernels whose leaves, or single parameters, count with factors, beside the Jacobian in float64."""

import jax
import numpy as np
import pytest

from cases import CASES
from ntklens.ntk import structured
from ntklens.ntk.layers import name_layers
from ntklens.ntk.weighted import weigh_leaves
from references import compute_jacobians

NAMES = (
    *("mlp depth 2 with bias", "cnn", "weight on the left", "two contracted axes", "masked weight"),
    *("ntk parameterisation", "dense called twice", "positions on the left"),
)


@pytest.fixture(params=[case for case in CASES if case.name in NAMES], ids=lambda case: case.name)
def problem(request, x64):
    f, params, x = request.param.make()
    jacobians = [jacobian.reshape(-1, jacobian.shape[-1]) for jacobian in compute_jacobians(f, params, x).values()]
    return f, params, x, jacobians


def test_a_kernel_weighs_its_leaves(problem):
    f, params, x, jacobians = problem
    factors = [(0.0, 1.0, 0.3, 7.0)[k % 4] for k in range(len(jacobians))]
    expected = sum(factor * jacobian @ jacobian.T for factor, jacobian in zip(factors, jacobians, strict=True))
    function, values = weigh_leaves(f, params, factors)
    theta = np.asarray(structured.kernel(function, values, x))
    np.testing.assert_allclose(theta.reshape(expected.shape), expected, rtol=1e-9, atol=1e-12)
    assert list(structured.layer_traces(function, values, x)) == list(name_layers(f, params))
    # The twin that must differ: one factor for each layer, that of its first leaf.
    if len(name_layers(f, params)) < len(jacobians):
        coarse = sum(factors[min(leaves)] * jacobians[leaf] @ jacobians[leaf].T
                     for leaves in name_layers(f, params).values() for leaf in leaves)  # fmt: skip
        assert not np.allclose(coarse, expected, rtol=1e-3)


def test_a_trace_weighs_each_parameter(problem):
    f, params, x, jacobians = problem
    generator = np.random.default_rng(0)
    weights = jax.tree.map(lambda leaf: generator.uniform(size=leaf.shape) * (generator.uniform(size=leaf.shape) > 0.2),
                           params)  # fmt: skip
    pairs = zip(jax.tree.leaves(weights), jacobians, strict=True)
    expected = sum(np.sum(jacobian**2 * weight.ravel()) for weight, jacobian in pairs)
    found = jax.jit(lambda values, weights: structured.weighted_trace(f, values, x, weights))(params, weights)
    assert float(found) == pytest.approx(expected, rel=1e-9)


def test_factors_that_are_none_are_refused(x64):
    f, params, _ = CASES[0].make()
    for factors in ([1.0], [-1.0] * len(jax.tree.leaves(params))):
        with pytest.raises(ValueError, match="factors must be"):
            weigh_leaves(f, params, factors)
