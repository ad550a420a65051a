import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntklens.training.schedule import choose_sparse, make_geometric_steps


@given(last=st.integers(1, 10**7), ratio=st.floats(1.001, 3))
def test_neighbours_are_at_most_a_factor_or_one_update_apart(last, ratio):
    steps = make_geometric_steps(min(last, 10**5) if ratio < 1.01 else last, ratio)
    assert steps[0] == 0
    before, after = steps[:-1], steps[1:]
    assert np.all(after > before)
    assert np.all((after <= ratio * before) | (after == before + 1))


def test_ends_with_the_last_update():
    assert make_geometric_steps(1000, 1.08)[-1] == 1000
    assert make_geometric_steps(1, 1.08).tolist() == [0, 1]


@given(last=st.integers(1, 10**6), ratio=st.floats(1.2, 10))
def test_sparse_neighbours_are_at_least_a_factor_apart(last, ratio):
    steps = make_geometric_steps(last, 1.08)
    chosen = choose_sparse(steps, ratio)
    assert chosen[0]
    assert chosen[-1]
    kept = steps[chosen][1:]
    assert np.all(kept[1:] >= ratio * kept[:-1])


@pytest.mark.parametrize("ratio", [2.0, 4.0])
def test_sparse_is_not_much_sparser_than_asked(ratio):
    steps = make_geometric_steps(10**6, 1.08)
    kept = steps[choose_sparse(steps, ratio)][5:]
    assert np.all(kept[1:-1] <= 1.09 * ratio * kept[:-2])
    assert kept[-1] <= 1.09 * ratio**2 * kept[-2]
