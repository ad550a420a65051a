"""task=dashboard: the W&B workspace of a sweep."""

import json
import math
import os
import sys
from collections import Counter
from pathlib import Path

from omegaconf import DictConfig

from ntklens.analysis.groups import ORDER, RANDOM
from ntklens.errors import InputError
from ntklens.signals import NoTimeLeft, limit_time
from ntklens.sweep.progress import COMPLETE, UNFINISHED, read_sweep
from ntklens.sweep.states import write_atomically
from ntklens.tasks.report import study_sweeps
from ntklens.tracking.dashboard import build_dashboard, list_panels, save_dashboard
from ntklens.tracking.names import read_axes
from ntklens.tracking.runs import FOLDER, check_credentials, choose_mode, explain, find_server, make_environment

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
    mode = choose_mode(cfg.tracking.mode)
    check_credentials(mode)
    online = mode == "online"
    environment = make_environment(results / name)  # before wandb is imported: its files lie with the sweep
    os.environ.clear()
    os.environ.update(environment)
    try:
        sentences = study_sweeps(results, [name], [status]).summary
    except InputError:  # nothing is finished yet
        sentences = []
    entity = cfg.tracking.entity or os.environ.get("WANDB_ENTITY")
    axes = list_numbers(results / name)
    built = build_dashboard(name, entity or NOBODY, cfg.tracking.project, axes, sentences)
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
    print(f"wandb    asking {find_server()}", flush=True)
    try:
        with limit_time(2 * cfg.tracking.patience):
            if not entity:
                built = build_dashboard(name, _ask_entity(), cfg.tracking.project, axes, sentences)
            saved = _read_saved(path.with_name(SAVED))
            for what, address in save_dashboard(built, sentences, dict(saved)):
                saved[what] = address
                write_atomically(path.with_name(SAVED), json.dumps(saved) + "\n")
                print(f"saved    {what} {address}")
    except NoTimeLeft:
        print(
            f"wandb: no answer within {2 * cfg.tracking.patience:g} s; the definition is kept in {path}",
            file=sys.stderr,
        )
        sys.stdout.flush()
        os._exit(UNFINISHED)  # not through wandb's end, which would wait, too
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


def list_numbers(sweep: Path) -> list[str]:
    """Return the overrides that a sweep sweeps over positive numbers, those first that people look at first."""
    axes = [axis for axis, values in read_axes(sweep).items() if axis not in RANDOM and all(map(_is_positive, values))]
    return sorted(axes, key=lambda axis: ORDER.index(axis) if axis in ORDER else len(ORDER))


def _is_positive(value: str) -> bool:
    try:
        return 0 < float(value) < math.inf
    except ValueError:
        return False
