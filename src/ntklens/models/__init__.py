"""Networks, as flax.linen modules."""

from ntklens._lazy import offer_modules

__getattr__ = offer_modules(__name__)
