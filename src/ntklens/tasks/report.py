"""task=report: from trajectories to laws, figures and one page."""

import warnings
from collections import Counter
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from ntklens.analysis.diagnostics import Diagnosis
from ntklens.analysis.load import load
from ntklens.analysis.study import Study, analyse
from ntklens.config import list_names
from ntklens.errors import InputError
from ntklens.report.console import make_console
from ntklens.report.write import write_report
from ntklens.sweep.progress import SweepStatus, read_sweep

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
    return 0


def study_sweeps(results: Path, names: list[str], statuses: list[SweepStatus]) -> Study:
    """Load sweeps and analyse them together.

    Args:
      results: the folder of all sweeps.
      names: of the sweeps.
      statuses: of the sweeps: what was asked for, and what became of it.
    """
    folders = [results / name for name in names]
    states: Counter[str] = Counter()
    for status in statuses:
        states.update(status.count_states())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # unreadable files: the diagnoses name them
        try:
            data = load(folders if len(folders) > 1 else folders[0])
        except InputError as error:
            told = ", ".join(f"{count} {state}" for state, count in states.items() if count) or "nothing was launched"
            raise InputError(f"name={'+'.join(names)}: no trajectory to report on ({told}): {error}") from error
    unreadable = int((data["state"].values == "unreadable").sum())
    if unreadable:  # by their status.json they may be done
        taken = min(unreadable, states["done"])
        states["done"] -= taken
        states["unreadable"] += unreadable
        states["queued"] -= min(states["queued"], unreadable - taken)
    failures = [
        f"{unit.details.get('error', 'unknown')}" for status in statuses for _, unit in status.list_units("failed")
    ]
    return analyse(
        data, names, {state: count for state, count in states.items() if count}, list(dict.fromkeys(failures))
    )


def print_summary(study: Study, console: Console) -> None:
    """Print what was found, and what to mind."""
    for sentence in study.summary:
        console.print(sentence, highlight=False, markup=False)
    verdicts = Counter(claim.verdict for claim in study.claims)
    told = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())
    console.print(f"claims   {told}", highlight=False)
    for diagnosis in study.diagnoses:
        console.print(_say(diagnosis), highlight=False, markup=False)


def _say(diagnosis: Diagnosis) -> str:
    return f"{diagnosis.severity:<8} {diagnosis.sentence} {diagnosis.advice}"
