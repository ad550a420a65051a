"""The page: one file, no network."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.resources import files
from typing import Any

import numpy as np
import xarray as xr

from ntklens.analysis.claims import (
    CONTRADICTED,
    INCONCLUSIVE,
    NOT_SWEPT,
    OUTSIDE,
    SUPPORTED,
    Claim,
    describe_column,
    describe_multiplicity,
    find_papers,
)
from ntklens.analysis.groups import Group, name_swept
from ntklens.analysis.settings import (
    describe_differences,
    describe_runs,
    is_full_batch,
    is_ours,
    join_values,
    read_configs,
)
from ntklens.analysis.study import Study
from ntklens.analysis.summary import Kind, Sentence
from ntklens.report.chart import Chart, group_families
from ntklens.report.charts import MOST_GROUPS
from ntklens.report.charts.laws import read_symbol
from ntklens.report.glossary import TERMS, link_terms
from ntklens.report.interactive import describe_family, encode_json, list_colours
from ntklens.report.style import format_interval, format_number, label_axis, label_group, to_markup
from ntklens.report.tables import list_fits
from ntklens.stats.powerlaw import Interval
from ntklens.stats.surface import describe_surface
from ntklens.store.stack import flatten_config

TABLES = ("observables.csv", "fits.csv", "claims.csv")
CONTENTS = (
    ("summary", "Summary"), ("claims", "Claims"), ("figures", "Figures"), ("fits", "Fits"),
    ("diagnostics", "Diagnostics"), ("configuration", "Configuration"), ("provenance", "Provenance"),
)  # fmt: skip
FINISHED = ("done", "diverged")
MOST_FITS = 1000  # rows of the table of fits
MOST_ROWS = 200  # of runs in the table of differences
FIT_HEADS = (
    ("", ""), ("observable", ""), ("axis", ""), ("group", ""), ("form", ""), ("α", "number"), ("other parameters", ""),
    ("points", "number"), ("intrinsic scatter", "number"), ("R²", "number"), ("AICc", "number"), ("hold-out", "number"),
    ("not preferred: why", ""), ("α without top octave", "number"), ("α without bottom octave", "number"),
    ("bootstrap", "number"),
)  # fmt: skip
COMMAND = re.compile(
    r"python -m ntklens\.run[^;<]*|(?<![\w.])[a-z]+(?:\.\w+)?=[\w.,]*\w|\b(?:dataset|model|optimizer|training)\.\w+"
)
SWEPT = " was swept"  # ends the share of a range that a sweep covers
MOST_COLUMNS = 4  # groups side by side in a table of claims
BADGES = {  # verdict → class, sign
    SUPPORTED: ("supported", "✓"), CONTRADICTED: ("contradicted", "✗"), INCONCLUSIVE: ("open", "?"),
    OUTSIDE: ("note", "–"), NOT_SWEPT: ("note", "–"),
}  # fmt: skip
VERDICT_WORDS = (
    (SUPPORTED, "the 95 % interval lies inside what is stated"),
    (CONTRADICTED, "it lies outside"),
    (INCONCLUSIVE, "swept, but the interval straddles a bound, or there is no number"),
    (OUTSIDE, "the paper does not state it of such runs, or they cover less than three quarters, in log, of the range "
     "that it is stated for: the value stands there without a verdict"),
)  # fmt: skip
FACTS = {
    "git_commit": "git commit", "git_dirty": "uncommitted changes", "packages": "versions", "python": "Python",
    "device": "device", "host": "host", "precision": "precision", "data": "data", "data_checksum": "data checksum",
    "data_published": "published data files", "schema_version": "schema",
}  # fmt: skip


def build_page(study: Study, charts: Sequence[Chart], drawn: Mapping[str, Sequence[str]], plans: Sequence[dict]) -> str:
    """Return the report as HTML.

    Args:
      study: what was found.
      charts: as `build_charts` made them.
      drawn: a chart's stem → its files, relative to the page, the PNG among them; only charts that were drawn on paper.
      plans: what was asked for: the plan.json of each sweep that has one.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "markup": lambda text: Markup(link_terms(to_markup(str(text)))),
        "command": lambda text: Markup(COMMAND.sub(r"<code>\g<0></code>", to_markup(str(text)))),
        "plain": lambda text: Markup(to_markup(str(text))),
        "interval": lambda i: format_interval(i.value, i.low, i.high),
        "number": format_number,
        "symbol": read_symbol,
        "badge": lambda verdict: BADGES[verdict][0],
        "sign": lambda verdict: BADGES[verdict][1],
    }
    families = group_families(charts)
    template = environment.from_string(_read("report.html.jinja"))
    return template.render(
        title=" + ".join(study.names),
        version=version("ntklens"),
        line=_describe_origin(study),
        contents=_list_contents(families),
        incomplete=describe_incomplete(study.states),
        work=describe_work(study, plans),
        terms=TERMS,
        summary=split_summary(study.summary),
        states=[(state, count) for state, count in study.states.items() if count],
        unreadable=json.loads(study.data.attrs.get("unreadable", "[]")),
        tables=TABLES,
        papers=_pivot_claims(study),
        family=describe_multiplicity(study.claims),
        verdicts=VERDICT_WORDS,
        surfaces=[(surface, describe_surface(surface)) for surface in study.surfaces],
        families=[_describe_section(name, members, drawn) for name, members in families.items()],
        fit_heads=FIT_HEADS,
        **_select_fit_rows(study),
        **_list_refusals(study),
        transitions=study.transitions,
        groups_left_out=max(0, len(study.groups) - MOST_GROUPS),
        diagnoses=study.diagnoses,
        differences=_list_differences(study.data),
        first_run=str(study.data.run.values[0]) if study.data.sizes["run"] else "",
        config=_list_config(study.data),
        commands=[str(plan["command"]) for plan in plans if plan.get("command")],
        facts=_list_facts(study, plans),
        css=Markup(_read("report.css")),
        colours=Markup(encode_json(list_colours())),
        data=Markup(encode_json({name: describe_family(members) for name, members in families.items()})),
        plotly=Markup(get_plotlyjs()),
        script=Markup(_read("report.js")),
    )


