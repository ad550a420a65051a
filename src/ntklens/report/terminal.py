"""A report on one screen: what a terminal shows of a study. The page holds everything."""

import math
from collections.abc import Iterator, Sequence

from rich.console import Console

from ntklens.analysis.diagnostics import NOTE
from ntklens.analysis.groups import Group
from ntklens.analysis.settings import is_full_batch, read_configs
from ntklens.analysis.study import Study
from ntklens.analysis.summary import Kind, name_law
from ntklens.recording.observables import OBSERVABLES
from ntklens.report.console import print_sentence
from ntklens.report.fitted import Column, FittedTable
from ntklens.report.style import find_symbol, format_interval, label_axis, label_group
from ntklens.stats.powerlaw import NO_FIT, SAME, Law
from ntklens.words import count

BENT, UNTESTED, NOTHING = "~", "?", "–"
MOST_NAMES = 3  # groups that a line names
MOST_COLUMNS = 8  # groups in a table of slopes: two tables of 80 columns


def print_summary(study: Study, console: Console) -> None:
    """Print a table of slopes for each axis, transitions, and what to mind; notes are counted.

    Args:
      study: what was found.
      console: of `make_console`.
    """
    for sentence in _select_sentences(study, Kind.SWEEP, Kind.CLAIMS):
        print_sentence(console, sentence, indent=2)
    for axis in dict.fromkeys(group.axis for group in study.groups):
        groups = [group for group in study.groups if group.axis == axis]
        laws = [law for law in study.laws if law.axis == axis and OBSERVABLES[law.observable].summarised]
        if not any(law.fits or law.is_same for law in laws):
            continue
        fitted = any(law.fits for law in laws)
        if fitted:
            console.print(_make_table(study, axis, groups, laws))
        for sentence in (
            *([_explain_marks(axis, laws), *_count_left_out(groups)] if fitted else []),
            *_explain_gaps(study, groups, laws),
            *_name_zeros(axis, groups),
            *_find_transitions(study, axis),
        ):
            print_sentence(console, sentence, indent=2)
    for sentence in _select_sentences(study, Kind.JOINT):
        print_sentence(console, sentence, indent=2)
    for diagnosis in study.diagnoses:
        if diagnosis.severity != NOTE:
            print_sentence(console, f"{diagnosis.severity:<8} {diagnosis.sentence} {diagnosis.advice}", indent=9)
    if notes := sum(diagnosis.severity == NOTE for diagnosis in study.diagnoses):
        print_sentence(console, f"{count(notes, 'note')} and every law in words: in the page.", indent=2)


def _select_sentences(study: Study, *kinds: Kind) -> Iterator[str]:
    """Yield the summary's sentences of some kinds; verdicts on papers only where there is one."""
    decided = any(claim.is_decided for claim in study.claims)
    for sentence in study.summary:
        if sentence.kind in kinds and (decided or sentence.kind != Kind.CLAIMS):
            yield sentence


def _make_table(study: Study, axis: str, groups: Sequence[Group], laws: Sequence[Law]) -> FittedTable:
    found = {(law.observable, law.group): law for law in laws}
    names = [name for name in dict.fromkeys(law.observable for law in laws) if name in study.observables]
    own = {name: [law for law in laws if law.observable == name] for name in names}
    symbols = [name_law(next((law for law in own[name] if law.fits), own[name][0])) for name in names]
    columns = [Column("", symbols, key=True, left=True)]
    for group in groups[:MOST_COLUMNS]:
        cells = [_write_slope(found.get((name, group.label))) for name in names]
        columns.append(Column(_name_group(study, group) or f"slope α in {find_symbol(axis)}", cells))
    return FittedTable(f"Slopes α along the {label_axis(axis)}", columns)


def _write_slope(law: Law | None) -> str | tuple[str, ...]:
    fit = law.fits.get("power") if law is not None else None
    if law is None or fit is None:
        return NOTHING
    alpha, course = fit.exponent, law.course
    mark = BENT if course.is_bent else "" if course.is_tested else UNTESTED
    half = (alpha.high - alpha.low) / 2
    short = f"{alpha.value:+.2f}±{half:.2f}{mark}" if math.isfinite(half) else f"{alpha.value:+.2f}±∞{mark}"
    return format_interval(alpha.value, alpha.low, alpha.high) + mark, short.replace("-", "−")


def _name_group(study: Study, group: Group) -> str:
    return label_group(group.label, is_full_batch(read_configs(study.data, group.runs)))


def _explain_marks(axis: str, laws: Sequence[Law]) -> str:
    courses = [law.course for law in laws if "power" in law.fits]
    words = [f"α: slope of ln y against ln {find_symbol(axis)}, with its 95 % interval"]
    words += [f"{BENT} the points bend, or another form fits better"] if any(one.is_bent for one in courses) else []
    if any(not one.is_bent and not one.is_tested for one in courses):
        words.append(f"{UNTESTED} too few points to test for a power law")
    words += [f"{NOTHING} no law"] if any("power" not in law.fits for law in laws) else []
    return "; ".join(words) + "."


def _count_left_out(groups: Sequence[Group]) -> Iterator[str]:
    """Yield how many groups the table of slopes leaves out, and where they are; nothing if it holds all."""
    if len(groups) > MOST_COLUMNS:
        yield f"{count(len(groups) - MOST_COLUMNS, 'more group')}: in the page's table of fits, and in fits.csv."


def _explain_gaps(study: Study, groups: Sequence[Group], laws: Sequence[Law]) -> Iterator[str]:
    """Yield why there is no law, a sentence for each reason with the observables and groups that share it."""
    found: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    names = {group.label: _name_group(study, group) for group in groups}
    for law in laws:
        if not law.fits:
            symbols, labels = found.setdefault(law.finding.removeprefix(NO_FIT), ({}, {}))
            symbols[OBSERVABLES[law.observable].symbol] = labels[names[law.group]] = None
    for reason, (symbols, labels) in found.items():
        listed = [label for label in labels if label]
        where = f" at {'; '.join(listed[:MOST_NAMES])}" if listed else ""
        more = f" and {len(listed) - MOST_NAMES} more" if len(listed) > MOST_NAMES else ""
        if reason == SAME:
            yield f"{', '.join(symbols)}{where}{more}: {SAME} of the {label_axis(laws[0].axis)}."
        else:
            yield f"No law of {', '.join(symbols)}{where}{more}: {reason}."


def _name_zeros(axis: str, groups: Sequence[Group]) -> Iterator[str]:
    """Yield that the zero of an axis enters no law, if there is one."""
    runs = {run for group in groups for run in group.zeros}
    if runs:
        yield (
            f"{axis}=0 ({count(len(runs), 'configuration')}) has no place on a logarithmic axis: left out of the laws, "
            "drawn beside the other values in the figures of learning, spectra and layers."
        )


def _find_transitions(study: Study, axis: str) -> Iterator[str]:
    """Yield the transitions that were found, and in one sentence that there are no others."""
    own = [transition for transition in study.transitions if transition.axis == axis]
    names = {group.label: _name_group(study, group) for group in study.groups if group.axis == axis}
    for transition in own:
        if transition.within:
            where = f" at {names[transition.group]}" if transition.group else ""
            yield f"Transition by {OBSERVABLES[transition.observable].symbol}{where}: {transition.sentence}."
    if own and not any(transition.within for transition in own):
        tested = any(not math.isnan(transition.power_p) for transition in own)
        symbols = ", ".join(dict.fromkeys(OBSERVABLES[transition.observable].symbol for transition in own))
        yield f"No crossover of {symbols} within the sweep{'' if tested else ': too few points'}."
