"""Tables that other programs read: observables.csv, fits.csv, claims.csv, and what each figure draws."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ntklens.analysis.groups import name_swept
from ntklens.analysis.study import Study
from ntklens.recording.observables import find_resolution
from ntklens.report.chart import Chart, list_rows
from ntklens.stats.powerlaw import Interval, Law, explain_choice
from ntklens.stats.surface import Surface
from ntklens.store.files import write_atomically

FIT_COLUMNS = ("observable", "axis", "group", "form", "exponent", "low", "high", "n")
CHECK_COLUMNS = (
    "misfit", "r2", "log_likelihood", "aicc", "holdout", "exponent_without_top", "exponent_without_bottom",
    "bootstrap_low", "bootstrap_high", "x_min", "x_max", "seeds", "preferred", "power_p", "note",
)  # fmt: skip
LAST_COLUMNS = ("not_preferred",)
PARAMETER_COLUMNS = ("amplitude", "offset", "intercept", "slope", "scale")  # first, and always there
CLAIM_COLUMNS = (
    "claim", "protocol", "value", "low", "high", "verdict", "axis", "group", "reason", "range", "coverage",
    "conditions", "paper", "family_low", "family_high", "family_verdict",
)  # fmt: skip
LINE_COLUMNS = ("panel", "series", "role", "seed", "x", "y", "low", "high", "detail")
CELL_COLUMNS = ("panel", "x", "y", "value")
FOREST_COLUMNS = (
    "panel", "setting", "part", "series", "value", "low", "high", "stated_low", "stated_high", "slope_only",
)  # fmt: skip


def write_observables(path: Path, study: Study) -> None:
    """Write one row per run and seed: what was swept, then every observable; NaN is an empty field.

    A seed that is missing has a row only if it was asked for, and not for another configuration's larger ensemble.
    """
    swept = name_swept(study.data)
    names = [str(name) for name, variable in study.observables.data_vars.items() if variable.dims == ("run", "seed")]
    sweeps = ["sweep"] if "sweep" in study.data.coords else []
    columns = ["run", "seed", "state", *sweeps, *swept, *names, "resolution"]
    arrays = {name: study.observables[name].values for name in names}
    states = study.data.state.values.astype(str)
    resolutions = find_resolution(study.data)
    rows = []
    for (row, column), state in np.ndenumerate(states):
        unit = str(study.data.run.values[row]).rpartition("/")[2], int(study.data.seed.values[column])
        if state == "missing" and unit not in study.asked:
            continue
        about = {"run": study.data.run.values[row], "seed": study.data.seed.values[column], "state": state}
        about |= {name: study.data[name].values[row] for name in (*sweeps, *swept)}
        about["resolution"] = str(resolutions[row, column])
        rows.append(about | {name: array[row, column] for name, array in arrays.items()})
    write_rows(path, columns, rows)


def write_fits(path: Path, study: Study) -> None:
    """Write one row per law and form; a form that was refused has empty numbers and the reason as its note.

    Of a form that was fitted and is not preferred, `not_preferred` says why.

    Joint laws over two axes have rows of their own, their axis `<one> × <other>`.
    """
    found = {name for law in (*study.laws, *study.layer_laws) for fit in law.fits.values() for name in fit.parameters}
    found |= {name for surface in study.surfaces for name in surface.parameters}
    others = sorted(found - {"exponent", *PARAMETER_COLUMNS})
    bounds = [f"{name}_{end}" for name in (*PARAMETER_COLUMNS, *others) for end in ("low", "high")]
    columns = [*FIT_COLUMNS, *PARAMETER_COLUMNS, *others, *CHECK_COLUMNS, *bounds, *LAST_COLUMNS]
    rows = [row for law in (*study.laws, *study.layer_laws) for row in list_fits(law)]
    write_rows(path, columns, [*rows, *_list_surfaces(study.surfaces)])


def _list_surfaces(surfaces: Sequence[Surface]) -> Iterable[dict[str, object]]:
    best = {surface.group: surface for surface in reversed(surfaces)}  # they are sorted by AICc within a group
    for surface in surfaces:
        row: dict[str, object] = {
            "observable": surface.observable, "axis": " × ".join(surface.axes), "group": surface.group,
            "form": surface.form, "n": surface.n, "misfit": surface.misfit, "aicc": surface.aicc,
            "preferred": surface is best[surface.group], "note": surface.formula,
        }  # fmt: skip
        for name, interval in surface.parameters.items():
            row |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
        yield row


def list_fits(law: Law) -> list[dict[str, object]]:
    """Return a law's forms as rows of fits.csv."""
    shared = {"observable": law.observable, "axis": law.axis, "group": law.group}
    rows: list[dict[str, object]] = []
    objections = explain_choice(law)
    for form, fit in law.fits.items():
        exponent = fit.parameters.get("exponent", Interval(math.nan, math.nan, math.nan))
        row: dict[str, object] = shared | {
            "form": form, "exponent": exponent.value, "low": exponent.low, "high": exponent.high, "n": len(fit.x),
            "misfit": fit.misfit, "r2": fit.r2, "log_likelihood": fit.log_likelihood, "aicc": fit.aicc,
            "holdout": fit.holdout, "exponent_without_top": fit.without_top.value,
            "exponent_without_bottom": fit.without_bottom.value, "bootstrap_low": fit.bootstrap.low,
            "bootstrap_high": fit.bootstrap.high, "x_min": float(np.min(fit.x)), "x_max": float(np.max(fit.x)),
            "seeds": int(np.sum(fit.count)), "preferred": form == law.preferred,
            "power_p": law.course.p if form == "power" else math.nan, "note": "of −y" if fit.sign < 0 else "",
            "not_preferred": objections[form],
        }  # fmt: skip
        for name, interval in fit.parameters.items():
            if name != "exponent":
                row |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
        rows.append(row)
    rows += [shared | {"form": form, "preferred": False, "note": reason} for form, reason in law.refusals.items()]
    return rows


