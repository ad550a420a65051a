"""Which data a result was computed on: results of different data under one name are never mixed.

A trajectory holds the SHA-256 of its data, the status.json beside it and a checkpoint repeat it. Results of an earlier
version are looked into where the status does not say it.
"""

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ntklens.store.checkpoint import read_checkpoint_details
from ntklens.store.layout import find_seed_directory
from ntklens.store.locks import find_locked
from ntklens.store.trajectory import FILE_NAME, read_attributes
from ntklens.store.units import FINISHED, read_status

# Which samples of the data are taken, or where they lie, and not which data they are.
CHOICE = ("root", "train_size", "test_size", "probe_size", "probe_seed", "data_seed", "standardize", "input_dim")
SEED = re.compile(r"seed=(\d+)")


class DataIdentity(NamedTuple):
    """What tells whether two results were computed on the same data.

    Attributes:
      dataset: SHA-256 of the settings that say which data they are: the loader, its name, …; not how many samples.
      chosen: the same with the choice of samples; results that have it in common must have the same checksum.
      checksum: SHA-256 of the arrays.
      content: SHA-256 of all samples of the source; empty if its loader does not know it.
      files: SHA-256 of the names and checksums of the source's files; empty if there are none.
      source: where the samples came from.
      claimed: what the loader gives for a checksum, where that is another one; earlier versions stored it.
    """

    dataset: str
    chosen: str
    checksum: str
    content: str = ""
    files: str = ""
    source: str = ""
    claimed: str = ""

    def has_arrays_of(self, other: "DataIdentity") -> bool:
        """Return whether the arrays are the other's, for one choice of samples."""
        return self.checksum == other.checksum or self.claimed == other.checksum or self.checksum == other.claimed

    def differs(self, other: "DataIdentity") -> bool:
        """Return whether it is known that the other's data are not the same."""
        if self.chosen == other.chosen:
            return not self.has_arrays_of(other)
        same_kind = self.dataset == other.dataset and self.content and other.content
        return bool(same_kind) and self.content != other.content


def identify(dataset: Mapping[str, Any], provenance: Mapping[str, Any]) -> DataIdentity:
    """Return the identity of data.

    Args:
      dataset: the settings of `dataset`, plain values.
      provenance: what its loader says of it, `checksum` included.
    """
    whole = {name: value for name, value in dataset.items() if name not in CHOICE}
    # An option that came later is null where nothing is asked of it.
    chosen = {name: value for name, value in dataset.items() if name != "root" and value is not None}
    files = provenance.get("files")
    return DataIdentity(
        _hash(whole),
        _hash(chosen),
        str(provenance.get("checksum", "")),
        str(provenance.get("content", "")),
        _hash(files) if files else "",
        str(provenance.get("source", "")),
        str(provenance.get("loader_checksum", "")),
    )


def identify_attributes(attrs: Mapping[str, Any]) -> DataIdentity | None:
    """Return the identity of the data that a trajectory's attributes tell of; None if they do not."""
    try:
        provenance = {"checksum": attrs["data_checksum"], **json.loads(attrs.get("data", "{}"))}
        identity = identify(json.loads(attrs["config"])["dataset"], provenance)
    except (KeyError, ValueError, TypeError, AttributeError):
        return None
    return identity if identity.checksum else None


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


class Computed(NamedTuple):
    """A result, or what there is of one, and its data."""

    run: Path
    seed: int
    data: DataIdentity


def find_computed(run: Path, leave: Collection[int] = (), checkpoints: bool = True) -> Iterator[Computed]:
    """Yield what lies in a run's directory: finished seeds, checkpoints, and what another process computes now.

    Args:
      run: the run's directory, which need not exist.
      leave: seeds to leave out.
      checkpoints: whether seeds that are not finished count.
    """
    for seed in list_seeds(run):
        if seed not in leave and (data := read_identity(run, seed, checkpoints)):
            yield Computed(run, seed, data)


def read_identity(run: Path, seed: int, checkpoints: bool = True) -> DataIdentity | None:
    """Return the identity of the data that a seed was computed on; None if there is nothing of it, or it is unknown."""
    directory = find_seed_directory(run, seed)
    status = read_status(directory)
    noted = _restore(status.get("data"))
    if (directory / FILE_NAME).exists():
        if noted and status.get("state") in FINISHED:
            return noted
        return identify_attributes(read_attributes(directory / FILE_NAME))
    if not checkpoints:
        return None
    if (details := read_checkpoint_details(directory)) is not None:
        return _restore(details.get("data"))
    return noted if status.get("state") == "running" and find_locked(run, [seed]) else None


def find_finished(folder: Path, leave: Collection[str]) -> Iterator[Computed]:
    """Yield one finished seed of each run of a sweep.

    Args:
      folder: of the sweep, which need not exist.
      leave: names of runs to leave out.
    """
    for run in sorted(entry.name for entry in _scan(folder) if entry.name not in leave and entry.name[0] != "."):
        yield from _take_first(find_computed(folder / run, checkpoints=False))


def _take_first(found: Iterator[Computed]) -> Iterator[Computed]:
    first = next(found, None)
    if first is not None:
        yield first


def list_seeds(run: Path) -> list[int]:
    """Return the seeds that have a directory in a run's."""
    return sorted(int(match[1]) for entry in _scan(run) if (match := SEED.fullmatch(entry.name)))


def _scan(folder: Path) -> Sequence[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _restore(stored: Any) -> DataIdentity | None:
    """Return an identity as it was stored, as a dict; None if it is none."""
    try:
        identity = DataIdentity(**stored)
    except TypeError:
        return None
    return identity if all(isinstance(value, str) for value in identity) else None
