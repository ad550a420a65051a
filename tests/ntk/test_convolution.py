import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ntklens.ntk import gradients, structured
from ntklens.ntk.convolution import arrange_gradient, extract_patches, flip_filters, pull_back_input
from ntklens.ntk.program import Equation


def draw_convolution(seed):
    """(function, its equation, operands) of a random layout, rank, stride, dilation, padding and number of groups."""
    generator = np.random.default_rng(seed)
    while True:
        rank, groups, batch, inputs, outputs = (int(v) for v in generator.integers(1, (4, 3, 3, 3, 3)))
        size, taps = generator.integers(2, 7, rank), generator.integers(1, 4, rank)
        strides = generator.integers(1, 4, rank)
        spread, stretch = (generator.integers(1, 1 + (seed + k) % 2 + 1, rank) for k in (0, 1))
        padding = generator.integers(-1, 4, (rank, 2))
        if np.all((size - 1) * spread + padding.sum(1) - (taps - 1) * stretch >= 0):
            break
    orders = [tuple(int(d) for d in generator.permutation(rank + 2)) for _ in range(3)]

    def draw(lengths, order):
        shape = np.empty(rank + 2, int)
        shape[list(order)] = lengths
        return jnp.asarray(generator.normal(size=tuple(shape)))

    x = draw([batch, groups * inputs, *size], orders[0])
    weight = draw([groups * outputs, inputs, *taps], orders[1])

    def convolve(x, weight):
        return lax.conv_general_dilated(
            x,
            weight,
            strides.tolist(),
            padding.tolist(),
            spread.tolist(),
            stretch.tolist(),
            lax.ConvDimensionNumbers(*orders),
            groups,
        )

    (equation,) = jax.make_jaxpr(convolve)(x, weight).eqns
    return convolve, Equation(equation.primitive, equation.params, (0, 1), (2,)), (x, weight)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("seed", range(8))
def test_gradients_are_those_of_jax(seed):
    convolve, equation, (x, weight) = draw_convolution(seed)
    dimensions, groups = equation.params["dimension_numbers"], equation.params["feature_group_count"]
    order = (dimensions.rhs_spec[0], *dimensions.rhs_spec[2:], dimensions.rhs_spec[1])  # out, taps..., in
    taps = tuple(weight.shape[d] for d in dimensions.rhs_spec[2:])

    @jax.jit
    def differentiate(x, weight):
        y, pull_back = jax.vjp(convolve, x, weight)
        delta = jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)
        of_x = pull_back_input(delta, flip_filters(weight, equation), equation, jax.ShapeDtypeStruct(x.shape, x.dtype))
        a, delta_rows = extract_patches(x[None], equation, taps)[0], arrange_gradient(delta[None, None], equation)[0, 0]
        a, rows = (array.reshape(len(array), groups, -1) for array in (a, delta_rows))
        return (of_x, jnp.einsum("tgk,tgf->gfk", a, rows)), pull_back(delta)

    (of_x, of_weight), expected = differentiate(x, weight)
    np.testing.assert_allclose(of_x, expected[0], atol=1e-12)
    np.testing.assert_allclose(of_weight.ravel(), np.transpose(expected[1], order).ravel(), atol=1e-12)


@pytest.mark.parametrize("is_own", [True, False])
def test_no_loop_convolves_with_transposed_filters(monkeypatch, is_own):
    if not is_own:
        monkeypatch.setattr(gradients, "uses_cpu", lambda: False)
    generator = np.random.default_rng(0)
    shapes = {"x": (4, 8, 8, 2), "w": (2, 3, 3, 2, 4), "v": (2, 3, 3, 4, 4), "d": (2, 4, 3)}
    params = {name: jnp.asarray(generator.normal(size=shape), jnp.float32) for name, shape in shapes.items()}
    x = params.pop("x")

    def f(params, x):
        for stride, name in enumerate("wv", 1):
            x = jnp.tanh(
                lax.conv_general_dilated(
                    x, params[name], (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
                )
            )
        return x.mean((1, 2)) @ params["d"]

    compute = jax.jit(lambda stack: lax.map(lambda params: structured.kernel(f, params, x), stack))
    labels = set(re.findall(r"dim_labels=\w+_(\w+)->", compute.lower(params).compile().as_text()))
    assert ("01oi" not in labels) == is_own
