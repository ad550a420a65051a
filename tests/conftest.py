"""Strict JAX: nothing is broadcast over ranks unasked; nothing promoted between dtypes, but by optax."""

import functools
import gc
import os

import jax
import pytest

# Tests of tracking choose another mode. No test may find somebody's credentials, or ask a server.
os.environ["WANDB_MODE"] = "disabled"
jax.config.update("jax_numpy_rank_promotion", "raise")

COST, BEFORE = "processor seconds", pytest.StashKey[float]()
KEPT = 6  # networks whose programs stay in memory
MOST_SECONDS = 5.0  # of a test that is not marked slow, with its programs kept from a run before


@pytest.hookimpl(trylast=True)  # after jaxtyping, which must come before the first import of ntklens
def pytest_configure():
    """This process, other workers' and those that tests start share compiled programs, now and in later runs."""
    import programs

    settings = programs.share()
    os.environ.update(settings)
    for name, kind in programs.KINDS.items():  # JAX read the environment when it was imported
        jax.config.update(name.lower(), kind(settings[name]))


def pytest_collection_finish():
    """Look for garbage seldom: Python's own measure costs a fifteenth of what traces programs."""
    gc.set_threshold(50_000, 20, 50)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Note what a test begins with: elapsed time says little where others work, processor seconds stay the same."""
    item.stash[BEFORE] = count_processor_seconds()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if call.when == "teardown":
        report.user_properties.append((COST, count_processor_seconds() - item.stash[BEFORE]))
    return report


def pytest_terminal_summary(terminalreporter):
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    costs = {
        report.nodeid: (dict(report.user_properties)[COST], bool({"slow", "system", "release"} & set(report.keywords)))
        for report in reports
        if COST in dict(getattr(report, "user_properties", ()))
    }
    total = sum(cost for cost, _ in costs.values())
    terminalreporter.write_line(f"{total:.0f} processor seconds, those of processes that tests started included")
    for name, (cost, slow) in sorted(costs.items(), key=lambda item: -item[1][0]):
        if cost > MOST_SECONDS and not slow:
            terminalreporter.write_line(f"{cost:5.1f} s  {name}: mark it slow, or make it cheaper")


def count_processor_seconds() -> float:
    """Return what this process and its children that have ended took."""
    return sum(os.times()[:4])


@pytest.fixture(autouse=True, scope="session")
def keep_programs():
    """Tests train the same few networks again and again: each is traced once."""
    from ntklens.jobs import build, compute

    compute.KEPT = KEPT
    build._build_trainer = functools.lru_cache(KEPT)(build._build_trainer.__wrapped__)


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
