"""What the runs of a chart are, in the words of its caption."""

from collections.abc import Iterable, Sequence

from ntklens.analysis.settings import describe_runs
from ntklens.analysis.study import Study

WEIGHTED = (
    "Θ is the kernel of the parameters, each counted alike: that of gradient descent at one rate. Weighted: each array"
    " counts with the rate it is trained with (Adam's factors of the parameterisation), the kernel to compare across"
    " parameterisations. The two are the same where all rates are."
)
SHOWN = ("data", "model", "width", "optimiser", "training", "seeds")


def describe_setup(study: Study, runs: Sequence[str]) -> str:
    """Return what runs were of and how they were trained, as one sentence."""
    words = describe_runs(study.data, list(runs))
    named = {"width": "width {}", "seeds": "seeds of each: {}"}
    listed = [named.get(heading, "{}").format(words[heading]) for heading in SHOWN if words.get(heading)]
    return f"Runs: {'; '.join(listed)}."


def explain_weighted(observables: Iterable[str]) -> list[str]:
    """Return which kernel is which, in a sentence, where weighted ones are among those shown; else nothing."""
    return [WEIGHTED] if any("weighted" in name for name in observables) else []
