"""The state of each (configuration, seed), kept in files: status.json beside the trajectory, replaced atomically."""

import json
import os
import secrets
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

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


def find_pending_seeds(run: Path, seeds: list[int]) -> list[int]:
    """Return the seeds without a readable trajectory.

    Raises:
      InputError: if a trajectory was written in a newer schema.
    """
    return [seed for seed in seeds if read_state(find_seed_directory(run, seed) / FILE_NAME) is None]


def set_unreadable_aside(directory: Path) -> Path | None:
    """Rename a trajectory that cannot be read, so that a new one can take its place; return its new name, if any."""
    path = directory / FILE_NAME
    if not path.exists() or read_state(path) is not None:
        return None
    aside = path.with_name(f"{FILE_NAME}.unreadable-{secrets.token_hex(4)}")
    path.rename(aside)
    return aside
