"""What papers state, held against a sweep: one file per paper, found by its `PAPER`."""

from ntklens.analysis.claims.judge import (
    CONTRADICTED,
    DATA,
    INCONCLUSIVE,
    NOT_SWEPT,
    OUTSIDE,
    SUPPORTED,
    WIDTH,
    Claim,
    describe_column,
    describe_multiplicity,
    find_papers,
    find_span,
    judge_claims,
    name_protocol,
    summarise_claims,
)

__all__ = [
    "CONTRADICTED", "DATA", "INCONCLUSIVE", "NOT_SWEPT", "OUTSIDE", "SUPPORTED", "WIDTH", "Claim", "describe_column",
    "describe_multiplicity", "find_papers", "find_span", "judge_claims", "name_protocol", "summarise_claims",
]  # fmt: skip
