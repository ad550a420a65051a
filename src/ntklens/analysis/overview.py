"""A study at a glance: what a notebook shows of it."""

from html import escape
from typing import TYPE_CHECKING

from ntklens.analysis.summary import Kind
from ntklens.stats.powerlaw import NO_FIT

if TYPE_CHECKING:  # a study shows itself by this module
    from ntklens.analysis.study import Study
    from ntklens.stats.powerlaw import Law

MOST_ROWS = 20
COLUMNS = ("observable", "axis", "group", "form", "exponent [95 %]")


def describe_study(study: "Study") -> str:
    """Return a short table of plain text: what was swept, the laws, how the claims were judged."""
    rows = [COLUMNS, *_list_laws(study)]
    kept = [column for column in range(len(COLUMNS)) if column != 2 or any(row[2] for row in rows[1:])]
    widths = {column: max(len(row[column]) for row in rows) for column in kept}
    table = ["  ".join(row[column].ljust(widths[column]) for column in kept).rstrip() for row in rows]
    return "\n".join([_describe_sweep(study), *(table if len(rows) > 1 else []), *_describe_rest(study)])


def describe_study_html(study: "Study") -> str:
    """Return `describe_study`'s table as HTML."""
    rows = _list_laws(study)
    kept = [column for column in range(len(COLUMNS)) if column != 2 or any(row[2] for row in rows)]

    def join(row: tuple[str, ...], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(row[column])}</{tag}>" for column in kept) + "</tr>"

    table = f"<table>{join(COLUMNS, 'th')}{''.join(join(row, 'td') for row in rows)}</table>" if rows else ""
    rest = "".join(f"<p>{escape(line)}</p>" for line in _describe_rest(study))
    return f"<p><b>{escape(_describe_sweep(study))}</b></p>{table}{rest}"


def _describe_sweep(study: "Study") -> str:
    sizes = study.data.sizes
    states = ", ".join(f"{count} {state}" for state, count in study.states.items() if count)
    name = f" of {' + '.join(study.names)}" if study.names else ""
    return f"Study{name}: {sizes.get('run', 0)} runs × {sizes.get('seed', 0)} seeds ({states or 'no trajectory'})"


def _list_laws(study: "Study") -> list[tuple[str, ...]]:
    return [_describe_law(law) for law in study.laws[:MOST_ROWS]]


def _describe_law(law: "Law") -> tuple[str, ...]:
    fit = law.fits.get(law.preferred or "")
    if fit is None:
        return law.observable, law.axis, law.group, "no fit", law.finding.removeprefix(NO_FIT)
    exponent = fit.parameters.get("exponent")
    numbers = "" if exponent is None else f"{exponent.value:.3f} [{exponent.low:.3f}, {exponent.high:.3f}]"
    form = fit.form if fit.form != "power" or law.course.is_power else "mean slope"
    return law.observable, law.axis, law.group, form, numbers


def _describe_rest(study: "Study") -> list[str]:
    lines = []
    if len(study.laws) > MOST_ROWS:
        lines.append(f"… and {len(study.laws) - MOST_ROWS} more laws in study.laws")
    if not study.groups:
        lines.append("no axis was swept, so there is no law")
    lines += [sentence for sentence in study.summary if sentence.kind == Kind.CLAIMS]
    if study.diagnoses:
        lines.append(f"{len(study.diagnoses)} diagnoses in study.diagnoses")
    return [*lines, "study.summary says it in sentences; ntklens.draw(study) lists its figures"]
