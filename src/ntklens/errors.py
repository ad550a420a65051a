"""Errors that a user can correct, apart from defects."""


class InputError(ValueError):
    """Bad input: one line that names the override to type. The program ends with status 2, nothing written."""


class Unavailable(InputError):
    """What a process needs and does not have: the fault of no seed, which are interrupted and can be continued."""
