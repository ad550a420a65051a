"""How numbers of things read."""


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
