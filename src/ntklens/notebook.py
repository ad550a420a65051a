"""The command line's training as a function, for notebooks and scripts."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import xarray as xr
from hydra.errors import CompactHydraException, HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ntklens._compat import leave_out_triton
from ntklens.cli import EXIT_INTERRUPTED, run_command
from ntklens.config.checks import validate
from ntklens.config.identity import name_run
from ntklens.config.lines import find_key, format_override
from ntklens.config.schemas import find_config_directory
from ntklens.errors import InputError
from ntklens.hints import describe
from ntklens.store.layout import find_seed_directory
from ntklens.store.load import load
from ntklens.store.stack import flatten_config
from ntklens.store.units import FINISHED, find_units

_called: list[DictConfig] = []  # the configuration of the call that runs
_refused: list[Exception] = []  # why it does not: Hydra prints a line on what is raised inside its call


def train(overrides: Sequence[str] | Mapping[str, Any] = (), quiet: bool = False) -> xr.Dataset:
    """Train one configuration and its seeds, as `python -m ntklens.run` does, and load what was recorded.

    Seeds that are finished in `paths.results` are not computed again.

        data = ntklens.train(["dataset=digits", "model.width=64", "ensemble=3"])
        data = ntklens.train({"model.width": 64, "ensemble": 3}, quiet=True)

    Args:
        overrides: as on the command line, or as a dictionary, nested or by the overrides' names.
        quiet: whether to print nothing; else progress and results are printed as in a terminal.

    Returns:
        The run's Dataset, as `ntklens.load` returns it, with the seeds asked for.

    Raises:
        InputError: before anything is written; names the override.
        RuntimeError: if a seed failed, with the reason.
        KeyboardInterrupt: if interrupted; the same call continues.
    """  # noqa: DOC501
    words = _list_words(overrides)
    for word in words:
        if word.startswith("-") or find_key(word) in ("task", "scaling", "experiment"):
            raise InputError(f"train: takes the overrides of one configuration, not {word}")
    _called.clear()
    _refused.clear()
    leave_out_triton()
    with contextlib.ExitStack() as stack:
        if quiet:
            for redirect in (contextlib.redirect_stdout, contextlib.redirect_stderr):
                stack.enter_context(redirect(io.StringIO()))
        try:
            status = run_command(_run, words, raises=True)
            if _refused:
                raise _refused.pop()
        except InputError:
            raise
        except (HydraException, CompactHydraException, OmegaConfBaseException) as error:
            raise InputError(describe(error)) from error
        except ValueError as error:
            if str(error).startswith("Config group override"):
                raise InputError(f"{error}; a group takes the name of an option, such as model=mlp") from error
            raise
    if status == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    (cfg,) = _called
    run = Path(cfg.paths.results) / cfg.name / name_run(cfg)
    units = find_units(run, range(cfg.seed, cfg.seed + cfg.ensemble))
    if unfinished := [unit for unit in units if unit.state not in FINISHED]:
        unit = unfinished[0]
        raise RuntimeError(
            f"{len(unfinished)} of {len(units)} seeds are not done; seed {unit.seed} {unit.state}: "
            f"{unit.details.get('error', 'unknown')}; retry=true tries failed seeds again"
        )
    return load([find_seed_directory(run, unit.seed) for unit in units], cache=False)


def _list_words(overrides: Any) -> list[str]:
    if isinstance(overrides, str):
        raise InputError(f"train: takes a list of overrides, [{overrides!r}]")
    if isinstance(overrides, DictConfig):
        overrides = OmegaConf.to_container(overrides, resolve=True)
    if isinstance(overrides, Mapping):
        flat = flatten_config({str(name): value for name, value in overrides.items()})
        return [format_override(name, value) for name, value in flat.items()]
    return [str(word) for word in overrides]


@hydra.main(version_base="1.3", config_path=str(find_config_directory()), config_name="config")
def _run(cfg: DictConfig) -> None:
    from ntklens.tasks.train import train as train_task

    try:
        OmegaConf.resolve(cfg)
        validate(cfg)
        _called.append(cfg)
        train_task(cfg)
    except (InputError, OmegaConfBaseException) as error:
        _refused.append(error)
