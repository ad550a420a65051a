"""The data of a launch, refused before anything is written where they are not those of the results that are there."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from omegaconf import OmegaConf

from ntklens.data.check import load_checked
from ntklens.data.files import find_root
from ntklens.errors import InputError
from ntklens.jobs.datasets import (
    describe_difference,
    describe_replacement,
    identify_dataset,
    list_differing,
    load_cached,
    load_dataset,
)
from ntklens.store.layout import find_seed_directory
from ntklens.store.same_data import (
    Computed,
    DataIdentity,
    find_computed,
    find_finished,
    identify,
    list_seeds,
    read_identity,
)
from ntklens.store.trajectory import FILE_NAME, read_attributes
from ntklens.sweep.plan import Configuration

_noted: set[str] = set()  # sources that were reported not to be the published ones


def check_launch_data(folder: Path, configurations: Sequence[Configuration]) -> None:
    """Refuse a launch whose data are not those of the results that its sweep has; say which are not the published ones.

    Data are loaded only where results could differ. Of a sweep of which everything is finished that is looked at by
    the dates of files, once per source.

    Args:
      folder: of the sweep.
      configurations: all of the sweep, with their units.

    Raises:
      InputError: naming the overrides that resolve it.
    """  # noqa: DOC501
    load_cached.cache_clear()  # of a launch before in this process, whose files may have been rewritten
    pending = [configuration for configuration in configurations if configuration.find_pending()]
    if not pending:
        _check_finished_data(folder, configurations)
        return
    _note_unpublished(pending)
    known = {str(c.run): c for c in pending}
    for configuration in pending:
        leave = configuration.seeds if configuration.replaces else ()
        for computed in find_computed(configuration.run, leave, checkpoints=not configuration.cfg.replace):
            data = _identify(configuration)
            if not data.has_arrays_of(computed.data):
                raise _refuse(folder, configurations, configuration, data, computed)
    others = list(find_finished(folder, {Path(run).name for run in known}))
    others += [Computed(c.run, c.find_pending()[0], _identify(c)) for c in _list_sources(pending)[1:]]
    seen: set[tuple] = set()
    for computed in others:
        for configuration in _find_comparable(pending, computed):
            place = (*computed.data, configuration.cfg.dataset.get("root"))
            if place in seen:
                continue
            seen.add(place)
            data = _identify(configuration)
            if data.differs(computed.data) or _differs_when_loaded(configuration, data, computed):
                raise _refuse(folder, configurations, configuration, data, computed)


def _refuse(
    folder: Path,
    configurations: Sequence[Configuration],
    configuration: Configuration,
    data: DataIdentity,
    computed: Computed,
) -> InputError:
    words = _find_replacement(folder, configurations)
    return InputError(describe_difference(configuration.cfg, data, computed, words))


def _find_replacement(folder: Path, configurations: Sequence[Configuration]) -> str:
    """Return the overrides with which the line computes anew all that its sweep has on other data; empty if none do."""
    others = list(find_finished(folder, {c.run.name for c in configurations}))
    others += [Computed(c.run, c.seeds[0], _identify(c)) for c in _list_sources(configurations)[1:]]
    for computed in others:
        for configuration in _find_comparable(configurations, computed):
            data = _identify(configuration)
            if data.differs(computed.data) or _differs_when_loaded(configuration, data, computed):
                return ""
    left: set[int] = set()
    for configuration in configurations:
        if set(list_seeds(configuration.run)) - set(configuration.seeds):
            left |= set(list_differing(configuration.run, _identify(configuration), configuration.seeds))
    return describe_replacement(left, {seed for configuration in configurations for seed in configuration.seeds})


def _check_finished_data(folder: Path, configurations: Sequence[Configuration]) -> None:
    """Refuse to present finished results as those of data that changed since."""
    firsts: dict[tuple, Configuration] = {}
    for configuration in configurations:
        node = configuration.cfg.dataset
        firsts.setdefault((node._target_, node.get("name"), node.get("root")), configuration)
    for configuration in firsts.values():
        seed = configuration.seeds[0]
        known = read_identity(configuration.run, seed)
        if known is None or not _may_have_changed(configuration, known, find_seed_directory(configuration.run, seed)):
            continue
        try:
            data = _identify(configuration)
        except InputError:  # nothing is to be computed: results do not need their data
            continue
        if not data.has_arrays_of(known):
            raise _refuse(folder, configurations, configuration, data, Computed(configuration.run, seed, known))


def _may_have_changed(configuration: Configuration, known: DataIdentity, directory: Path) -> bool:
    """Return whether other data are where a result's came from, or a file of theirs was put there after the result."""
    node, source = configuration.cfg.dataset, Path(known.source)
    # A root holds the source, where there is one, beside files of other data.
    named = [value for name, value in node.items() if name != "root" or not known.source]
    places = [Path(value) for value in (known.source, *named) if value and isinstance(value, str)]
    try:
        # null is a place, too, which NTKLENS_DATA moves; a loader of one's own may call anything its root.
        if known.source and "root" in node and (node.root is None or (node.root and isinstance(node.root, str))):
            root = find_root(node.root)
            moved = [root / part for part in source.parts[-2:] if root not in source.parents]
            if any(place.is_dir() and any(place.iterdir()) for place in moved):
                return True
        finished = (directory / FILE_NAME).stat().st_mtime
        files = [file for place in places for file in (place.iterdir() if place.is_dir() else [place])]
        return any(_find_date(file) > finished for file in files if file.is_file())
    except OSError:
        return False


