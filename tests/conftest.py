"""Strict JAX: nothing is broadcast over ranks unasked; nothing promoted between dtypes, but by optax."""

import os

import jax
import pytest

# Tests of tracking choose another mode. No test may find somebody's credentials, or ask a server.
os.environ["WANDB_MODE"] = "disabled"
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.hookimpl(trylast=True)  # after jaxtyping, which must come before the first import of ntklens
def pytest_configure():
    """This process, other workers' and those that tests start share compiled programs, now and in later runs."""
    import programs

    settings = programs.share()
    os.environ.update(settings)
    for name, kind in programs.KINDS.items():  # JAX read the environment when it was imported
        jax.config.update(name.lower(), kind(settings[name]))


@pytest.fixture(autouse=True)
def strict_dtypes(request):
    """Where training is tested, optax's own `decay**count` of a float and an integer must pass."""
    trains = not request.path.is_relative_to(request.config.rootpath / "tests" / "ntk")
    with jax.numpy_dtype_promotion("standard" if trains else "strict"):
        yield


@pytest.fixture(autouse=True)
def end_what_was_started():
    """No launch outlives its test."""
    from commands import STARTED

    yield
    for process in STARTED:
        if process.poll() is None:
            process.kill()
            process.communicate()
    STARTED.clear()


@pytest.fixture
def mlp_problem():
    """A small network on random data: (trainer, dataset)."""
    from problems import make_problem

    return make_problem()


@pytest.fixture
def serve():
    """Starts servers that answer W&B's client: (breaks, …) → FakeServer."""
    from wandb_server import FakeServer

    servers = []

    def start(*args, **kwargs):
        servers.append(FakeServer(*args, **kwargs))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
