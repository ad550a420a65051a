"""Laws in the few words that a figure has room for: the form, and its numbers with their intervals."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from ntklens.report.style import find_symbol, format_interval, format_number, glue
from ntklens.stats.powerlaw import SAME, Fit, Law, explain_choice

# Form → (its name, its formula, the numbers that say most of it).
FORMS: dict[str, tuple[str, str, tuple[tuple[str, str], ...]]] = {
    "power": ("power law", "A {m}^α", (("exponent", "α"),)),
    "affine": ("affine", "a + b {m}", (("scale", "a/b"),)),
    "offset_power": ("offset power law", "y_∞ + A {m}^α", (("exponent", "α"), ("offset", "y_∞"))),
    "plateau_power": ("plateau, then power law", "A (1 + {m}/{m}*)^α", (("exponent", "α"), ("scale", "{m}*"))),
    "power_plateau": (
        "power law, then plateau", "A {m}^α (1 + {m}/{m}*)^−α", (("exponent", "α"), ("scale", "{m}*")),
    ),
    "crossover": (
        "crossover", "A {m}^α (1 + {m}/{m}*)^(α′−α)",
        (("exponent", "α"), ("exponent_above", "α′"), ("scale", "{m}*")),
    ),
}  # fmt: skip
SLOPE = "mean slope"  # of a power law that is not told from others
BENT = "bends"  # of one that is rejected: its number is a mean slope, as the caption says
UNBOUNDED = {"affine": (("intercept", "a"), ("slope", "b"))}  # numbers where those of `FORMS` have no bounds


def select_curves(law: Law) -> tuple[str | None, str | None]:
    """Return the forms to draw: the preferred one and its closest rival by AICc, each if it describes the points.

    A power law that the points bend about is not drawn as the law that they follow: alone stands the form of lower AICc
    that describes them best, if there is one, though it is not preferred.
    """
    preferred = law.preferred if law.preferred and law.is_described_by(law.preferred) else None
    rivals = [
        form for form, fit in law.fits.items() if form != law.preferred and not fit.is_degenerate and fit.is_describing
    ]
    if preferred is None:
        rivals = [form for form in rivals if law.course.is_bent and law.fits[form].aicc < _find_least(law)]
    return preferred, min(rivals, key=lambda f: (np.isnan(law.fits[f].aicc), law.fits[f].aicc)) if rivals else None


def _find_least(law: Law) -> float:
    """Return the AICc below which another form fits better than the preferred one; none does where there is none."""
    return law.fits[law.preferred].aicc if law.preferred else -np.inf


def describe_law(law: Law) -> str:
    """Return the form that is drawn with its numbers; empty where none could be fitted: the caption says why."""
    if law.preferred is None:
        return SAME if law.is_same else ""
    preferred, rival = select_curves(law)
    if preferred is not None:
        return describe_fit(law.fits[preferred], law.axis, _name_form(law, preferred))
    if law.preferred == "power":
        form = f"{FORMS[rival][0]}, " if rival else ""
        slope = describe_fit(law.fits["power"], law.axis, _name_slope(law))
        return f"{slope}; {_explain_curve(law, rival, form)}"
    return "no law describes the points"


def _name_slope(law: Law) -> str:
    """Return what the power law is called where it is not drawn."""
    return BENT if law.course.is_rejected else SLOPE


def _explain_curve(law: Law, form: str | None, name: str = "") -> str:
    """Return why the form that is drawn in place of the power law is not preferred, or why none is drawn."""
    objections = explain_choice(law)
    if form is not None:
        return f"dashed: {name}{objections[form]}"
    better = [one for one, fit in law.fits.items() if fit.aicc < _find_least(law)]
    if not better:
        return "no curve: no form fits better"
    reasons = [objections[one] for one in better if law.fits[one].is_degenerate]
    reasons += [str(law.course) for one in better if law.fits[one].is_describing]
    return f"no curve: {next(filter(None, reasons), 'no form describes the points')}"


def _name_form(law: Law, form: str) -> str:
    """Return what a form is called: a power law that was not tested, or not told from another form, is a slope."""
    return SLOPE if form == "power" and not law.course.is_power else FORMS[form][0]


def describe_fit(fit: Fit, axis: str, name: str = "") -> str:
    """Return a form's name, or another, and its numbers with their intervals; no line break divides one of them."""
    own, _, numbers = FORMS[fit.form]
    found = [fit.parameters[key] for key, _ in numbers if key in fit.parameters]
    if fit.form in UNBOUNDED and all(np.isinf(i.low) and np.isinf(i.high) for i in found):
        numbers = UNBOUNDED[fit.form]
    symbol = find_symbol(axis)
    listed = [
        glue(f"{label.format(m=symbol)} = {format_interval(interval.value, interval.low, interval.high)}")
        for key, label in numbers
        if (interval := fit.parameters.get(key)) is not None
    ]
    return ", ".join([name or own, *listed])


def describe_refusals(laws: Sequence[Law], symbols: Mapping[str, str]) -> list[str]:
    """Return of which observables no law was fitted, and why, in a sentence for each reason.

    Args:
      laws: those of a chart.
      symbols: observable → symbol.
    """
    found: dict[str, dict[str, None]] = {}
    for law in laws:
        if not law.fits:
            reason = next(iter(law.refusals.values()), law.finding)
            found.setdefault(reason, {})[symbols[law.observable]] = None
    return [f"No law is fitted to {', '.join(names)}: {reason}." for reason, names in found.items()]


def describe_forms(laws: Sequence[Law]) -> str:
    """Return the formulas of the forms that are drawn, for a caption; empty if none is."""
    drawn = dict.fromkeys(form for law in laws for form in select_curves(law) if form)
    axis = laws[0].axis if laws else ""
    return "; ".join(f"{FORMS[form][0]}: {FORMS[form][1].format(m=find_symbol(axis))}" for form in drawn)


def describe_many(laws: Sequence[Law]) -> str:
    """Return in a line what laws of many groups have in common: how often which form, and between which exponents."""
    chosen = [(law, form, _name_form(law, form)) for law in laws if (form := select_curves(law)[0])]
    slopes = [law for law in laws if law.preferred == "power" and not select_curves(law)[0]]
    chosen += [(law, "power", _name_slope(law)) for law in slopes]
    parts = []
    for name, count in Counter(name for _, _, name in chosen).most_common():
        form = next(one for _, one, own in chosen if own == name)
        key, label = FORMS[form][2][0]
        values = [law.fits[form].parameters[key].value for law, _, own in chosen if own == name]
        span = glue(" … ".join(dict.fromkeys((format_number(min(values)), format_number(max(values))))))
        label = label.format(m=find_symbol(laws[0].axis))
        parts.append(f"{name} in {count} of {len(laws)}, {glue(f'{label} = {span}')}")
        why = dict.fromkeys(_explain_curve(law, select_curves(law)[1]) for law in slopes if _name_slope(law) == name)
        parts[-1] += f" ({'; '.join(why)})" if why else ""
    if len(chosen) < len(laws):
        parts.append(f"none in {len(laws) - len(chosen)}")
    return "; ".join(parts)
