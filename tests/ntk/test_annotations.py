"""Annotations of the kernel's engine are checked while tests run."""

import jax.numpy as jnp
import pytest
from jaxtyping import TypeCheckError

from ntklens.ntk.gram import Gram
from ntklens.ntk.metrics import effective_rank_from_eigenvalues


def test_an_argument_of_another_type_is_refused():
    assert Gram(3, 4, jnp.float32, is_symmetric=False).rows == 3
    with pytest.raises(TypeCheckError, match="rows"):
        Gram("3", 4, jnp.float32, is_symmetric=False)
    with pytest.raises(TypeCheckError, match="eigenvalues"):
        effective_rank_from_eigenvalues([2.0, 1.0])
