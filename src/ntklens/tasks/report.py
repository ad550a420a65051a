"""task=report: from trajectories to laws, figures and one page."""

import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import xarray as xr
from omegaconf import DictConfig
from rich.console import Console

from ntklens.analysis.diagnostics import Diagnosis
from ntklens.analysis.load import load
from ntklens.analysis.study import Study, analyse
from ntklens.config import construct, list_names
from ntklens.errors import InputError
from ntklens.report.console import make_console
from ntklens.report.write import write_report
from ntklens.sweep.progress import SweepStatus, read_sweep
from ntklens.sweep.states import FINISHED, find_seed_directory
from ntklens.tracking import end_tracking
from ntklens.tracking.runs import describe_tracking

FOLDER = "report"


def report(cfg: DictConfig) -> int:
    """task=report: study one sweep or several, write figures, tables and page, and print the summary.

    Returns:
      0: the report is written, whatever it says.

    Raises:
      InputError: if there is no such sweep, or nothing in it can be read; nothing has been written then.
    """
    results, names = Path(cfg.paths.results), list(dict.fromkeys(list_names(cfg.name)))
    statuses = [read_sweep(results / name) for name in names]
    study = study_sweeps(results, names, statuses)
    try:
        page = write_report(study, results / "+".join(names) / FOLDER)
    except OSError as error:
        raise InputError(f"paths.results: the report cannot be written: {error}") from error
    print_summary(study, make_console())
    print(f"report   {page}")
    tracker = construct(cfg.tracking)
    tracker.report(page.parent, names, [place for status in statuses for place in _list_finished(status)])
    end_tracking()
    for line in describe_tracking(page.parents[1]):
        print(line)
    return 0


def _list_finished(status: SweepStatus) -> list[Path]:
    """Return the directories of a sweep's published trajectories."""
    return [
        find_seed_directory(status.folder / run.run, unit.seed)
        for run in status.runs
        for unit in run.units
        if unit.state in FINISHED
    ]


def study_sweeps(results: Path, names: list[str], statuses: list[SweepStatus]) -> Study:
    """Load sweeps and analyse them together.

    Args:
      results: the folder of all sweeps.
      names: of the sweeps.
      statuses: of the sweeps: what was asked for, and what became of it.

    Raises:
      InputError: if nothing can be read.
    """
    folders = [results / name for name in names]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of unreadable files, which the diagnoses name
        try:
            data = load(folders if len(folders) > 1 else folders[0])
        except InputError as error:
            told = _join(sum((Counter(status.count_states()) for status in statuses), Counter[str]()))
            raise InputError(f"name={'+'.join(names)}: nothing to report on yet ({told}): {error}") from error
    failures = [
        str(unit.details.get("error", "unknown")) for status in statuses for _, unit in status.list_units("failed")
    ]
    return analyse(data, names, count_states(data, statuses), list(dict.fromkeys(failures)))


def count_states(data: xr.Dataset, statuses: list[SweepStatus]) -> dict[str, int]:
    """Return state → units that are reported on; `unreadable` if their file is, whatever its status.json says.

    They are what the latest launch of a name asked for, and what earlier launches left in its folder.
    """
    states = data["state"].values
    names = [str(name).rpartition("/")[2] for name in data["run"].values]
    rows, columns = np.nonzero(states == "unreadable")
    unreadable = {(names[row], int(data["seed"].values[column])) for row, column in zip(rows, columns, strict=True)}
    asked = {run.run for status in statuses for run in status.runs}
    counts = Counter(
        "unreadable" if (run.run, unit.seed) in unreadable else unit.state
        for status in statuses
        for run in status.runs
        for unit in run.units
    )
    earlier = [states[row] for row, name in enumerate(names) if name not in asked]
    counts.update(str(state) for row in earlier for state in row if state != "missing")
    return dict(counts)


def _join(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "nothing was launched"


def print_summary(study: Study, console: Console) -> None:
    """Print what was found, and what to mind."""
    for sentence in study.summary:
        console.print(sentence)
    verdicts = Counter(claim.verdict for claim in study.claims)
    console.print(f"claims   {_join(verdicts)}")
    for diagnosis in study.diagnoses:
        console.print(_say(diagnosis))


def _say(diagnosis: Diagnosis) -> str:
    return f"{diagnosis.severity:<8} {diagnosis.sentence} {diagnosis.advice}"
