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
import textwrap
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ntklens.config.lines import format_task
from ntklens.errors import InputError
from ntklens.store.files import write_atomically
from ntklens.store.layout import find_seed_directory
from ntklens.store.locks import find_locked
from ntklens.store.trajectory import FILE_NAME, UnreadableTrajectory, read_trajectory
from ntklens.wandb.names import add_version, digest_records, split_version

FOLDER = "wandb"
MARK = "logged.json"
BEGUN = "begun"
NOTED = "noted"  # that there are runs on this disk only was printed
ADDRESS = "address.txt"
DIRECTORY = re.compile(r"(offline-)?run-\d{8}_\d{6}-(?P<id>.+)")  # as wandb names it
SERVER = "https://api.wandb.ai"
PREFIX = "WANDB_"
DIRECTORIES = tuple(f"{PREFIX}{name}_DIR" for name in ("CACHE", "DATA", "CONFIG", "ARTIFACT"))
# What is left to the user of wandb's environment: whose runs these are, and the way to the server. All else is our
# configuration's, and could give a run another identity, place or mode.
KEPT = (
    *DIRECTORIES,
    *(f"{PREFIX}{name}" for name in (
        "API_KEY", "IDENTITY_TOKEN_FILE", "CREDENTIALS_FILE", "BASE_URL", "APP_URL", "ENTITY", "USERNAME", "USER_EMAIL",
        "HOST", "HTTP_TIMEOUT", "HTTP_PROXY", "HTTPS_PROXY", "INSECURE_DISABLE_SSL", "X_EXTRA_HTTP_HEADERS",
    )),
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


class Standing(NamedTuple):
    """The newest run of a seed, or of several together: its id, its whole directory, whether the server has a part."""

    id: str
    run: LoggedRun | None
    begun: bool

    @property
    def next_id(self) -> str:
        """The id of what is written now: another one if the server has this run as a whole."""
        if self.run is None or not self.run.synced or self.begun or not self.run.read_mark().get("trajectories"):
            return self.id
        first, number = split_version(self.id)
        return add_version(first, number + 1)

    def shows(self, places: Sequence[Path], online: bool) -> bool:
        """Say whether it is whole, and shows the trajectories that lie in seeds' directories.

        Args:
          places: the directories.
          online: whether it is to be at the server.

        Returns:
          Whether it does.
        """
        if self.run is None or self.begun or (online and not self.run.synced):
            return False
        mark = self.run.read_mark()
        known = mark.pop("trajectories", [])
        stamps = [stamp_file(place) for place in places]
        if [stamp for *stamp, _ in known] == stamps:
            return True
        if not self.run.synced:  # written anew for nothing, perhaps, but right: where its files lie, who computed them
            return False
        try:  # moved, copied, or computed anew, most often to the same end
            digests = digest_records([read_trajectory(place / FILE_NAME) for place in places])
        except (OSError, UnreadableTrajectory):
            return False
        if [digest for *_, digest in known] != digests:
            return False
        mark_whole(self.run.path, [[*stamp, digest] for stamp, digest in zip(stamps, digests, strict=True)], **mark)
        return True


def list_runs(sweep: Path, part: str = "") -> list[LoggedRun]:
    """Return every W&B run of a sweep's folder, whole or not, in the order of their names: of their start.

    Args:
      sweep: the folder.
      part: of the id, of those that are wanted.
    """
    found = []
    for path, run_id in _list_directories(sweep, part):
        with suppress(OSError):
            names = os.listdir(path)
            found.append(LoggedRun(run_id, path, MARK in names, f"run-{run_id}.wandb.synced" in names))
    return found


def find_standings(sweep: Path, run_id: str = "") -> dict[str, Standing]:
    """Return how the newest run of every id, or of one id, stands: (id of the first) → its standing."""
    begun = list_begun(sweep)
    versions: dict[str, dict[int, LoggedRun | None]] = defaultdict(dict)
    for run in list_runs(sweep, run_id):
        first, number = split_version(run.id)
        versions[first][number] = run if run.whole else versions[first].get(number)
    for first, number in map(split_version, begun):
        versions[first].setdefault(number, None)
    newest = {first: max(found) for first, found in versions.items() if not run_id or first == run_id}
    return {
        first: Standing(name := add_version(first, number), versions[first][number], name in begun)
        for first, number in newest.items()
    }


def _list_directories(sweep: Path, part: str = "") -> list[tuple[Path, str]]:
    """Return runs' directories and ids; of thousands, quickly those that have a part in their names."""
    try:
        names = sorted(name for name in os.listdir(sweep / FOLDER) if part in name)
    except OSError:
        return []
    return [(sweep / FOLDER / name, match["id"]) for name in names if (match := DIRECTORY.fullmatch(name))]


def mark_whole(path: Path, stamps: Sequence[Sequence[int | str]], **details: Any) -> None:
    """Say that the run in a directory is whole.

    Args:
      path: the directory.
      stamps: of each trajectory that it shows, `stamp_file` and `digest_records`; none of a seed that failed.
      details: to be kept beside.
    """
    write_atomically(path / MARK, json.dumps({"trajectories": [list(stamp) for stamp in stamps], **details}) + "\n")


def mark_synced(path: Path, run_id: str) -> None:
    """Say that the server has a run, as `wandb sync` does, which then leaves it alone."""
    (path / f"run-{run_id}.wandb.synced").touch()


def stamp_file(directory: Path) -> list[int | str]:
    """Return place, size and time of a seed's trajectory: while they stay, so does it; nothing if there is none."""
    try:
        status = os.stat(directory / FILE_NAME)
    except OSError:
        return []
    return [str(directory.absolute()), status.st_size, status.st_mtime_ns]


def remove_runs(sweep: Path, run_id: str, keep: Path) -> None:
    """Remove what earlier attempts wrote of a run: at `wandb sync`, parts with one id overwrite each other."""
    for path, found in _list_directories(sweep, run_id):
        if found == run_id and path != keep:
            shutil.rmtree(path, ignore_errors=True)


def remove_subsets(sweep: Path, part: str, seeds: Sequence[int]) -> None:
    """Remove runs of several seeds that are on this disk only, and of fewer than these.

    Args:
      sweep: the sweep's folder.
      part: of their ids, which they share.
      seeds: of the run that takes their place.
    """
    for run in list_runs(sweep, part):
        if run.whole and not run.synced and set(run.read_mark().get("seeds", seeds)) < set(seeds):
            shutil.rmtree(run.path, ignore_errors=True)


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
        if find_locked(sweep / FOLDER, [hash_id(name)]):  # at this moment another process goes on with it
            continue
        try:
            places = json.loads((sweep / FOLDER / BEGUN / name).read_text(encoding="utf-8"))
            finished = all((sweep / place).exists() for place in places)
        except (OSError, ValueError, TypeError):
            continue
        found += [name] if finished else []
    return found


def hash_id(run_id: str) -> int:
    """Return a number that stands for a run, in whichever version, where a lock needs one."""
    return zlib.crc32(split_version(run_id)[0].encode())


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
    text = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) and error.filename else str(error)
    return textwrap.shorten(f"{type(error).__name__}: {text}", 200, placeholder=" …")


