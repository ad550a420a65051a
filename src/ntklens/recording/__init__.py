"""What is recorded of a run, and when."""

from ntklens._lazy import offer_modules

__getattr__ = offer_modules(__name__)