def write_claims(path: Path, study: Study) -> None:
    """Write one row per claim: what was measured and the verdict."""
    rows = [
        {
            "claim": c.claim, "protocol": c.protocol, "value": c.measured.value, "low": c.measured.low,
            "high": c.measured.high, "verdict": c.verdict, "axis": c.axis, "group": c.group, "reason": c.reason,
            "range": c.range, "coverage": c.coverage, "conditions": c.conditions, "paper": c.paper,
            "family_low": c.family.low, "family_high": c.family.high, "family_verdict": c.family_verdict,
        }
        for c in study.claims
    ]  # fmt: skip
    write_rows(path, CLAIM_COLUMNS, rows)


def write_chart(path: Path, chart: Chart) -> None:
    """Write the points that a chart draws."""
    columns = [
        *(LINE_COLUMNS if chart.panels else ()),
        *(CELL_COLUMNS if chart.cells else ()),
        *(FOREST_COLUMNS if chart.forest else ()),
    ]
    write_rows(path, list(dict.fromkeys(columns)), list_rows(chart))


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Write a CSV file, whole or not at all; what a row lacks, None and NaN are empty fields."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_write_field(row.get(column)) for column in columns] for row in rows)
    write_atomically(path, text.getvalue())


def _write_field(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, float | np.floating):
        if math.isnan(value):
            return ""
        # A float32 has seven digits: more would be noise of its conversion.
        return repr(float(str(value))) if isinstance(value, np.float32) else repr(float(value))
    return value


def write_steps(path: Path, study: Study) -> None:
    """Write one row per observable and pair of runs, one of which has the step of the other divided."""
    columns = ("observable", "run", "divided", "divisor", "mean", "error", "count", "is_large")
    write_rows(path, columns, [{name: getattr(one, name) for name in columns} for one in study.steps])