def describe_tracking(sweep: Path, again: bool = False) -> list[str]:
    """Return where a sweep's runs are seen, and what to type for those that the server does not have.

    Args:
      sweep: its folder.
      again: name the runs that are on this disk only also where that was done before: it is news once per sweep.
    """
    address, partial, unsynced = read_address(sweep), find_partial(sweep), find_unsynced(sweep)
    lines = [f"wandb    {address}"] if address else []
    if partial:
        lines.append(
            f"wandb    {_count(partial)} uploaded in part, which wandb sync would double; "
            f"to go on: {format_task('sync', sweep)}"
        )
    noted = sweep / FOLDER / NOTED
    if unsynced and (again or not noted.exists()):
        reason = unsynced[-1].read_mark().get("reason")
        why = f" ({reason})" if reason else ""
        lines.append(
            f"wandb    {_count(unsynced)} on this disk only{why}; to upload: {format_sync(sweep, unsynced[0])}"
        )
        with suppress(OSError):
            noted.touch()
    return lines


def _count(runs: Sequence[Any]) -> str:
    return "1 run is" if len(runs) == 1 else f"{len(runs):,} runs are"


def format_sync(sweep: Path, oldest: LoggedRun) -> str:
    """Return the command that uploads the unsynced runs of a sweep, the oldest of which says where it lay.

    wandb sync would miss the files of a sweep that was moved.
    """
    for place, *_ in oldest.read_mark().get("trajectories", []):
        if not Path(place).is_relative_to(sweep.absolute()):
            return format_task("sync", sweep)
    return f"wandb sync {shlex.quote(str(sweep / FOLDER))}"


