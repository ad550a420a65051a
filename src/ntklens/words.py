"""How numbers of things read."""


def count(number: int, noun: str) -> str:
    """Return a number of things, `1 seed` or `2,000 seeds`.

    Args:
      number: how many.
      noun: of one; its plural ends in s.
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
