"""task=dashboard: the W&B workspace of a sweep."""

import json
import os
import sys
from collections import Counter
from pathlib import Path

from omegaconf import DictConfig

from ntklens.errors import InputError
from ntklens.sweep.progress import COMPLETE, UNFINISHED, read_sweep
from ntklens.sweep.states import write_atomically
from ntklens.tasks.report import study_sweeps
from ntklens.tracking.dashboard import build_dashboard, list_panels, save_dashboard
from ntklens.tracking.names import read_axes
from ntklens.tracking.runs import FOLDER, choose_mode, explain, make_environment

FILE_NAME, SAVED = "dashboard.json", "dashboard-addresses.json"
NOBODY = "your-entity"  # where the owner of the runs is not known


def dashboard(cfg: DictConfig) -> int:
    """task=dashboard: build a sweep's workspace, and save it where there are credentials; else write what it would be.

    Returns:
      0; 3 if the server did not take it.

    Raises:
      InputError: if there is no such sweep, or nothing to track it with.
    """
    results, name = Path(cfg.paths.results), cfg.name
    status = read_sweep(results / name)
    if not cfg.tracking._target_.endswith("WandbTracker"):
        raise InputError("task=dashboard: needs tracking=wandb")
    online = choose_mode(cfg.tracking.mode) == "online"
    environment = make_environment(results / name)  # before wandb is imported: its files lie with the sweep
    os.environ.clear()
    os.environ.update(environment)
    try:
        sentences = study_sweeps(results, [name], [status]).summary
    except InputError:  # nothing is finished yet
        sentences = []
    try:
        entity = cfg.tracking.entity or os.environ.get("WANDB_ENTITY") or (_ask_entity() if online else NOBODY)
        built = build_dashboard(name, entity, cfg.tracking.project, _list_numbers(results / name), sentences)
    except Exception as error:
        if not online:
            raise
        print(f"wandb: {explain(error)}; nothing was saved", file=sys.stderr)
        return UNFINISHED
    path = results / name / FOLDER / FILE_NAME
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(built.definition, indent=1, ensure_ascii=False) + "\n")
    except OSError as error:
        raise InputError(f"paths.results: {path} cannot be written ({error.strerror})") from error
    panels = Counter(section for section, _ in list_panels(built.definition))
    print(f"{sum(panels.values())} panels: {', '.join(f'{section} ({count})' for section, count in panels.items())}")
    print(f"written  {path}")
    if not online:
        print(f"wandb    without credentials nothing is sent; with them, the workspace “{built.workspace.name}” and a "
              f"report would be saved in the project {cfg.tracking.project}")  # fmt: skip
        return COMPLETE
    try:
        saved = _read_saved(path.with_name(SAVED))
        for what, address in save_dashboard(built, sentences, dict(saved)):
            saved[what] = address
            write_atomically(path.with_name(SAVED), json.dumps(saved) + "\n")
            print(f"saved    {what} {address}")
    except Exception as error:  # whatever wandb raises
        print(f"wandb: {explain(error)}; the definition is kept in {path}", file=sys.stderr)
        return UNFINISHED
    return COMPLETE


def _read_saved(path: Path) -> dict[str, str]:
    """Return the addresses of what was saved before."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _ask_entity() -> str:
    import wandb

    return str(wandb.Api(timeout=20).default_entity)


def _list_numbers(sweep: Path) -> list[str]:
    """Return the overrides that a sweep sweeps over numbers, those first that people look at first."""
    from ntklens.analysis.groups import ORDER

    axes = [axis for axis in read_axes(sweep) if axis.rpartition(".")[2] not in ("activation", "parameterization")]
    return sorted(axes, key=lambda axis: ORDER.index(axis) if axis in ORDER else len(ORDER))