def choose_mode(asked: str) -> str:
    """Return online, offline or disabled: for `auto`, WANDB_MODE's, else online if there are credentials."""
    if asked != "auto":
        return asked
    mode = os.environ.get("WANDB_MODE", "").lower()
    if mode in MODES[1:]:
        return mode
    if mode == "dryrun":  # wandb's own older word
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
            hosts = netrc.netrc(Path(place).expanduser()).hosts
            _, _, password = hosts.get(_find_host(server)) or ("", "", "")
            return bool(password)
    return False


def _find_host(server: str) -> str:
    """Return the host of an address; nothing if it is none."""
    try:
        parts = urlsplit(server)
        return (parts.scheme in ("http", "https") and parts.hostname) or ""
    except ValueError:
        return ""


def check_credentials(mode: str) -> None:
    """Refuse to go online without credentials, or to an address that is none.

    Raises:
      InputError: naming what to type.
    """
    server = find_server()
    if mode != "online":
        return
    if not _find_host(server):
        raise InputError(
            f"WANDB_BASE_URL: {server} is no address; type export WANDB_BASE_URL={SERVER} or your server's, "
            "or type tracking.mode=offline"
        )
    if not has_credentials(server):
        raise InputError(
            f"tracking.mode=online: no credentials for {server}; type wandb login, or set WANDB_API_KEY, "
            "or type tracking.mode=offline"
        )


def make_environment(sweep: Path) -> dict[str, str]:
    """Return the environment of a process that writes a sweep's runs: all that wandb keeps lies with the sweep.

    What the user has set of caches stays; what would give a run another identity does not.
    """
    folder = sweep.absolute() / FOLDER
    ours = {name: str(folder / name.removeprefix(PREFIX).removesuffix("_DIR").lower()) for name in DIRECTORIES}
    theirs = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX) or name in KEPT}
    server = find_server() if _find_host(find_server()) else SERVER  # offline none is asked
    own = {"BASE_URL": server, "DIR": str(sweep.absolute()), "SILENT": "true"}
    return ours | theirs | {f"{PREFIX}{name}": value for name, value in own.items()}


def select_unlogged(wanted: Mapping[str, tuple[Path, Sequence[int]]], online: bool) -> list[str]:
    """Return the ids of runs that are to be written: not there whole, or of trajectories that have been replaced.

    Args:
      wanted: id → the directory of its configuration, and its seeds, all of them published.
      online: whether those that the server lacks are to be written, too.
    """
    standings: dict[str, Standing] = {}
    for sweep in {run.parent for run, _ in wanted.values()}:
        standings |= find_standings(sweep)
    found = []
    for name, (run, seeds) in wanted.items():
        standing = standings.get(name)
        if standing is not None and standing.begun and not online:  # what the server has in part is not written anew
            continue
        if standing is None or not standing.shows([find_seed_directory(run, seed) for seed in seeds], online):
            found.append(name)
    return found
