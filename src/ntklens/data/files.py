"""Where the published files lie, and how those that are absent get there."""

import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ntklens.errors import InputError

TIMEOUT = 10  # seconds until a silent server counts as absent


@dataclass(frozen=True)
class RemoteFile:
    """A published file: its name, its published MD5 checksum and the addresses of its copies, tried in order."""

    name: str
    md5: str
    urls: tuple[str, ...]


def find_cache() -> Path:
    """Return the folder for what can be made anew: NTKLENS_CACHE, else the user's cache directory."""
    if folder := os.environ.get("NTKLENS_CACHE"):
        return Path(folder).expanduser()
    import pooch

    return Path(pooch.os_cache("ntklens"))


def find_root(root: str | None) -> Path:
    """Return the folder that holds one folder per dataset.

    Args:
        root: the value of `dataset.root`; None means NTKLENS_DATA, else ntklens's cache.

    Returns:
        The absolute path, whether it exists or not.

    Raises:
        InputError: `root` is neither None nor a path.
    """
    if root is None:
        folder = os.environ.get("NTKLENS_DATA")
        return (Path(folder).expanduser() if folder else find_cache()).absolute()
    if not isinstance(root, str | os.PathLike) or not os.fspath(root):
        raise InputError(f"dataset.root={root}: must be the path of a folder")
    return Path(root).expanduser().absolute()


def name_root(folder: Path) -> str:
    """Return what set the folder of all datasets, as typed: the variable NTKLENS_DATA if that did, else `dataset.root`.

    Args:
        folder: as `find_root` returns it.
    """
    variable = os.environ.get("NTKLENS_DATA")
    by_variable = variable and Path(variable).expanduser().absolute() == folder
    return f"NTKLENS_DATA={variable}" if by_variable else f"dataset.root={folder}"


def download_files(dataset: str, files: Sequence[RemoteFile], folder: Path, wanted: str) -> None:
    """Download files into a folder, each under a temporary name and renamed once its checksum is right.

    Any number of jobs may do so at once.

    Args:
        dataset: name of the data, for messages.
        files: what to download.
        folder: where to put it; made if absent.
        wanted: what a user would put into `folder` by hand, for messages.

    Raises:
        InputError: a file could not be downloaded from any of its addresses, or could not be written.
    """
    if not files:
        return
    import pooch
    import requests

    pooch.get_logger().setLevel("WARNING")
    absent = [place for place in (folder, *folder.parents) if not place.exists()]
    for file in files:
        reasons = []
        for url in file.urls:
            try:
                with _Progress(file.name) as progress:
                    downloader = pooch.HTTPDownloader(
                        progressbar=progress,
                        chunk_size=1 << 16,
                        timeout=TIMEOUT,
                        headers={"Accept-Encoding": "identity"},
                    )
                    path = pooch.retrieve(
                        url, known_hash=f"md5:{file.md5}", fname=file.name, path=folder, downloader=downloader
                    )
                with contextlib.suppress(OSError):
                    os.chmod(path, 0o644)  # temporary files are private, and folders of data are shared
                break
            except (requests.RequestException, OSError, ValueError) as error:
                reasons.append(_describe(error, url))
        else:
            with contextlib.suppress(OSError):
                for place in absent:  # made for what did not come
                    place.rmdir()
            typed = name_root(folder.parent)
            other = "type dataset.root=FOLDER" if typed.startswith("NTKLENS_DATA") else "set NTKLENS_DATA"
            raise InputError(
                f"{typed}: {dataset} is not there and could not be downloaded ({'; '.join(dict.fromkeys(reasons))});"
                f" put {wanted} there or {other}"
            )


def _describe(error: Exception, url: str) -> str:
    import requests

    host = urlsplit(url).hostname
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"{host} answers {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return f"no answer from {host}"
    if isinstance(error, requests.RequestException):
        return f"no connection to {host}"
    if isinstance(error, ValueError):
        return f"what {host} sent has another checksum than the published one"
    if isinstance(error, PermissionError):  # pooch raises its own, of two sentences
        return "no permission to write there"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


class _Progress:
    """A rich progress bar with the four members that pooch asks for; on a terminal only."""

    def __init__(self, title: str) -> None:
        from rich import progress as bars
        from rich.console import Console

        self._progress = bars.Progress(
            bars.TextColumn("{task.description}"),
            bars.BarColumn(),
            bars.DownloadColumn(),
            bars.TransferSpeedColumn(),
            bars.TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._task = self._progress.add_task(title, total=None)
        self.total = 0

    def __enter__(self) -> "_Progress":
        self._progress.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._progress.stop()

    def update(self, size: int) -> None:
        self._progress.update(self._task, advance=size, total=self.total)

    def reset(self) -> None:
        self._progress.update(self._task, completed=0)

    def close(self) -> None:
        self._progress.stop()
