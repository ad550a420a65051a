"""Fits at a glance: what a notebook shows of them."""

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from ntklens.stats.forms import FORMS

if TYPE_CHECKING:  # fits show themselves by this module
    from ntklens.stats.powerlaw import Fit, Interval, Law
    from ntklens.stats.samples import Samples
    from ntklens.stats.surface import Surface
    from ntklens.stats.transition import Transition

NEGLIGIBLE = 1e-9  # of a value: an end of its interval that is smaller is written as 0


def describe_interval(interval: "Interval") -> str:
    """Return a number and its interval as text, `−0.5 [−0.52, −0.48]`, ∞ where the data set no bound."""
    if math.isnan(interval.value):
        return "no value"
    ends = (end if abs(end) > NEGLIGIBLE * abs(interval.value) else 0.0 for end in (interval.low, interval.high))
    value, low, high = (f"{number:.4g}".replace("inf", "∞") for number in (interval.value, *ends))
    return f"{value} [{low}, {high}]"


def describe_samples(samples: "Samples") -> str:
    """Return in one line how many means there are, over what, and how sure they are."""
    return f"Samples({_count(samples)}, typical relative error {samples.typical_error:.2g})"


def describe_fit(fit: "Fit") -> str:
    """Return a fit in one line: the form, its parameters, and what was fitted."""
    return (
        f"Fit({fit.form}, {FORMS[fit.form].formula}: {_join_parameters(fit)}; "
        f"intrinsic scatter {fit.misfit:.1%}, R² {fit.r2:.3f}; {_count(fit.samples)})"
    )


def describe_law(law: "Law") -> str:
    """Return a law in one line: the finding, the preferred form with its parameters, and what was fitted."""
    fit = law.fits.get(law.preferred or "")
    rest = "" if fit is None else f"; {fit.form}: {_join_parameters(fit)}; {_count(fit.samples)}"
    return f"Law({_name_place(law)}: {law.finding}{rest})"


def describe_transition(transition: "Transition") -> str:
    """Return a transition in one line: its sentence."""
    return f"Transition({_name_place(transition)}: {transition.sentence})"


def describe_joint_law(surface: "Surface") -> str:
    """Return a joint law in one line: the form and its parameters."""
    where = " and ".join(surface.axes) + (f" at {surface.group}" if surface.group else "")
    numbers = ", ".join(f"{name} {describe_interval(one)}" for name, one in surface.parameters.items())
    return (
        f"Surface({surface.observable} over {where}, {surface.form}, {surface.formula}: {numbers}; {surface.n} points)"
    )


def describe_samples_html(samples: "Samples") -> str:
    """Return the means as a table of HTML, one row per point."""
    errors = samples.mean * samples.variance**0.5
    rows = zip(samples.x, samples.sign * samples.mean, errors, samples.count, strict=True)
    cells = [(f"{x:g}", f"{mean:.4g}", f"{error:.2g}", str(count)) for x, mean, error, count in rows]
    return _make_table(describe_samples(samples), ("x", "mean", "standard error", "values"), cells)


def describe_fit_html(fit: "Fit") -> str:
    """Return the parameters as a table of HTML, one row each."""
    rows = [(name, describe_interval(interval)) for name, interval in fit.parameters.items()]
    caption = f"{fit.form}, {FORMS[fit.form].formula} ({_count(fit.samples)})"
    return _make_table(caption, ("parameter", "value [95 %]"), rows)


def describe_law_html(law: "Law") -> str:
    """Return the forms as a table of HTML, one row each, the preferred one first."""
    fits = sorted(law.fits.values(), key=lambda fit: fit.form != law.preferred)
    rows = [
        (
            f"{fit.form} (preferred)" if fit.form == law.preferred else fit.form,
            FORMS[fit.form].formula,
            _join_parameters(fit),
            f"{fit.misfit:.1%}",
            f"{fit.aicc:.1f}",
        )
        for fit in fits
    ]
    rows += [
        (form, FORMS[form].formula if form in FORMS else "", f"no fit: {reason}", "", "")
        for form, reason in law.refusals.items()
    ]
    columns = ("form", "y(x)", "parameters [95 %]", "intrinsic scatter", "AICc")
    return _make_table(f"{_name_place(law)}: {law.finding}", columns, rows)


def _name_place(law: "Law | Transition") -> str:
    return f"{law.observable} along {law.axis}" + (f" at {law.group}" if law.group else "")


def _join_parameters(fit: "Fit") -> str:
    return ", ".join(f"{name} {describe_interval(interval)}" for name, interval in fit.parameters.items())


def _count(samples: "Samples") -> str:
    points, values = len(samples.x), int(samples.count.sum())
    span = f" at x = {samples.x[0]:g} … {samples.x[-1]:g}" if points else ""
    return f"{points} means{span} of {values} values"


def _make_table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def join(row: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) + "</tr>"

    return f"<p>{escape(caption)}</p><table>{join(columns, 'th')}{''.join(join(row, 'td') for row in rows)}</table>"
