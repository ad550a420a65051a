"""The symbols and terms of a report: one line each, and a link to it from wherever they stand on the page."""

import re
from typing import NamedTuple


class Term(NamedTuple):
    """A symbol or a term.

    Attributes:
      id: of its line on the page.
      name: as it is written.
      formula: its definition, empty for a term that words define.
      words: one line.
      pattern: what of the page's markup is linked to it, a regular expression.
    """

    id: str
    name: str
    formula: str
    words: str
    pattern: str


INDEX = r"(?:<sub>\w+</sub>)?"
TERMS = (
    Term(
        "loss", "L_min", "min over updates of L_test",
        "The test loss at the minimum: the update of lowest selection loss. Runs of ntklens take one half of "
        "the test samples for that and the other for the test loss; a loop of one's own may give one loss for both.",
        r"L<sub>min</sub>",
    ),
    Term(
        "change", "ΔTr", "Tr Θ_min − Tr Θ_0", "By how much training changed the trace, from its start to the minimum.",
        r"ΔTr",
    ),
    Term(
        "trace", "Tr Θ", "Σ_i Σ_c |∂f_c(x_i) / ∂θ|²",
        "The trace of the tangent kernel Θ over N probe inputs and C outputs, not divided by N or C. Θ_0: before "
        "training; Θ_min: at the minimum.", rf"Tr Θ{INDEX}",
    ),
    Term("ratio", "β", "(Tr Θ_min − Tr Θ_0) / Tr Θ_0", "The relative change of the trace.", r"β"),
    Term(
        "rate", "χ", "δ Tr Θ / δ ln L_train",
        "The slope of the trace against ln L_train, from the start to the minimum; negative while the loss falls and "
        "the trace grows. Where its R² is below 0.95 no single χ exists.", r"χ(?!<|²)",
    ),
    Term(
        "rank", "Γ", "exp(−Σ_k p_k ln p_k), p_k = λ_k / Σ λ",
        "The effective rank of Θ, λ_k its eigenvalues: 1 to N C. Γ_0: before training; Γ_min, Γ(Θ_min): at the "
        "minimum.",
        rf"Γ(?:\(Θ{INDEX}\)|{INDEX})",
    ),
    Term(
        "exponent", "α", "y = A x^α",
        "The exponent of the fitted power law, with its 95 % interval in brackets: the mean slope of ln y against "
        "ln x. Points follow a power law only where that is stated; where they bend, α is how steep they are on the "
        "whole.",
        r"α",
    ),
    Term(
        "scatter", "intrinsic scatter", "",
        "τ: by how much points scatter about a curve beyond what seeds explain, relative to their size. More seeds do "
        "not lessen it.", r"(?i:intrinsic scatter)",
    ),
    Term(
        "aicc", "AICc", "−2 ln L + 2 p n / (n − p − 1)",
        "Ranks forms of different size by their likelihood L, p parameters, n seeds: the lower, the better; a "
        "difference below 2 says nothing.", r"AICc",
    ),
    Term(
        "holdout", "hold-out", "",
        "The r.m.s. error of ln y in the top octave of the axis, of the curve fitted without it: how well a form "
        "extrapolates.", r"hold-out",
    ),
    Term(
        "crossover", "crossover", "",
        "The scale x* at which a smooth curve passes from one slope to another: half-way between them.",
        r"crossover(?: scale)?",
    ),
    Term(
        "family", "family-wise", "",
        "Read singly, one interval in twenty misses the truth; read family-wise, intervals are widened so that all "
        "of them hold together at 95 % (Bonferroni).", r"(?i:family-wise)",
    ),
)  # fmt: skip
SYMBOLS = re.compile("|".join(f"(?P<{term.id}>{term.pattern})" for term in TERMS))
TAG = re.compile(r"(<code>.*?</code>|<a\b.*?</a>|<(?!/?sub>)[^>]*>)", re.DOTALL)


def link_terms(markup: str) -> str:
    """Return markup with a link to the glossary at every symbol and term in it.

    Args:
      markup: escaped text, indices as `<sub>`, as `style.to_markup` returns it.
    """
    pieces = TAG.split(markup)
    return "".join(piece if number % 2 else SYMBOLS.sub(_link, piece) for number, piece in enumerate(pieces))


def _link(found: re.Match[str]) -> str:
    return f'<a class="term" href="#term-{found.lastgroup}">{found[0]}</a>'
