"""Hydra's command line with the exit statuses that scripts rely on.

0: every requested seed is done or diverged. 1: a run failed. 2: bad input, one line, nothing written. 3: unfinished.
130: interrupted.
"""

import contextlib
import io
import os
import platform
import re
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, TextIO

from hydra.conf import HydraConf
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ntklens.config.checks import list_all_choices, validate
from ntklens.config.lines import current, drop_words, format_command, get_words, hold_back, order_words, quote_word
from ntklens.config.options import list_launchers, suggest_key
from ntklens.config.schemas import register_schemas
from ntklens.config.task import check_read, find_task
from ntklens.errors import InputError
from ntklens.hints import describe
from ntklens.jobs.tracker import begin_tracking
from ntklens.recording.quantities import check_metrics

EXIT_BAD_INPUT, EXIT_INTERRUPTED = 2, 130
HYDRA_FOLDERS = ("hydra.sweep.dir", "hydra.sweep.subdir")

_statuses: list[int] = []  # of the command that runs: one per configuration, or per sweep


class SteadyStream:
    """An output whose program goes on when nobody reads it any more, as behind `| head`, or its disk is full."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write, or from the first error on do nothing."""
        try:
            return self.stream.write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        """Flush, or from the first error on do nothing."""
        try:
            self.stream.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
        if not isinstance(error, BrokenPipeError):
            print(f"standard output: {error.strerror}; nothing more is printed there", file=sys.stderr)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def run_command(hydra_main: Callable[[], None], argv: Sequence[str], raises: bool = False) -> int:
    """Call Hydra's main function with the words of a command line, and return the exit status of what happened.

    What it changes in this process and Hydra's state are as before afterwards, so that it can be called again.

    Args:
      hydra_main: Hydra's main function.
      argv: the words after the command's name.
      raises: whether bad input is raised, and not printed.

    Returns:
      The exit status.
    """
    before = sys.argv, sys.stdout, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [before[0][0], *argv]  # where Hydra, and lines to type next, find them
    _statuses.clear()
    begin_tracking()
    try:
        return _run_command(hydra_main, raises)
    finally:
        sys.stdout.flush()
        sys.argv, sys.stdout, full_error = before
        os.environ.pop("HYDRA_FULL_ERROR", None)
        if full_error is not None:
            os.environ["HYDRA_FULL_ERROR"] = full_error
        current.words = None
        GlobalHydra.instance().clear()
        HydraConfig.instance().cfg = None


def _run_command(hydra_main: Callable[[], None], raises: bool) -> int:
    register_schemas()
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by a shell's >&-
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):  # a notebook's output has none
            reconfigure(errors="replace")  # a terminal without Greek letters is no failure
    sys.stdout = SteadyStream(sys.stdout)
    full_error = raises or os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would otherwise print in several lines
    try:
        current.words = tuple(order_words(sys.argv[1:], suggest_key))
        check_places(current.words)
        sys.argv[1:] = hold_back(current.words)
        if "--version" in current.words:
            print_version()
        elif {"--help", "-h"} & set(current.words):
            print_help(hydra_main)
        else:
            hydra_main()
    except SystemExit as end:  # Hydra's own, after --info say
        if isinstance(end.code, str):
            raise
        return end.code or 0
    except KeyboardInterrupt:
        line = format_command(drop_words(get_words(), "retry", "replace"))
        print(f"interrupted: finished seeds are kept; to continue type: {line}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except (InputError, HydraException, CompactHydraException, OmegaConfBaseException) as error:
        if full_error:
            raise
        print(f"error: {describe(error)}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except ValueError as error:
        if full_error or not str(error).startswith("Config group override"):
            raise
        print(f"error: {error}; a group takes the name of an option, such as model=mlp", file=sys.stderr)
        return EXIT_BAD_INPUT
    return max(_statuses, default=0)


def run_task(cfg: DictConfig) -> None:
    """Check the configuration and call the task that it names.

    In a sweep a configuration that ends badly says so and the others go on; the command's exit status is the worst.
    """  # noqa: DOC501
    hydra_cfg = HydraConfig.get()
    single = hydra_cfg.mode == RunMode.RUN
    status = 0
    try:
        if single and hydra_cfg.sweeper.params and find_task(cfg.task._target_).sweep:
            raise InputError(describe_missing_multirun(hydra_cfg))
        launcher = str(hydra_cfg.runtime.choices.get("hydra/launcher"))
        if single and launcher not in ("local", "basic") and find_task(cfg.task._target_).launches:
            line = format_command(["-m", *get_words()])
            raise InputError(f"hydra/launcher={launcher}: needs -m; type: {line}")
        OmegaConf.resolve(cfg)
        validate(cfg)
        check_metrics(cfg.metrics)
        check_read(cfg.task._target_, hydra_cfg.overrides.task)  # after the values: it imports the task
        status = find_task(cfg.task._target_)(cfg)
    except (InputError, OmegaConfBaseException) as error:
        print(f"error: {describe(error)}", file=sys.stderr)
        status = EXIT_BAD_INPUT
    note_status(status)


def print_version() -> None:
    """Print the version of ntklens, and of what its results depend on."""
    others = ", ".join(f"{name} {version(package)}" for name, package in (("JAX", "jax"), ("Hydra", "hydra-core")))
    print(f"ntklens {version('ntklens')} ({others}, Python {platform.python_version()})")


def print_help(hydra_main: Callable[[], None]) -> None:
    """Print Hydra's help without the group of our schemas, and the values of every setting that takes one of a few."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        hydra_main()
    shown = re.sub(r"^schema: .*\n", "", text.getvalue(), flags=re.MULTILINE)
    print(shown.replace("Show Hydra's version", "Show ntklens' version"), end="")
    print("== Choices ==")
    for key, listed in list_all_choices().items():
        print(f"{key}: {listed}")
    print(f"hydra/launcher: {', '.join(list_launchers())}")


def note_status(status: int) -> None:
    """Make the command end with this exit status, or with a worse one."""
    _statuses.append(status)


def describe_missing_multirun(hydra_cfg: HydraConf) -> str:
    """Return the line for a sweep that was started as a single run."""
    overrides = list(hydra_cfg.overrides.task)
    sweeping = [word for word in overrides if word.startswith(("scaling=", "experiment="))] or overrides
    return f"{' '.join(sweeping)}: a sweep needs -m; type: {format_command(['-m', *get_words()])}"


def check_places(words: Sequence[str]) -> None:
    """Refuse Hydra's own folders: results go where `paths.results` and `name` say.

    Raises:
      InputError: naming the override to type.
    """
    stock = any(
        word.startswith(("hydra/launcher=stock_", "hydra/launcher=submitit_", "hydra/sweeper=")) for word in words
    )
    for word in words:
        key, _, value = word.partition("=")
        key = key.lstrip("+~")
        if key in ("hydra.run.dir", "hydra.output_subdir") or (key in HYDRA_FOLDERS and not stock):
            raise InputError(
                f"{word}: has no effect here: results go to paths.results/name; "
                f"type {quote_word(f'paths.results={value}') if value and '$' not in value else 'paths.results=FOLDER'}"
            )
