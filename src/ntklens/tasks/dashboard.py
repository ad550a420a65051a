"""task=dashboard: the W&B workspace of a sweep."""

import json
import math
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ntklens.analysis.groups import ORDER, RANDOM
from ntklens.analysis.sweeps import study_sweeps
from ntklens.config.construct import construct
from ntklens.config.task import SWEEP, task
from ntklens.errors import InputError
from ntklens.store.files import write_atomically
from ntklens.sweep.status import COMPLETE, UNFINISHED, read_sweep
from ntklens.wandb.names import read_axes
from ntklens.wandb.runs import FOLDER, check_credentials, choose_mode, find_server, make_environment
from ntklens.wandb.tracker import WandbTracker
from ntklens.wandb.workspace import NoAnswer, converse, list_panels

FILE_NAME, SAVED = "dashboard.json", "dashboard-addresses.json"
BUILD_SECONDS = 120.0  # to import wandb and build a workspace, on a machine that does much else


@task(reads=(*SWEEP, "tracking", "tracking."))
def dashboard(cfg: DictConfig) -> int:
    """task=dashboard: build a sweep's workspace, and save it where there are credentials; else write what it would be.

    Returns:
      0; 3 if the server did not take it.

    Raises:
      InputError: if there is no such sweep, or nothing to track it with.
    """  # noqa: DOC501
    results, name = Path(cfg.paths.results), cfg.name
    status = read_sweep(results / name)
    if not isinstance(construct(cfg.tracking), WandbTracker):
        raise InputError("task=dashboard: needs tracking=wandb")
    mode = choose_mode(cfg.tracking.mode)
    check_credentials(mode)
    online = mode == "online"
    try:
        sentences = study_sweeps(results, [name], [status]).summary
    except InputError:  # nothing is finished yet
        sentences = []
    path = results / name / FOLDER / FILE_NAME
    question = {
        "name": name, "entity": cfg.tracking.entity or os.environ.get("WANDB_ENTITY"), "project": cfg.tracking.project,
        "axes": list_numbers(results / name), "sentences": sentences,
        "saved": _read_saved(path.with_name(SAVED)) if online else None,
    }  # fmt: skip
    patience = {"build": BUILD_SECONDS, "save": 2 * cfg.tracking.patience}
    environment = make_environment(results / name)  # what wandb keeps lies with the sweep
    kept = f"; the definition is kept in {path}"
    try:
        for answer in converse(question, environment, results / name, patience):
            if "built" in answer:
                _write(path, answer["built"])
                _print_panels(answer["built"], path)
                if online:
                    print(f"wandb    asking {find_server()}", flush=True)
                else:
                    print(f"wandb    without credentials nothing is sent; with them, the workspace “{answer['name']}” "
                          f"and a report would be saved in the project {cfg.tracking.project}")  # fmt: skip
            elif "saved" in answer:
                question["saved"][answer["saved"]] = answer["address"]
                write_atomically(path.with_name(SAVED), json.dumps(question["saved"]) + "\n")
                print(f"saved    {answer['saved']} {answer['address']}")
            elif "error" in answer:
                raise NoAnswer(answer["error"])
    except NoAnswer as error:
        print(f"wandb: {error}{kept if path.exists() else ''}", file=sys.stderr)
        return UNFINISHED
    return COMPLETE


def _write(path: Path, definition: dict[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(definition, indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        raise InputError(f"paths.results: {path} cannot be written ({error.strerror})") from error


def _print_panels(definition: dict[str, Any], path: Path) -> None:
    panels = Counter(section for section, _ in list_panels(definition))
    print(f"{sum(panels.values())} panels: {', '.join(f'{section} ({count})' for section, count in panels.items())}")
    print(f"written  {path}")


def _read_saved(path: Path) -> dict[str, str]:
    """Return the addresses of what was saved before."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def list_numbers(sweep: Path) -> list[str]:
    """Return the overrides that a sweep sweeps over positive numbers, those first that people look at first."""
    axes = [axis for axis, values in read_axes(sweep).items() if axis not in RANDOM and all(map(_is_positive, values))]
    return sorted(axes, key=lambda axis: ORDER.index(axis) if axis in ORDER else len(ORDER))


def _is_positive(value: str) -> bool:
    try:
        return 0 < float(value) < math.inf
    except ValueError:
        return False
