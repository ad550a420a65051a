"""Results of different data under one name are kept apart."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from ntklens.store.same_data import DataIdentity

SHOWN = 8  # digits of a checksum that tell data apart
COORDINATE = "dataset.checksum"  # along run, where results of one dataset were computed on different data


def split_runs(checksums: Mapping[Any, tuple[str, str]]) -> dict[Any, str]:
    """Return new names of runs whose seeds were computed on different data: `<run> (data <checksum>)`.

    Args:
      checksums: of each source, anything with a `run`: the checksum, empty where a file does not say it, and what the
        loader gave for one, where that is another.

    Returns:
      The name of each source's run, only of those that have another one.
    """
    known: dict[str, set[str]] = defaultdict(set)
    names = _name_data(checksums)
    for source, name in names.items():
        known[source.run].add(name)
    return {
        source: f"{source.run} (data {name[:SHOWN] or 'unknown'})"
        for source, name in names.items()
        if len(known[source.run]) > 1
    }


def _name_data(checksums: Mapping[Any, tuple[str, str]]) -> dict[Any, str]:
    """Return the checksum of each, or what its loader gave for one where an earlier version stored that."""
    stored = {checksum for checksum, claimed in checksums.values() if not claimed}
    return {key: claimed if claimed in stored else checksum for key, (checksum, claimed) in checksums.items()}


def label_data(identities: Mapping[str, DataIdentity]) -> dict[str, str]:
    """Tell runs of one dataset that were computed on different data from each other.

    Two runs are of the same data unless something says otherwise: one choice of samples that has two checksums, or
    sources that hold other samples. Files that are packed otherwise hold the same ones where one choice of samples has
    the same checksum.

    Args:
      identities: of each run's data.

    Returns:
      A label for each run; empty where nothing has to be distinguished.
    """
    datasets: dict[str, list[str]] = defaultdict(list)
    for run, identity in identities.items():
        datasets[identity.dataset].append(run)
    labels = dict.fromkeys(identities, "")
    for runs in datasets.values():
        labels |= _label_dataset({run: identities[run] for run in runs})
    return labels


def _label_dataset(identities: Mapping[str, DataIdentity]) -> dict[str, str]:
    sources = _join_sources(identities)
    names = _name_data({run: (identity.checksum, identity.claimed) for run, identity in identities.items()})
    several = len(set(sources.values()) - {""}) > 1
    checksums: dict[tuple[str, str], set[str]] = defaultdict(set)
    for run, identity in identities.items():
        checksums[sources[run], identity.chosen].add(names[run])
    labels = {}
    for run, identity in identities.items():
        if len(checksums[sources[run], identity.chosen]) > 1:
            labels[run] = names[run][:SHOWN]
        else:
            labels[run] = sources[run][:SHOWN] if several else ""
    return labels


def _join_sources(identities: Mapping[str, DataIdentity]) -> dict[str, str]:
    """Return a name of the samples that each run's source holds; empty where that is not known."""
    parents: dict[tuple[str, ...], tuple[str, ...]] = {}

    def find(mark: tuple[str, ...]) -> tuple[str, ...]:
        while parents.setdefault(mark, mark) != mark:
            mark = parents[mark]
        return mark

    def list_marks(identity: DataIdentity) -> list[tuple[str, ...]]:
        marks = [("content", identity.content)] if identity.content else []
        marks += [("files", identity.files)] if identity.files else []
        return [*marks, ("samples", identity.chosen, identity.checksum)] if marks else []

    for identity in identities.values():
        for mark in list_marks(identity)[1:]:
            first, second = sorted((find(list_marks(identity)[0]), find(mark)))
            parents[second] = first
    return {run: find(marks[0])[1] if (marks := list_marks(one)) else "" for run, one in identities.items()}
