"""Hydra's command line with the exit statuses that scripts rely on.

0: every requested seed is done or diverged. 1: a run failed. 2: bad input, one line, nothing written. 3: unfinished.
130: interrupted.
"""

import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any, TextIO

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from hydra.utils import get_method
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from ntklens.config import describe_unknown_key, register_schemas, validate
from ntklens.errors import InputError

EXIT_BAD_INPUT, EXIT_INTERRUPTED = 2, 130
COMMAND = "python -m ntklens.run"


_statuses: list[int] = []  # of the configurations of a sweep that ended badly


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


def run_command(hydra_main: Callable[[], None]) -> None:
    """Call Hydra's main function and end the process with the exit status of what happened."""
    register_schemas()
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by a shell's >&-
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # a terminal without Greek letters is no failure
    sys.stdout = SteadyStream(sys.stdout)
    full_error = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would otherwise print in several lines
    try:
        hydra_main()
    except KeyboardInterrupt:
        print("interrupted: finished seeds are kept, type the same line to continue", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except (InputError, HydraException, CompactHydraException, OmegaConfBaseException) as error:
        if full_error:
            raise
        print(f"error: {describe(error)}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
    except ValueError as error:
        if full_error or not str(error).startswith("Config group override"):
            raise
        print(f"error: {error}; a group takes the name of an option, such as model=mlp", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
    finally:
        sys.stdout.flush()
    sys.exit(max(_statuses, default=0))


def run_task(cfg: DictConfig) -> None:
    """Check the configuration and call the task that it names.

    In a sweep a configuration that ends badly says so and the others go on; the process's exit status is the worst.

    Raises:
      SystemExit: in a single run, with the task's exit status.
    """
    hydra_cfg = HydraConfig.get()
    single = hydra_cfg.mode == RunMode.RUN
    status = 0
    try:
        if single and hydra_cfg.sweeper.params and cfg.task._target_.endswith((".train", ".show_plan")):
            raise InputError(describe_missing_multirun(hydra_cfg))
        launcher = str(hydra_cfg.runtime.choices.get("hydra/launcher"))
        if single and launcher not in ("local", "basic") and cfg.task._target_.endswith("train"):
            raise InputError(f"hydra/launcher={launcher}: needs -m; type: {COMMAND} -m {shlex.join(sys.argv[1:])}")
        OmegaConf.resolve(cfg)
        validate(cfg)
        status = get_method(cfg.task._target_)(cfg)
    except (InputError, OmegaConfBaseException) as error:
        print(f"error: {describe(error)}", file=sys.stderr)
        status = EXIT_BAD_INPUT
    if status and single:
        sys.exit(status)
    note_status(status)


def note_status(status: int) -> None:
    """Make a sweep's process end with this exit status, or with a worse one."""
    _statuses.append(status)


def describe_missing_multirun(hydra_cfg: HydraConf) -> str:
    """Return the line for a sweep that was started as a single run."""
    overrides = list(hydra_cfg.overrides.task)
    sweeping = [word for word in overrides if word.startswith(("scaling=", "experiment="))] or overrides
    return f"{' '.join(sweeping)}: a sweep needs -m; type: {COMMAND} -m {shlex.join(sys.argv[1:])}"


def describe(error: Exception) -> str:
    """Return one line that names the override to type, for an error of ours, Hydra's or OmegaConf's."""
    if isinstance(error, InputError):
        return " ".join(str(error).split())
    if isinstance(error, OverrideParseException):
        return f"{error.override}: not an override ({' '.join(str(error).partition('See https://')[0].split())})"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.rpartition("/")
        return f"{group}={option}: no such option; available: {', '.join(error.options or [])}"
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    key, schema = getattr(cause, "full_key", None), getattr(cause, "object_type", None)
    if key and isinstance(cause, ConfigKeyError | ConfigAttributeError) and is_dataclass(schema):
        return describe_unknown_key(key, [entry.name for entry in fields(schema)])
    lines = [line.strip() for line in f"{error}\n{'' if cause is error else cause}".splitlines() if line.strip()]
    noise = ("full_key:", "object_type=", "reference_type=", "See https://")
    text = ": ".join(dict.fromkeys(line for line in lines if not line.startswith(noise)))
    text = text.removeprefix("Error merging override ")
    return f"{key}: {text}" if key and key not in text else text
