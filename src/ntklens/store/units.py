"""The state of each unit, one (configuration, seed), kept in files: status.json beside the trajectory.

A trajectory that is there is the truth; status.json says it faster, and says what there is no trajectory to tell.
"""

import contextlib
import json
import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from ntklens.config.identity import SCHEMA_VERSION
from ntklens.errors import InputError
from ntklens.machine import find_own_job
from ntklens.store.checkpoint import find_checkpoint_step, remove_checkpoints
from ntklens.store.files import LEFTOVER_SECONDS, write_atomically
from ntklens.store.layout import find_seed_directory
from ntklens.store.locks import find_locked
from ntklens.store.snapshots import FOLDER as SNAPSHOTS
from ntklens.store.trajectory import ATTEMPT_PREFIX, FILE_NAME, check_schema, read_state

STATUS_NAME = "status.json"
COMMAND_NAME = "command.txt"
REPLACED_NAME = f"{FILE_NAME}.replaced"  # an old result, kept until the new one is published
FINISHED = ("done", "diverged")
STATES = (*FINISHED, "running", "failed", "interrupted", "queued")
NONE = type(None)
KINDS: dict[str, Any] = {  # of what status.json says: one that says something else says nothing
    **dict.fromkeys(("seed", "step", "steps", "bytes", "packed", "schema_version", "pid"), int | NONE),
    **dict.fromkeys(("heartbeat", "seconds"), float | int | NONE),
    **dict.fromkeys(("host", "key", "error", "traceback", "log", "job"), str | NONE),
    **dict.fromkeys(("observables", "data"), dict | NONE),
}
STALE_SECONDS = 300.0  # a heartbeat older than this is of a process that ended, if it runs where we cannot ask


class Unit(NamedTuple):
    """The state of one seed of a run, one of `STATES`, and what its status.json says."""

    seed: int
    state: str
    details: dict[str, Any]


def write_status(directory: Path, state: str, **details: Any) -> None:
    """Replace a seed's status.json.

    Args:
      directory: the seed's directory; made if absent.
      state: one of `STATES`.
      details: what else to say, plain values.
    """
    directory.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    status = {"state": state, "time": now, "host": socket.gethostname(), "pid": os.getpid(), **details}
    if job := find_own_job():
        status["job"] = job
    write_atomically(directory / STATUS_NAME, json.dumps(status, indent=1) + "\n")


def write_finished(directory: Path, state: str, **details: Any) -> None:
    """Replace a seed's status.json by that of a published trajectory, whose size tells later whether it is whole."""
    size = (directory / FILE_NAME).stat().st_size
    write_status(directory, state, schema_version=SCHEMA_VERSION, bytes=size, **details)


def read_status(directory: Path) -> dict[str, Any]:
    """Return what a seed's status.json says; nothing if there is none, or none that can be read."""
    try:
        with open(directory / STATUS_NAME, "rb") as file:
            status = json.loads(file.read())
    except (OSError, ValueError):
        return {}
    whole = isinstance(status, dict) and status.get("state") in STATES
    return status if whole and all(isinstance(status.get(k), kinds) for k, kinds in KINDS.items()) else {}


def write_command(run: Path, command: str) -> None:
    """Write the line that a single run was typed as into its directory: that continues it, whoever asks."""
    write_atomically(run / COMMAND_NAME, command + "\n")


def read_command(run: Path) -> str:
    """Return the line that a single run was typed as; nothing if none is recorded."""
    try:
        return (run / COMMAND_NAME).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""


def find_units(run: Path, seeds: Iterable[int]) -> list[Unit]:
    """Return the state of seeds of a run.

    Args:
      run: the run's directory, which need not exist.
      seeds: which to look at.

    Raises:
      InputError: if a trajectory was written in a newer schema, or may not be opened.
    """
    units = [_find_unit(find_seed_directory(run, seed), seed) for seed in seeds]
    running = [unit.seed for unit in units if unit.state == "running"]
    alive = find_locked(run, running) if running else set()
    units = [
        unit._replace(state="interrupted")
        if unit.state == "running" and unit.seed not in alive and not _runs_elsewhere(unit.details)
        else unit
        for unit in units
    ]
    return [_read_kept(run, unit) if unit.state in ("interrupted", "failed") else unit for unit in units]


