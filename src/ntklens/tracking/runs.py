"""W&B runs on this disk, multirun/<name>/wandb/, and whether there is a server to send them to. Needs no wandb.

Each run has one directory there. What this module writes into it last, `logged.json`, says that the run is whole and
which trajectory it shows; `run-<id>.wandb.synced`, which `wandb sync` writes, that the server has it.
"""

import configparser
import json
import netrc
import os
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ntklens.sweep.states import find_seed_directory, write_atomically
from ntklens.trajectory import FILE_NAME

FOLDER = "wandb"
MARK = "logged.json"
BEGUN = "begun"
ADDRESS = "address.txt"
DIRECTORY = re.compile(r"(offline-)?run-\d{8}_\d{6}-(?P<id>.+)")  # as wandb names it
SERVER = "https://api.wandb.ai"
DROPPED = tuple(  # would give a run another identity or place
    f"WANDB_{name}"
    for name in ("MODE", "DIR", "RUN_ID", "NAME", "RESUME", "RUN_GROUP", "JOB_TYPE", "TAGS", "NOTES", "SWEEP_ID",
                 "SERVICE", "DISABLED")
)  # fmt: skip
MODES = ("auto", "online", "offline", "disabled")


class LoggedRun(NamedTuple):
    """A run's directory: whose id it is, whether it is whole, and whether the server has it."""

    id: str
    path: Path
    whole: bool
    synced: bool

    def read_mark(self) -> dict[str, Any]:
        """Return what was noted when it was whole: which `trajectories` it shows, the `reason` why it is offline."""
        try:
            details = json.loads((self.path / MARK).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return details if isinstance(details, dict) else {}


def list_runs(sweep: Path) -> list[LoggedRun]:
    """Return every W&B run of a sweep's folder, whole or not, in the order of their names: of their start."""
    found = []
    for path, run_id in _list_directories(sweep):
        with suppress(OSError):
            names = os.listdir(path)
            found.append(LoggedRun(run_id, path, MARK in names, f"run-{run_id}.wandb.synced" in names))
    return found


def _list_directories(sweep: Path, ending: str = "") -> list[tuple[Path, str]]:
    """Return runs' directories and ids; of thousands, quickly those with an ending."""
    try:
        names = sorted(name for name in os.listdir(sweep / FOLDER) if name.endswith(ending))
    except OSError:
        return []
    return [(sweep / FOLDER / name, match["id"]) for name in names if (match := DIRECTORY.fullmatch(name))]


def mark_whole(path: Path, stamps: Sequence[Sequence[int]], **details: Any) -> None:
    """Say that the run in a directory is whole: it shows the trajectories that these stamps are of."""
    write_atomically(path / MARK, json.dumps({"trajectories": [list(stamp) for stamp in stamps], **details}) + "\n")


def mark_synced(path: Path, run_id: str) -> None:
    """Say that the server has a run, as `wandb sync` does, which then leaves it alone."""
    (path / f"run-{run_id}.wandb.synced").touch()


def stamp_trajectory(directory: Path) -> list[int]:
    """Return what tells a seed's trajectory from one that replaces it: its size and time; nothing if there is none."""
    try:
        status = os.stat(directory / FILE_NAME)
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


def remove_runs(sweep: Path, run_id: str, keep: Path) -> None:
    """Remove what earlier attempts wrote of a run: at `wandb sync`, parts with one id overwrite each other."""
    for path, found in _list_directories(sweep, ending=run_id):
        if found == run_id and path != keep:
            shutil.rmtree(path, ignore_errors=True)


def note_begun(sweep: Path, run_id: str, place: Sequence[str]) -> None:
    """Note that the server has begun to have a run: until it has all of it, nobody else may write that run anew.

    Args:
      sweep: the sweep's folder.
      run_id: of the W&B run.
      place: the directories of what it shows, below the sweep's folder.
    """
    folder = sweep / FOLDER / BEGUN
    folder.mkdir(exist_ok=True)
    (folder / run_id).write_text(json.dumps(list(place)), encoding="utf-8")


def forget_begun(sweep: Path, run_id: str) -> None:
    """Take that back: the server has all."""
    (sweep / FOLDER / BEGUN / run_id).unlink(missing_ok=True)


def list_begun(sweep: Path) -> set[str]:
    """Return the ids of the runs that the server has in part."""
    try:
        return set(os.listdir(sweep / FOLDER / BEGUN))
    except OSError:
        return set()


def find_partial(sweep: Path) -> list[str]:
    """Return the ids of runs of finished seeds that the server has in part."""
    found = []
    for name in sorted(list_begun(sweep)):
        try:
            places = json.loads((sweep / FOLDER / BEGUN / name).read_text(encoding="utf-8"))
            finished = all((sweep / place).exists() for place in places)
        except (OSError, ValueError, TypeError):
            continue
        found += [name] if finished else []
    return found


def note_address(sweep: Path, address: str) -> None:
    """Note where a sweep's runs are seen."""
    write_atomically(sweep / FOLDER / ADDRESS, address + "\n")


def read_address(sweep: Path) -> str:
    """Return where a sweep's runs are seen; nothing if none was shown online."""
    try:
        return (sweep / FOLDER / ADDRESS).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""


def find_unsynced(sweep: Path) -> list[LoggedRun]:
    """Return the whole runs of a sweep that the server does not have."""
    return [run for run in list_runs(sweep) if run.whole and not run.synced]


def explain(error: BaseException) -> str:
    """Return an error as one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]


def describe_tracking(sweep: Path) -> list[str]:
    """Return where a sweep's runs are seen, and what to type for those that the server does not have."""
    address, partial, unsynced = read_address(sweep), find_partial(sweep), find_unsynced(sweep)
    lines = [f"wandb    {address}"] if address else []
    if partial:
        lines.append(
            f"wandb    {_count(partial)} uploaded in part; to go on: {format_task(sweep)}        (not by wandb sync, "
            "which would double what is there)"
        )
    if unsynced:
        reason = unsynced[-1].read_mark().get("reason")
        why = f" ({reason})" if reason else ""
        lines.append(f"wandb    {_count(unsynced)} on this disk only{why}; to upload: {format_sync(sweep)}")
    return lines


def _count(runs: Sequence[Any]) -> str:
    return "1 run is" if len(runs) == 1 else f"{len(runs):,} runs are"


def format_sync(sweep: Path) -> str:
    """Return the command that uploads the unsynced runs of a sweep."""
    return f"wandb sync {shlex.quote(str(sweep / FOLDER))}"


def format_task(sweep: Path) -> str:
    """Return the command that uploads from trajectories what the server lacks."""
    place = "" if str(sweep.parent) == "multirun" else f" paths.results={shlex.quote(str(sweep.parent))}"
    return f"python -m ntklens.run task=sync name={shlex.quote(sweep.name)}{place}"


def choose_mode(asked: str) -> str:
    """Return online, offline or disabled: for `auto`, WANDB_MODE's, else online if there are credentials."""
    if asked != "auto":
        return asked
    told = os.environ.get("WANDB_MODE", "").lower()
    if told in MODES[1:]:
        return told
    if told == "dryrun":  # wandb's own older word
        return "offline"
    return "online" if has_credentials(find_server()) else "offline"


def find_server() -> str:
    """Return the server's address: WANDB_BASE_URL, or what `wandb login --host` noted, or W&B's own."""
    if address := os.environ.get("WANDB_BASE_URL"):
        return address
    folder = os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb"
    parser = configparser.ConfigParser()
    with suppress(configparser.Error, OSError, UnicodeDecodeError):
        parser.read(Path(folder).expanduser() / "settings")
    return parser.get("default", "base_url", fallback=SERVER)


def has_credentials(server: str) -> bool:
    """Return whether wandb would find an API key or a token for a server."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    places = [os.environ["NETRC"]] if os.environ.get("NETRC") else ["~/.netrc", "~/_netrc"]
    for place in places:
        with suppress(OSError, netrc.NetrcParseError, UnicodeDecodeError, RuntimeError):
            return (urlsplit(server).hostname or "") in netrc.netrc(Path(place).expanduser()).hosts
    return False


def make_environment(sweep: Path) -> dict[str, str]:
    """Return the environment of a process that writes a sweep's runs: all that wandb keeps lies with the sweep.

    What the user has set of caches stays; what would give a run another identity does not.
    """
    folder = sweep.absolute() / FOLDER
    ours = {f"WANDB_{name}_DIR": str(folder / name.lower()) for name in ("CACHE", "DATA", "CONFIG", "ARTIFACT")}
    kept = {name: value for name, value in os.environ.items() if name not in DROPPED}
    return ours | kept | {"WANDB_BASE_URL": find_server(), "WANDB_DIR": str(sweep.absolute()), "WANDB_SILENT": "true"}


def select_unlogged(wanted: Mapping[str, tuple[Path, Sequence[int]]], online: bool) -> list[str]:
    """Return the ids of runs that are to be written: not there whole, or of trajectories that have been replaced.

    Args:
      wanted: id → the directory of its configuration, and its seeds, all of them published.
      online: whether those that the server lacks are to be written, too.
    """
    sweeps = {run.parent for run, _ in wanted.values()}
    there = {
        one.id: one.read_mark().get("trajectories")
        for sweep in sweeps
        for one in list_runs(sweep)
        if one.whole and (one.synced or not online)
    }
    if not online:
        begun = {name for sweep in sweeps for name in list_begun(sweep)}
        wanted = {name: where for name, where in wanted.items() if name not in begun}
    return [
        name
        for name, (run, seeds) in wanted.items()
        if there.get(name) != [stamp_trajectory(find_seed_directory(run, seed)) for seed in seeds]
    ]
