"""task=report: from trajectories to laws, figures and one page."""

from pathlib import Path

from omegaconf import DictConfig

from ntklens.analysis.sweeps import study_sweeps
from ntklens.config.checks import list_names
from ntklens.config.construct import construct
from ntklens.config.task import SWEEP, task
from ntklens.errors import InputError
from ntklens.jobs.tracker import end_tracking
from ntklens.report.console import make_console
from ntklens.report.terminal import print_summary
from ntklens.report.write import write_report
from ntklens.store.layout import find_seed_directory
from ntklens.store.units import FINISHED
from ntklens.sweep.status import SweepStatus, read_sweep
from ntklens.wandb.runs import describe_tracking

FOLDER = "report"


@task(several_names=True, reads=(*SWEEP, "tracking", "tracking."))
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
