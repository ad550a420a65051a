"""What `keep` asks a run to keep: Θ and the parameters at its snapshots, one file each beside trajectory.nc.

`seed=<k>/snapshots/<snapshot>.npz` holds `step`, `kernel` [N, C, N, C] and `parameters/<path of the leaf>`; snapshots
are `start`, `crossing_<level>` and `minimum`. Each is written when it is measured, whole or not at all, so that a run
that is killed and continued has all of them.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ntklens.config.schemas import KERNEL, PARAMETERS
from ntklens.errors import InputError

FOLDER = "snapshots"
START, MINIMUM = "start", "minimum"


@dataclass(frozen=True)
class Snapshot:
    """A network at one moment of its training.

    Attributes:
      step: updates done.
      kernel: Θ on the probe, shape [N, C, N, C]; None if it was not kept.
      parameters: nested dictionary of arrays, for flax what `apply` takes; None if they were not kept.
    """

    step: int
    kernel: np.ndarray | None
    parameters: dict[str, Any] | None


def name_crossing(level: float) -> str:
    """Return the snapshot's name where the train loss first is at or below a level."""
    return f"crossing_{level:g}"


def write_snapshot(
    directory: Path, name: str, step: int, kernel: np.ndarray | None, parameters: Mapping[str, np.ndarray] | None
) -> None:
    """Write a snapshot under a temporary name and rename it.

    Args:
      directory: the seed's directory.
      name: of the snapshot.
      step: updates done.
      kernel: shape [N, C, N, C], or None.
      parameters: path of the leaf → array, or None.

    Raises:
      OSError: if the disk is full or cannot be written.
    """
    folder = directory / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {"step": np.asarray(step)} | ({} if kernel is None else {KERNEL: kernel})
    arrays |= {f"{PARAMETERS}/{path}": _widen(value) for path, value in (parameters or {}).items()}
    temporary = folder / f".{name}-{secrets.token_hex(4)}.npz"
    try:
        with temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        temporary.replace(folder / f"{name}.npz")
    finally:
        temporary.unlink(missing_ok=True)


def _widen(value: np.ndarray) -> np.ndarray:
    """Formats that NumPy's files do not know, such as bfloat16, are kept in float32."""
    return value.astype(np.float32) if value.dtype.kind == "V" else value


def list_snapshots(directory: Path, keep: Iterable[str] = ()) -> list[str]:
    """Return the names of a seed's snapshots that hold all of `keep`, in the order of training."""
    found = []
    for path in (directory / FOLDER).glob("[!.]*.npz"):
        with np.load(path, allow_pickle=False) as file:
            if {name.partition("/")[0] for name in file.files} >= set(keep):
                found.append((int(file["step"]), path.stem != START, path.stem))
    return [name for _, _, name in sorted(found)]


def refuse_finished(keep: Sequence[str], run: Path, directories: Iterable[Path]) -> None:
    """Refuse to go on where seeds are finished without what is to be kept of them.

    Args:
      keep: what to keep.
      run: the run's directory.
      directories: of the seeds that are finished.

    Raises:
      InputError: with the overrides that resolve it.
    """
    lacking = [directory for directory in directories if MINIMUM not in list_snapshots(directory, keep)]
    if keep and lacking:
        names = ", ".join(directory.name for directory in lacking[:3]) + (", …" if len(lacking) > 3 else "")
        raise InputError(
            f"keep=[{','.join(keep)}]: {len(lacking)} seeds of {run} are finished without it ({names}): replace=true "
            "computes them anew, keep=[] leaves them as they are"
        )


def load_snapshots(path: str | Path) -> dict[str, Snapshot]:
    """Read what a run was asked to keep of one seed, `keep=[kernel,parameters]`.

    Args:
      path: a seed's directory, `multirun/<name>/<run>/seed=<k>`, or its trajectory.nc.

    Returns:
      Snapshot → what was kept, in the order of training, of `start`, of `crossing_1`, `crossing_0.3`, `crossing_0.1`
      (where the train loss first is at or below these), and of `minimum` (of the selection loss).

    Raises:
      InputError: if nothing was kept there.
    """
    directory = Path(path) if Path(path).is_dir() else Path(path).parent
    names = list_snapshots(directory)
    if not names:
        raise InputError(f"{path}: no snapshots; a seed's directory has them if it ran with keep=[kernel,parameters]")
    return {name: _read(directory / FOLDER / f"{name}.npz") for name in names}


def _read(path: Path) -> Snapshot:
    with np.load(path, allow_pickle=False) as file:
        parameters: dict[str, Any] = {}
        for name in file.files:
            kind, *keys = name.split("/")
            if kind != PARAMETERS:
                continue
            node = parameters
            for key in keys[:-1]:
                node = node.setdefault(key, {})
            node[keys[-1]] = file[name]
        return Snapshot(int(file["step"]), file[KERNEL] if KERNEL in file.files else None, parameters or None)