def _find_date(file: Path) -> float:
    """Return when a file was written or put in its place: a copy may keep an older date of writing."""
    facts = file.stat()
    return max(facts.st_mtime, facts.st_ctime)


def _identify(configuration: Configuration) -> DataIdentity:
    return identify_dataset(configuration.cfg, load_dataset(configuration.cfg))


def _list_sources(configurations: Sequence[Configuration]) -> list[Configuration]:
    """Return the first configuration of each source of data."""
    firsts: dict[tuple, Configuration] = {}
    for configuration in configurations:
        firsts.setdefault(_name_source(configuration), configuration)
    return list(firsts.values())


def _name_source(configuration: Configuration) -> tuple:
    return _identify_settings(configuration).dataset, configuration.cfg.dataset.get("root")


def _identify_settings(configuration: Configuration) -> DataIdentity:
    """Return the identity as far as the settings tell it."""
    return identify(OmegaConf.to_container(configuration.cfg.dataset, resolve=True), {})  # type: ignore[arg-type]


def _find_comparable(pending: Sequence[Configuration], computed: Computed) -> Iterator[Configuration]:
    """Yield what is to be computed on the data that a result claims too: on the same samples, and from each source."""
    same = [c for c in pending if _identify_settings(c).dataset == computed.data.dataset]
    chosen = [c for c in same if _identify_settings(c).chosen == computed.data.chosen]
    yield from chosen[:1]
    yield from _list_sources(same)


def _differs_when_loaded(configuration: Configuration, data: DataIdentity, computed: Computed) -> bool:
    """Return whether the samples of a result without `content`, chosen from the data of a launch, are others."""
    settled = data.chosen == computed.data.chosen or (data.content and computed.data.content)
    if settled or (data.files and data.files == computed.data.files):
        return False
    attrs = read_attributes(find_seed_directory(computed.run, computed.seed) / FILE_NAME)
    try:
        node = json.loads(attrs["config"])["dataset"]
        if "root" in node:
            node["root"] = configuration.cfg.dataset.get("root")
        again = load_checked(OmegaConf.create(node))
    except (KeyError, ValueError, TypeError):  # an InputError among them: these data do not have such samples
        return False
    return not identify(node, again.provenance).has_arrays_of(computed.data)


def _note_unpublished(pending: Sequence[Configuration]) -> None:
    """Say once per source which files have a published name and are not the published ones."""
    for configuration in _list_sources([c for c in pending if "root" in c.cfg.dataset]):
        dataset = load_dataset(configuration.cfg)
        source = str(dataset.provenance.get("source", ""))
        if dataset.provenance.get("published") is False and source not in _noted:
            _noted.add(source)
            print(
                f"{source}: not the published {dataset.name}; the results say so (data_published = 0)", file=sys.stderr
            )
