"""The data of a run: loaded once, and refused where they are not those of the results that are there."""

import functools
import json
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ntklens.data import Dataset
from ntklens.data.check import load_checked
from ntklens.errors import Unavailable
from ntklens.store.same_data import Computed, DataIdentity, find_computed, identify


def load_dataset(cfg: DictConfig) -> Dataset:
    """Return the configuration's dataset; the last one is kept, for the next configuration of a sweep."""
    return load_cached(json.dumps(OmegaConf.to_container(cfg.dataset, resolve=True)))


@functools.lru_cache(maxsize=1)
def load_cached(node: str) -> Dataset:
    """Return the dataset of a node of the configuration, given as JSON; the last one is kept."""
    return load_checked(OmegaConf.create(json.loads(node)))


def load_dataset_sizes(cfg: DictConfig) -> Dataset:
    """Return a dataset of the configuration's sizes; which samples it holds (`data_seed`, `probe_seed`) may differ."""
    plain: dict[str, Any] = OmegaConf.to_container(cfg.dataset, resolve=True)  # type: ignore[assignment]
    return _load_sizes(json.dumps(choose_any(plain), sort_keys=True))


_load_sizes = functools.lru_cache(maxsize=4)(load_cached.__wrapped__)  # a plan comes back to each of a sweep's sizes


def choose_any(node: dict[str, Any]) -> dict[str, Any]:
    """Return a dataset's settings with one choice of the samples that it draws."""
    return node | {name: 0 for name in ("data_seed", "probe_seed") if node.get(name)}


def identify_dataset(cfg: DictConfig, dataset: Dataset) -> DataIdentity:
    """Return what tells a configuration's data from others."""
    node: dict[str, Any] = OmegaConf.to_container(cfg.dataset, resolve=True)  # type: ignore[assignment]
    return identify(node, dataset.provenance)


def check_run_data(cfg: DictConfig, run: Path, data: DataIdentity, replaced: Sequence[int]) -> None:
    """Refuse to add seeds to a run whose other seeds were computed on other data.

    Args:
      cfg: the run's configuration.
      run: its directory.
      data: what was loaded.
      replaced: seeds whose results will be invalidated.

    Raises:
      Unavailable: naming the overrides that resolve it.
    """
    for computed in find_computed(run, leave=replaced, checkpoints=not cfg.replace):
        if not data.has_arrays_of(computed.data):
            asked = range(cfg.seed, cfg.seed + cfg.ensemble)
            words = describe_replacement(list_differing(run, data, asked), asked)
            raise Unavailable(describe_difference(cfg, data, computed, words))


def list_differing(run: Path, data: DataIdentity, asked: Collection[int]) -> list[int]:
    """Return the finished seeds of a run beside those asked for that were computed on other data."""
    left = find_computed(run, leave=asked, checkpoints=False)
    return [computed.seed for computed in left if not data.has_arrays_of(computed.data)]


def describe_replacement(left: Collection[int], asked: Collection[int]) -> str:
    """Return the overrides that compute anew the seeds that are left and those asked for; empty if no range does.

    Args:
      left: seeds on other data that `replace=true` alone does not reach.
      asked: the seeds that a line asks for.
    """
    if not left:
        return "replace=true"
    seeds = {*left, *asked}
    whole = max(seeds) - min(seeds) + 1 == len(seeds)
    return f"seed={min(seeds)} ensemble={len(seeds)} replace=true" if whole else ""


def describe_difference(cfg: DictConfig, data: DataIdentity, computed: Computed, replacement: str) -> str:
    """Return the line for data that are not those of a result.

    Args:
      cfg: the configuration.
      data: what was loaded.
      computed: a result on other data.
      replacement: the overrides that compute anew all that is there on other data; empty if none do.
    """
    node = cfg.dataset
    if "root" not in node:
        place = f"dataset.name={node.get('name')}"
    elif node.root is None and os.environ.get("NTKLENS_DATA"):
        place = f"dataset.root=null (NTKLENS_DATA={os.environ['NTKLENS_DATA']})"
    else:
        place = f"dataset.root={'null' if node.root is None else node.root}"
    there = f", from {computed.data.source}" if computed.data.source and computed.data.source != data.source else ""
    where = f"{computed.run.parent.name}/{computed.run.name}/seed={computed.seed}"
    ways = ["name=… to compute apart"]
    if replacement:
        ways += [f"{replacement} to compute anew what is there"]
    if not cfg.replace:
        ways += ["bring back the data of before"]
    alone = cfg.replace and replacement != "replace=true"
    remark = ": replace=true replaces only what the line asks for, and this is left" if alone else ""
    listed = ", or ".join([", ".join(ways[:-1]), ways[-1]] if ways[1:] else ways)
    return (
        f"{place}: these are other data than those of {where} (SHA-256 {computed.data.checksum[:12]}{there}; now "
        f"{data.checksum[:12]}), and results of both would be mixed; type {listed}{remark}"
    )
