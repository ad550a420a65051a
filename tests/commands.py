"""Running the program as a person does, in a folder of its own: in this process, or where that matters in another."""

import contextlib
import io
import logging
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from programs import KINDS

TOY = (
    "dataset=synthetic", "dataset.train_size=24", "dataset.test_size=20", "dataset.probe_size=8", "dataset.input_dim=5",
    "dataset.classes=3", "model.width=6", "training.epochs=20", "ensemble=2",
)  # fmt: skip

# Sweeps of the other networks, as small as they are made, and long enough to be interrupted.
_LITTLE = ("model.width=8", "model.depth=1", "dataset.train_size=12", "dataset.test_size=8", "dataset.probe_size=4",
           "training.epochs=2000", "ensemble=1")  # fmt: skip
NETWORKS = {
    "images": ("-m", "model=cnn,resnet,transformer", "dataset=digits", *_LITTLE),
    "tokens": ("-m", "model=causal_transformer", "dataset=modular,markov", *_LITTLE),
}

BROKEN = '''
"""A model of which width 5 fails where it is trained, as long as the file `fail` is there."""
import os, sys
from ntklens.models import mlp


class MLP(mlp.MLP):
    def __call__(self, x):
        spec = sys.modules["__main__"].__spec__
        trains = "SLURM_JOB_ID" in os.environ or (spec and spec.name == "ntklens.launch.local.worker")
        if self.width == 5 and trains and os.path.exists("fail"):
            raise RuntimeError("no such luck")
        return super().__call__(x)
'''

# Lets Ctrl-C reach what is started, also where the tests themselves run in the background, which ignores it. Not by
# Popen's preexec_fn: that forks a process in which JAX has threads.
TAKE_SIGNALS = (
    "import os, signal, sys; "
    "signal.signal(signal.SIGINT, signal.SIG_DFL); signal.signal(signal.SIGHUP, signal.SIG_DFL); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)
ALONE = dict.fromkeys(KINDS)  # as people have it: without the programs that tests share
TIMEOUT = 900  # seconds; a machine that others use is several times slower
OUTPUTS: list[io.TextIOWrapper] = []  # kept open: what a library logs later must not meet a closed one
STARTED: list[subprocess.Popen] = []  # conftest.py ends what a failed test leaves


def run_ntklens(*words: str, cwd: Path, **environment: str | None) -> subprocess.CompletedProcess:
    """Run `python -m ntklens.run` with a private cache and no data folder unless given; None takes a variable away."""
    command, env = _prepare(words, cwd, environment)
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=TIMEOUT)


def call_ntklens(*words: str, cwd: Path, **environment: str | None) -> subprocess.CompletedProcess:
    """Do the same in this process, which costs a tenth: for what is not about processes, their signals or output."""
    import submitit  # noqa: F401

    from ntklens.run import main

    # submitit sets up logging where it is imported, and with that absl's handler closes a stream that is not sys.stderr
    # at that moment: pytest's, were it imported below.
    command, env = _prepare(words, cwd, environment)
    stdout, stderr = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    OUTPUTS.extend((stdout, stderr))
    with (
        _borrowed_process(cwd, env), contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr),
        _limited(TIMEOUT),
    ):  # fmt: skip
        status = main(words)
    outputs = [stream.buffer.getvalue().decode() for stream in (stdout, stderr)]
    return subprocess.CompletedProcess(command, status, *outputs)


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the main thread after some time."""

    def end(*_: object) -> None:
        raise TimeoutError(f"no end within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _borrowed_process(cwd: Path, env: dict[str, str]) -> Iterator[None]:
    """Give this process a folder and an environment, and then back what it had: settings and imported files too."""
    import jax

    from ntklens.jobs import build

    loggers = [logging.getLogger(), *(v for v in logging.root.manager.loggerDict.values() if hasattr(v, "handlers"))]
    states = [(logger, logger.level, list(logger.handlers), logger.disabled) for logger in loggers]
    double = jax.config.values["jax_enable_x64"]
    before, folder, path, modules = dict(os.environ), Path.cwd(), list(sys.path), set(sys.modules)
    own = [str(cwd), *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.path[:0] = own  # as Python does with -m
    try:
        with warnings.catch_warnings():
            yield
    finally:
        for name in set(sys.modules) - modules:
            file = getattr(sys.modules[name], "__file__", None)
            if file and any(Path(file).is_relative_to(place) for place in own):
                del sys.modules[name]
                build._build_trainer.cache_clear()  # of another file of this name
        sys.path[:] = path
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(before)
        jax.config.update("jax_enable_x64", double)
        for logger, level, handlers, disabled in states:
            logger.level, logger.disabled = level, disabled
            logger.handlers[:] = handlers


def start_ntklens(*words: str, cwd: Path, **environment: str | None) -> subprocess.Popen:
    """Start the same and return at once."""
    command, env = _prepare(words, cwd, environment)
    pipe = subprocess.PIPE
    command = [sys.executable, "-I", "-S", "-c", TAKE_SIGNALS, *command[1:]]
    STARTED.append(subprocess.Popen(command, cwd=cwd, env=env, stdout=pipe, stderr=pipe, text=True))
    return STARTED[-1]


def _prepare(words: tuple[str, ...], cwd: Path, environment: dict[str, str | None]) -> tuple[list[str], dict[str, str]]:
    settings: dict[str, str | None] = {
        "NTKLENS_DATA": None, "HYDRA_FULL_ERROR": None, "NTKLENS_CACHE": str(cwd.parent / "ntklens-cache"),
    }  # fmt: skip
    env = {key: value for key, value in (os.environ | settings | environment).items() if value is not None}
    return [sys.executable, "-m", "ntklens.run", *words], env


def isolate(folder: Path) -> dict[str, str]:
    """An environment without credentials, whose home is the test's; what matplotlib keeps is shared."""
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    shared = next((parent for parent in folder.parents if parent.name.startswith("pytest-")), folder.parent)
    return {"WANDB_MODE": "", "WANDB_API_KEY": "", "HOME": str(home), "MPLCONFIGDIR": str(shared / "mpl")}


def list_files(folder: Path) -> list[str]:
    """Everything below a folder, relative to it."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def find_checkpoints(folder: Path) -> list[Path]:
    """The notes of all checkpoints below a folder: unlike rglob, a walk passes over what is replaced meanwhile."""
    walk = (Path(at) / name for at, _, names in os.walk(folder) for name in names)
    return [path for path in walk if path.parent.name == "checkpoint" and path.suffix == ".json"]
