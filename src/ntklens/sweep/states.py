"""The state of each (configuration, seed), kept in files: status.json beside the trajectory, replaced atomically."""

import contextlib
import json
import os
import secrets
import socket
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ntklens.errors import InputError
from ntklens.trajectory import FILE_NAME, read_state

STATUS_NAME = "status.json"


def write_status(directory: Path, state: str, **details: Any) -> None:
    """Replace a seed's status.json.

    Args:
      directory: the seed's directory; made if absent.
      state: running, done, diverged, failed or interrupted.
      details: what else to say, plain values.
    """
    directory.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    status = {"state": state, "time": now, "host": socket.gethostname(), "pid": os.getpid(), **details}
    write_atomically(directory / STATUS_NAME, json.dumps(status, indent=2) + "\n")


def read_status(directory: Path) -> str | None:
    """Return the state in a seed's status.json, if there is one."""
    try:
        return json.loads((directory / STATUS_NAME).read_text(encoding="utf-8"))["state"]
    except (OSError, ValueError, KeyError):
        return None


def write_atomically(path: Path, text: str) -> None:
    """Write a text file under a temporary name and rename it: readers see the old text or the new one, whole."""
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def find_seed_directory(run: Path, seed: int) -> Path:
    """Return where a seed's results lie."""
    return run / f"seed={seed}"


def find_pending_seeds(run: Path, seeds: Sequence[int]) -> list[int]:
    """Return the seeds without a trajectory, or with a damaged one.

    Raises:
      InputError: if a trajectory was written in a newer schema, or may not be opened.
    """
    pending = []
    for seed in seeds:
        path = find_seed_directory(run, seed) / FILE_NAME
        try:
            if read_state(path) is None:
                pending.append(seed)
        except OSError as error:
            raise InputError(f"paths.results: {path} is there but cannot be opened ({error.strerror})") from error
    return pending


def write_unfinished(run: Path, seeds: Sequence[int], state: str, **details: Any) -> None:
    """Give a state to the seeds that nobody has published, as far as the disk allows it."""
    for seed in seeds:
        directory = find_seed_directory(run, seed)
        with contextlib.suppress(OSError):
            if not (directory / FILE_NAME).exists():
                write_status(directory, state, seed=seed, **details)


def set_aside(directory: Path) -> Path | None:
    """Rename a damaged trajectory, so that a new one can take its place; return its new name, if there was one."""
    path = directory / FILE_NAME
    if not path.exists():
        return None
    aside = path.with_name(f"{FILE_NAME}.unreadable-{secrets.token_hex(4)}")
    path.rename(aside)
    return aside