def _list_contents(families: Mapping[str, Sequence[Chart]]) -> list[tuple[str, str, bool]]:
    """Return the parts of the page as (id, name, whether it is a part of the part before)."""
    contents = []
    for part, name in CONTENTS:
        contents.append((part, name, False))
        if part == "figures":
            contents += [(f"figure-{family}", charts[0].title, True) for family, charts in families.items()]
    return contents


def describe_incomplete(states: Mapping[str, int]) -> str:
    """Return what is missing of a sweep in a sentence; empty if nothing is."""
    missing = {state: count for state, count in states.items() if count and state not in FINISHED}
    if not missing:
        return ""
    listed = ", ".join(f"{count:,} {state}" for state, count in missing.items())
    total = sum(states.values())
    rest = total - sum(missing.values())
    return f"This sweep is not complete: of {total:,} seeds {listed}. What follows is of the other {rest:,}."


def _read(name: str) -> str:
    return (files("ntklens.report") / name).read_text(encoding="utf-8")


def _describe_origin(study: Study) -> str:
    seen = _read_provenance(study.data)
    runs, seeds = study.data.sizes["run"], int(np.isin(study.data.state.values.astype(str), FINISHED).sum())
    parts = [f"{runs:,} configuration{'s' if runs != 1 else ''}, {seeds:,} trajector{'ies' if seeds != 1 else 'y'}"]
    parts += [name_device(device) for device in seen.get("device", [])[:2]]
    parts += [f"commit {str(commit)[:8]}" for commit in seen.get("git_commit", [])[:2] if commit]
    parts += [f"ntklens {version('ntklens')}", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"]
    return " · ".join(parts)


def name_device(recorded: object) -> str:
    """Return a device as people name it: `gpu: NVIDIA H100`, but `cpu`, which JAX calls so twice."""
    platform, _, kind = str(recorded).partition(": ")
    return platform if kind == platform else str(recorded)


def _describe_section(name: str, charts: Sequence[Chart], drawn: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    panels = [panel for chart in charts for panel in chart.panels]
    return {
        "name": name,
        "title": charts[0].title,
        "seeds": any(series.role == "seed" for panel in panels for series in panel.series),
        "axes": bool(panels),
        "variants": [
            {
                "name": chart.variant or "all runs",
                "caption": chart.caption,
                "stem": drawn[chart.stem][0].rsplit(".", 1)[0] if chart.stem in drawn else "",
                "files": drawn.get(chart.stem, ()),
                "image": next((file for file in drawn.get(chart.stem, ()) if file.endswith(".png")), ""),
            }
            for chart in charts
        ],
    }


def _select_fit_rows(study: Study) -> dict[str, Any]:
    """Return the rows of fits to show: all, or of very many the preferred ones."""
    rows = _list_fit_rows(study)
    shown = rows if len(rows) <= MOST_FITS else [row for row in rows if row["preferred"]][:MOST_FITS]
    return {"fits": shown, "fits_left_out": len(rows) - len(shown)}


def describe_work(study: Study, plans: Sequence[dict]) -> str:
    """Return what was done, in one paragraph: networks, data, training, seeds, probe, hardware, date.

    Args:
      study: what was found.
      plans: the plan.json of each sweep that has one.
    """
    data, words, seen = study.data, describe_runs(study.data), _read_provenance(study.data)
    runs = data.sizes["run"]
    width, start = words.get("width"), words.get("initialisation")
    networks = [
        words.get("model", "networks"),
        f"width {width}" if width else "",
        f"{start} parameterisation" if start else "",
    ]
    text = [
        f"{runs:,} configuration{'s' if runs != 1 else ''}: {', '.join(filter(None, networks))}; "
        f"data {words.get('data', 'not recorded')}; {words.get('optimiser', 'optimiser not recorded')}, "
        f"{words.get('training', 'training not recorded')}.",
        f"Seeds done of each: {words.get('seeds', '0')} ({sum(study.states.values()):,} trajectories asked for, "
        f"{study.states.get('done', 0):,} done).",
    ]
    tested = sorted({one["test_size"] for one in seen.get("data", []) if isinstance(one, dict) and "test_size" in one})
    ours = _has_known_splits(data)
    if tested and ours:
        text.append(f"The minimum is chosen on one half of {join_values(tested)} test samples, and read on the other.")
    sizes = {name: np.unique(data[name].values[np.isfinite(data[name].values)]) for name in ("N", "C") if name in data}
    known = [f"{name} = {join_values([int(v) for v in values])}" for name, values in sizes.items() if len(values)]
    if known:
        text.append(
            f"The kernel Θ is measured on N probe inputs{', held out from training,' if ours else ''} and C outputs: "
            f"{', '.join(known)}."
        )
    if "trace" in words:
        text.append(f"Traces are {words['trace']}.")
    machine = [name_device(one) for one in seen.get("device", [])]
    machine += [str(one) for name in ("host", "precision") for one in seen.get(name, [])]
    times = [str(plan["time"])[:10] for plan in plans if plan.get("time")]
    when = f"launched on {', '.join(dict.fromkeys(times))}" if times else ""
    where = f"computed on {', '.join(machine)}" if machine else ""
    origin = ", ".join(filter(None, (when, where)))
    return " ".join([*text, f"{origin[0].upper()}{origin[1:]}." if origin else ""]).strip()


def _has_known_splits(data: xr.Dataset) -> bool:
    """Return whether all runs have data of our loaders: of others it is not known what their probe and tests are."""
    return all(is_ours(config.get("dataset._target_")) for config in read_configs(data))


def split_summary(sentences: Sequence[Sentence]) -> list[dict[str, Any]]:
    """Return the summary in parts: a head and what stands below it, and without a head what is of no one group."""
    parts: list[dict[str, Any]] = []
    for sentence in sentences:
        if sentence.kind == Kind.HEAD:
            parts.append({"head": sentence, "sentences": []})
            continue
        if not parts or (parts[-1]["head"] and sentence.kind != Kind.LAW):
            parts.append({"head": "", "sentences": []})
        parts[-1]["sentences"].append(sentence)
    return parts


def _pivot_claims(study: Study) -> list[dict[str, Any]]:
    """Return, for each paper, a table for each axis: one row per statement, one column per group of runs."""
    papers = []
    for paper in find_papers():
        own = [claim for claim in study.claims if claim.paper == paper.name]
        tables, unswept = [], []
        for axis in dict.fromkeys(claim.axis for claim in own):
            claims = [claim for claim in own if claim.axis == axis]
            groups = [group for group in study.groups if group.axis == axis]
            if groups:
                tables.append(_pivot_axis(study, axis, groups, claims))
            else:
                unswept.append({"axis": label_axis(axis), "claims": claims, "advice": claims[0].advice})
        papers.append({"name": paper.name, "not_stated": paper.not_stated, "tables": tables, "unswept": unswept})
    return [paper for paper in papers if paper["tables"] or paper["unswept"]]


def _pivot_axis(study: Study, axis: str, groups: Sequence[Group], claims: Sequence[Claim]) -> dict[str, Any]:
    by_place = {(claim.claim, claim.group): claim for claim in claims}
    statements = list(dict.fromkeys(claim.claim for claim in claims))
    columns: list[dict[str, Any]] = []
    for group in groups:
        own = [claim for claim in claims if claim.group == group.label]
        unmet = next((claim.why for claim in own if claim.why.startswith("no verdict")), "")
        columns.append(
            {
                "label": group.label, "title": _name_column(study.data, group),
                "words": describe_column(study.data, group),
                "departures": ", ".join(filter(None, (unmet.partition(": ")[2], own[0].protocol.partition(", ")[2]))),
                "range": own[0].range, "unmet": unmet, "swept": _find_swept(own),
                "advice": list(dict.fromkeys(part for claim in own for part in claim.advice.split("; ") if part)),
            }
        )  # fmt: skip
    rows: dict[tuple[object, ...], dict[str, Any]] = {}
    for statement in statements:
        cells = [by_place[statement, column["label"]] for column in columns]
        row = rows.setdefault(tuple(_read_cell(statement, cell) for cell in cells), {"claims": [], "cells": cells})
        row["claims"].append(statement)
    return {
        "axis": label_axis(axis),
        "outside": _explain_outside(claims, columns),
        "differences": describe_differences([column["words"] for column in columns]) if len(columns) > 1 else [],
        "parts": [
            {
                "columns": columns[start : start + MOST_COLUMNS],
                "rows": [{**row, "cells": row["cells"][start : start + MOST_COLUMNS]} for row in rows.values()],
            }
            for start in range(0, len(columns), MOST_COLUMNS)
        ],
    }


def _read_cell(statement: str, claim: Claim) -> tuple[object, ...]:
    """Return what a cell of a claim without a number shows; statements that show the same share a row."""
    if math.isfinite(claim.measured.value):
        return (statement,)
    return claim.verdict, claim.finding, claim.why, claim.family_verdict


def _find_swept(claims: Sequence[Claim]) -> str:
    """Return how much of its range a column covers, where that alone keeps its statements from a verdict."""
    found = {
        claim.why.partition(SWEPT)[0] + SWEPT for claim in claims if claim.verdict == OUTSIDE and SWEPT in claim.why
    }
    return found.pop() if len(found) == 1 else ""


def _explain_outside(claims: Sequence[Claim], columns: Sequence[Mapping[str, Any]]) -> str:
    """Return in a sentence that no statement has a verdict, and why; empty where some has one."""
    if any(claim.verdict != OUTSIDE for claim in claims) or not all(column["unmet"] for column in columns):
        return ""
    number = len({claim.claim for claim in claims})
    statements = "The statement is" if number == 1 else f"All {number} statements are"
    reasons = list(dict.fromkeys(column["unmet"].partition(": ")[2] for column in columns))
    return (
        f"{statements} outside what the paper states ({' | '.join(reasons)}): the numbers stand here without a verdict "
        "on it."
    )


def _name_column(data: xr.Dataset, group: Group) -> str:
    """Return a column's title: what tells its group from the others."""
    return label_group(group.label, is_full_batch(read_configs(data, group.runs))) or "these runs"


def _list_fit_rows(study: Study) -> list[dict[str, Any]]:
    """Return the rows of the table of fits: what is shown, and what it is sorted by."""
    rows = []
    for law in study.laws:
        for row, fit in zip(list_fits(law), law.fits.values(), strict=False):
            alpha, boot = fit.parameters.get("exponent", Interval(math.nan, math.nan, math.nan)), fit.bootstrap
            others = [
                f"{name} {format_interval(i.value, i.low, i.high)}"
                for name, i in fit.parameters.items()
                if name != "exponent"
            ]
            sign = "−" if fit.sign < 0 else ""
            cells = [
                _cell("●" if row["preferred"] else "", 0 if row["preferred"] else 1),
                _cell(sign + read_symbol(law.observable), kind="names"),
                _cell(law.axis, kind="names"),
                _cell(law.group, kind="names"),
                _cell(fit.form.replace("_", " "), kind="names form"),
                _cell(format_interval(alpha.value, alpha.low, alpha.high), alpha.value),
                _cell(", ".join(others), kind="words"),
                _cell(f"{len(fit.x)}", len(fit.x)),
                _cell("–" if math.isnan(fit.misfit) else f"{fit.misfit:.1%}", fit.misfit),
                *(_cell(format_number(value), value) for value in (fit.r2, fit.aicc, fit.holdout)),
                _cell(str(row["not_preferred"]), kind="names"),
                *(_cell(format_number(value), value) for value in (fit.without_top.value, fit.without_bottom.value)),
                _cell(f"[{format_number(boot.low)}, {format_number(boot.high)}]" if math.isfinite(boot.low) else "–",
                      boot.high - boot.low),
            ]  # fmt: skip
            rows.append({"preferred": row["preferred"], "cells": cells})
    return rows


def _cell(text: str, value: float | None = None, kind: str = "") -> dict[str, Any]:
    if value is None:
        return {"text": text, "value": None, "kind": kind}
    return {"text": text, "value": f"{value:.9g}" if math.isfinite(value) else "", "kind": "number"}


def _list_refusals(study: Study) -> dict[str, Any]:
    rows = [
        (read_symbol(law.observable), law.axis, law.group, form.replace("_", " "), reason)
        for law in study.laws
        for form, reason in law.refusals.items()
    ]
    return {
        "refusals": rows[:MOST_FITS],
        "refused": len(rows),
        "refusal_reasons": list(dict.fromkeys(row[-1] for row in rows))[:12],
    }


def _list_differences(data: xr.Dataset) -> dict[str, Any]:
    names = name_swept(data)
    done = (data.state.values.astype(str) == "done").sum(axis=1)
    rows = [
        {"run": str(run), "values": [_format_value(data[name].values[row]) for name in names], "done": int(done[row])}
        for row, run in enumerate(data.run.values[:MOST_ROWS])
    ]
    return {"names": names, "rows": rows, "left_out": max(0, data.sizes["run"] - MOST_ROWS)}


def _format_value(value: Any) -> str:
    if isinstance(value, float | np.floating):
        return "null" if math.isnan(value) else f"{value:g}"
    return str(value)


def _list_config(data: xr.Dataset) -> list[tuple[str, str]]:
    """Return the configuration of the first run, each setting under its override's name."""
    if "config" not in data.coords or not data.sizes["run"] or not data["config"].values[0]:
        return []
    return [
        (name, json.dumps(value, ensure_ascii=False))
        for name, value in flatten_config(json.loads(data["config"].values[0])).items()
    ]


def _read_provenance(data: xr.Dataset) -> dict[str, list[Any]]:
    return json.loads(data.attrs.get("provenance", "{}"))


def _list_facts(study: Study, plans: Sequence[dict]) -> list[tuple[str, list[str]]]:
    seen = _read_provenance(study.data)
    facts = [
        (FACTS.get(name, name), _describe_values(seen[name]))
        for name in (*FACTS, *sorted(seen.keys() - FACTS))
        if name in seen
    ]
    facts.append(("page written", [f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC by ntklens {version('ntklens')}"]))
    launched = [str(plan["time"])[:16].replace("T", " ") + " UTC" for plan in plans if plan.get("time")]
    return [("launched", launched), *facts] if launched else facts


def _describe_values(values: Sequence[Any]) -> list[str]:
    """Return values as lines of text; of what is nested, `name value` pairs."""
    lines = []
    for value in values:
        if isinstance(value, dict):
            lines += [f"{name}: {inner}" for name, inner in flatten_config(value).items() if inner is not None]
        else:
            lines.append(str(value))
    return lines