def _read_kept(run: Path, unit: Unit) -> Unit:
    """Return a unit that stopped with the updates that its checkpoint has: from there it goes on."""
    step = find_checkpoint_step(find_seed_directory(run, unit.seed))
    return unit._replace(details={**unit.details, "step": step})


def _find_unit(directory: Path, seed: int) -> Unit:
    status = read_status(directory)
    path = directory / FILE_NAME
    try:
        size = os.stat(path).st_size
    except FileNotFoundError:
        state = status.get("state", "queued")
        return Unit(seed, "queued" if state in FINISHED else state, status)
    except NotADirectoryError as error:
        file = next(place for place in (*directory.parents[::-1], directory) if place.is_file())
        raise InputError(f"paths.results: cannot be written: {file} is a file where a folder belongs") from error
    except OSError as error:
        raise InputError(f"paths.results: {path} cannot be looked at ({error.strerror})") from error
    if status.get("state") in FINISHED and status.get("bytes") == size:
        check_schema(status.get("schema_version", 0), path)
        return Unit(seed, status["state"], status)
    try:
        published = read_state(path)
    except OSError as error:
        raise InputError(f"paths.results: {path} is there but cannot be opened ({error.strerror})") from error
    return Unit(seed, published or "queued", status if published == status.get("state") else {})


def _runs_elsewhere(status: dict[str, Any]) -> bool:
    """Return whether another host wrote a heartbeat not long ago, whatever the locks say: it may not share them."""
    if status.get("host") == socket.gethostname():
        return False
    return abs(time.time() - float(status.get("heartbeat", 0))) < STALE_SECONDS


def select_pending(units: Iterable[Unit], retry: bool) -> list[int]:
    """Return the seeds that are to be computed: those not finished; failed ones only if `retry`."""
    return [unit.seed for unit in units if unit.state not in FINISHED and (retry or unit.state != "failed")]


def write_unfinished(run: Path, seeds: Sequence[int], state: str, **details: Any) -> None:
    """Give a state to the seeds that nobody has published, as far as the disk allows it; `steps` stays what it was."""
    for seed in seeds:
        directory = find_seed_directory(run, seed)
        with contextlib.suppress(OSError):
            if not (directory / FILE_NAME).exists():
                known = {name: value for name, value in read_status(directory).items() if name == "steps"}
                write_status(directory, state, seed=seed, **(known | details))


def set_aside(directory: Path) -> Path | None:
    """Rename a damaged trajectory, so that a new one can take its place; return its new name, if there was one."""
    path = directory / FILE_NAME
    if not path.exists():
        return None
    aside = path.with_name(f"{FILE_NAME}.unreadable-{secrets.token_hex(4)}")
    path.rename(aside)
    return aside


def remove_leftovers(directory: Path) -> None:
    """Remove what killed processes left half written in a seed's directory.

    What is younger than `LEFTOVER_SECONDS` stays: where the file system has no locks, a copy may be writing it.
    """
    with contextlib.suppress(OSError):
        for entry in list(directory.iterdir()):
            if time.time() - entry.lstat().st_mtime < LEFTOVER_SECONDS:
                continue
            if entry.name.startswith(ATTEMPT_PREFIX):
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.name.startswith(f".{STATUS_NAME}-"):
                entry.unlink(missing_ok=True)


def set_replaced(run: Path, seeds: Iterable[int]) -> None:
    """Invalidate results so that they are computed anew; each old file stays until its new one is published."""
    for seed in seeds:
        directory = find_seed_directory(run, seed)
        if (path := directory / FILE_NAME).exists():
            path.replace(directory / REPLACED_NAME)
            (directory / STATUS_NAME).unlink(missing_ok=True)
            remove_checkpoints(directory)
            shutil.rmtree(directory / SNAPSHOTS, ignore_errors=True)
