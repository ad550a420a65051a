"""What the runs of a chart are, in the words of its caption."""

from collections.abc import Sequence

from ntklens.analysis.settings import describe_runs
from ntklens.analysis.study import Study

SHOWN = ("data", "model", "width", "optimiser", "training", "seeds")


def describe_setup(study: Study, runs: Sequence[str]) -> str:
    """Return what runs were of and how they were trained, as one sentence."""
    words = describe_runs(study.data, list(runs))
    named = {"width": "width {}", "seeds": "seeds of each: {}"}
    listed = [named.get(heading, "{}").format(words[heading]) for heading in SHOWN if words.get(heading)]
    return f"Runs: {'; '.join(listed)}."
