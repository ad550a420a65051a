"""How numbers of things read, and which names were meant."""

import difflib
from collections.abc import Iterable, Sequence


def count(number: int, noun: str) -> str:
    """Return a number of things, `1 seed` or `2,000 seeds`.

    Args:
      number: how many.
      noun: of one; its plural ends in s.
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def choose(number: int, one: str, many: str) -> str:
    """Return the verb that goes with a number: `choose(1, "is", "are")` is `is`."""
    return one if number == 1 else many


def correct_names(names: Iterable[str], known: Sequence[str]) -> list[str] | None:
    """Return names with the nearest known one in place of each that is unknown; None if one has none near.

    Args:
      names: as typed.
      known: those that there are.
    """
    nearest = [[name] if name in known else difflib.get_close_matches(name, known, n=1) for name in names]
    return [near[0] for near in nearest] if all(nearest) else None
