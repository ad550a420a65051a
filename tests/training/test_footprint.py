"""Counts of small programs that one can count by hand."""

import jax
import jax.numpy as jnp
import pytest

from ntklens.training.footprint import MARGIN, count_function

M = 64
SQUARE = jax.ShapeDtypeStruct((M, M), jnp.float32)
BYTES = 4 * M * M


def held(function, *arguments, **options):
    """In squares."""
    return count_function(function, *arguments, **options).temporaries / MARGIN / BYTES


def test_arguments_results_and_operations_of_a_product():
    count = count_function(lambda a, b: a @ b, SQUARE, SQUARE)
    assert (count.arguments, count.results, count.temporaries) == (2 * BYTES, BYTES, 0)
    assert count.operations == 2 * M**3
    assert count.peak == 3 * BYTES


@pytest.mark.parametrize(
    ("function", "squares"),
    [
        (lambda a: jnp.tanh(a @ a) @ a, 1),  # over the product that it is computed from
        (lambda a: jnp.sum(jnp.sin(a) * 2), 1),  # a CPU's library sums up what stands in memory
        (lambda a: (a @ a) @ (a @ a + a), 2),
        (lambda a: (a @ a).T.reshape(M, 4, 16).sum(1) @ a[:16], 1.5),
        (lambda a: [a @ a, a @ a.T][0], 0),  # what nothing depends on is left out
    ],
)
def test_buffers_live_from_the_first_to_the_last_reader(function, squares):
    assert held(function, SQUARE) == pytest.approx(squares, abs=0.02)


def test_donated_arguments_hold_the_results():
    count = count_function(lambda a: a + 1, SQUARE, donated=(0,))
    assert (count.arguments, count.results, count.temporaries) == (BYTES, 0, 0)


def test_chunks_hold_one_chunk():
    def whole(a):
        return jnp.sum(jnp.einsum("ij,ik->ijk", a, a) @ a, (1, 2))

    def chunked(a):
        return jax.lax.map(lambda row: jnp.sum(jnp.outer(row, row) @ a), a)

    one, other = count_function(whole, SQUARE), count_function(chunked, SQUARE)
    assert one.temporaries > 0.9 * M * BYTES
    assert other.temporaries < 4 * BYTES
    assert other.operations == pytest.approx(one.operations, rel=0.1)


def test_a_loop_counts_as_often_as_it_is_done_where_that_is_known():
    def repeated(a):
        return jax.lax.fori_loop(0, 10, lambda _, b: b @ a, a)

    assert count_function(repeated, SQUARE).operations == pytest.approx(10 * 2 * M**3, rel=0.01)
    assert count_function(repeated, SQUARE, repeat=False).operations == pytest.approx(2 * M**3, rel=0.01)
    assert held(repeated, SQUARE) == pytest.approx(2, abs=1.01)  # what it carries, and the next


def test_of_branches_the_largest_counts():
    def choose(yes, a):
        return jax.lax.cond(yes, lambda: a @ a @ a, lambda: a)

    count = count_function(choose, jax.ShapeDtypeStruct((), jnp.bool_), SQUARE)
    assert count.operations == pytest.approx(4 * M**3, rel=0.01)
    assert count.temporaries == pytest.approx(MARGIN * BYTES, rel=0.01)


def test_a_convolution_counts_its_multiplications_and_additions():
    images, kernel = jax.ShapeDtypeStruct((5, 8, 8, 6), jnp.float32), jax.ShapeDtypeStruct((3, 3, 2, 9), jnp.float32)

    def convolve(images, kernel):
        return jax.lax.conv_general_dilated(
            images, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=3
        )

    assert count_function(convolve, images, kernel).operations == 2 * (5 * 4 * 4 * 9) * (3 * 3 * 2)


def test_the_gradient_of_max_pooling_holds_the_places_of_the_maxima():
    def loss(images):
        pooled = jax.lax.reduce_window(images, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        return jnp.sum(jnp.tanh(pooled))

    images = jax.ShapeDtypeStruct((20, 8, 8, 4), jnp.float32)
    memory = jax.jit(jax.grad(loss)).lower(images).compile().memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    assert 1.0 <= count_function(jax.grad(loss), images).peak / held <= 1.5
