"""The report as files: multirun/<name>/report/."""

import contextlib
import json
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ntklens.analysis.study import Study
from ntklens.report.chart import Chart
from ntklens.report.charts import build_charts
from ntklens.report.draw import draw_chart
from ntklens.report.page import build_page
from ntklens.report.tables import write_claims, write_fits, write_observables, write_steps
from ntklens.store.files import LEFTOVER_SECONDS

PAGE = "report.html"
FIGURES = "figures"
MOST_VARIANTS = 4  # charts of one family that are drawn on paper; the page has all


def write_report(study: Study, folder: Path) -> Path:
    """Write tables, figures and page, and put them in place of what was there once all is whole.

    Args:
      study: what was found.
      folder: `multirun/<name>/report`; plans are looked for in `multirun/<name of a sweep>/plan.json`.

    Returns:
      The page's path.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".{folder.name}-*"):  # by a report that was killed; a young one may be at work
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > LEFTOVER_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
    temporary = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
    try:
        (temporary / FIGURES).mkdir(parents=True)
        _write_all(study, temporary, _read_plans(study.names, folder))
        _swap(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder / PAGE


def _write_all(study: Study, folder: Path, plans: Sequence[dict]) -> None:
    write_observables(folder / "observables.csv", study)
    write_fits(folder / "fits.csv", study)
    write_claims(folder / "claims.csv", study)
    if study.steps:
        write_steps(folder / "steps.csv", study)
    charts = build_charts(study)
    drawn = {
        chart.stem: [path.relative_to(folder).as_posix() for path in draw_chart(chart, folder / FIGURES)]
        for chart in select_drawn(charts)
    }
    (folder / PAGE).write_text(build_page(study, charts, drawn, plans), encoding="utf-8")


def select_drawn(charts: Sequence[Chart]) -> list[Chart]:
    """Return the charts to draw on paper: the first of each family, which are of the longest axis."""
    count = Counter[str]()
    drawn = []
    for chart in charts:
        count[chart.family] += 1
        if count[chart.family] <= MOST_VARIANTS:
            drawn.append(chart)
    return drawn


def _read_plans(names: Sequence[str], folder: Path) -> list[dict]:
    plans = []
    for name in names:
        try:
            plan = json.loads((folder.parent.parent / name / "plan.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):  # a run that was no sweep has none
            continue
        if isinstance(plan, dict):
            plans.append(plan)
    return plans


def _swap(temporary: Path, folder: Path) -> None:
    """Put a folder in place of another; what a kill in between leaves is found by either name, whole."""
    old = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
    if folder.exists():
        folder.rename(old)
    temporary.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
