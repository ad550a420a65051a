"""From trajectories to numbers."""

from ntklens._lazy import offer_modules

__getattr__ = offer_modules(__name__)
