import jax
import pytest


@pytest.fixture
def x64():
    """Double precision inside one test; compiled without optimisation, which takes longer than it would save."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", True)
    with jax.enable_x64(True):
        yield
    jax.config.update("jax_disable_most_optimizations", before)
