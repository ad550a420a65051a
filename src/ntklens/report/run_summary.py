"""What a single run found, in the terminal: its figure, its table, what to type next."""

import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten

import xarray as xr
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from rich.console import Console

from ntklens.config.lines import (
    drop_words,
    find_key,
    format_command,
    format_override,
    format_task,
    get_words,
    list_continuing,
    order_words,
)
from ntklens.jobs.watcher import ProgressBar
from ntklens.report.figures import draw_run
from ntklens.report.table import build_summary_table, describe_run_minima, describe_step
from ntklens.store.trajectory import FILE_NAME
from ntklens.words import count

FIGURE_NAME = "trajectory.png"


# What of a command line changes no network.
ASIDE = ("seed", "ensemble", "name", "paths.", "tracking", "tracking.", "launch.", "checkpoint.", "keep", "metrics")
MOST_TITLE = 140


def _describe(run: Path, seeds: Sequence[int]) -> str:
    """Return the title of a run's figure, with what was typed: not every setting is part of the folder's name."""
    words = drop_words(list_continuing(HydraConfig.get().overrides.task), *ASIDE)
    typed = f" ({' '.join(words)})".replace("$", r"\$") if words else ""  # for matplotlib: no formula
    return shorten(f"{run.name}: {count(len(seeds), 'seed')}{typed}", MOST_TITLE, placeholder=" …")


def print_run(
    cfg: DictConfig,
    run: Path,
    seeds: Sequence[int],
    trajectories: Sequence[xr.Dataset],
    console: Console,
    redraw: bool,
) -> None:
    """Draw a run's figure and print its table."""
    diverged = [seed for seed, t in zip(seeds, trajectories, strict=True) if t.attrs["state"] == "diverged"]
    constant = [seed for seed, t in zip(seeds, trajectories, strict=True) if t.attrs["constant_output"]]
    figure = run / FIGURE_NAME
    if redraw or not figure.exists():  # of the seeds just asked for
        try:
            with ProgressBar("drawing the figure"):
                draw_run(trajectories, _describe(run, seeds), figure)
        except OSError as error:
            print(f"{figure} cannot be written ({error.strerror})", file=sys.stderr)
    for own in _separate_data(trajectories):
        if len(own) < len(trajectories):
            numbers = list_seeds([int(t.attrs["seed"]) for t in own])
            console.print(f"{numbers}: of other data than the rest (SHA-256 {own[0].attrs['data_checksum'][:12]})")
        console.print(build_summary_table(own))
        for line in [*describe_step(own), *describe_run_minima(own)]:
            console.print(line)
    if diverged:
        console.print(
            f"{len(diverged)} of {count(len(seeds), 'seed')} diverged, kept out of the table: {list_seeds(diverged)}"
        )
    if constant:
        networks = f"{count(len(seeds), 'network')} {'is' if len(constant) == 1 else 'are'}"
        console.print(f"{len(constant)} of {networks} dead (constant over the probe): {list_seeds(constant)}")
    lines = [f"results  {run}/seed=*/{FILE_NAME}"]
    lines += [f"figure   {figure}"] if figure.exists() else []
    lines += [f'load     ntklens.load("{run.parent}")', *_suggest_next(cfg, run)]
    for line in lines:
        console.print(line)


def _separate_data(trajectories: Sequence[xr.Dataset]) -> list[list[xr.Dataset]]:
    """Return trajectories apart by the data that they were computed on."""
    groups: dict[str, list[xr.Dataset]] = {}
    for trajectory in trajectories:
        groups.setdefault(str(trajectory.attrs.get("data_checksum")), []).append(trajectory)
    return list(groups.values())


def list_seeds(numbers: Sequence[int]) -> str:
    """Return seeds as one piece of text."""
    return "seed " + ", ".join(map(str, numbers))


def _suggest_next(cfg: DictConfig, run: Path) -> list[str]:
    """Return what to type next: the same on other data, or over an axis, all else as it was typed."""
    hydra_cfg = HydraConfig.get()
    if hydra_cfg.mode == RunMode.MULTIRUN:
        return [f"report   {format_task('report', run.parent)}"]
    words = list_continuing(get_words())
    named = any(find_key(word) in ("name", "experiment") for word in words)
    if hydra_cfg.runtime.choices["dataset"] == "digits":
        changed, end, remark = ["dataset=mnist"], "mnist", "the same on MNIST"
    elif "width" in cfg.model:
        words = drop_words(words, "model.width")
        changed, end, remark = ["-m", "scaling=width"], "width", "the same over widths"
    else:
        words = drop_words(words, "dataset.train_size")
        changed, end, remark = ["-m", "scaling=data"], "data", "the same over numbers of training samples"
    words = drop_words(words, "dataset" if end == "mnist" else "scaling")
    if named:  # a folder of its own
        words = [*drop_words(words, "name"), format_override("name", f"{cfg.name}_{end}")]
    return [f"next     {format_command(order_words([*changed, *words]))}", f"         ({remark})"]
