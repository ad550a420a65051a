"""The neural tangent kernel of a network: the kernel itself, its spectrum and the numbers drawn from it.

The module may be called: `ntklens.ntk(f, params, x1, x2=None)` returns Θ [N, C, N2, C] of f(params, x) [N, C], as
`ntklens.ntk.structured.ntk` does: `help(ntklens.ntk.structured.ntk)` describes the arguments.
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ntklens._lazy import offer_modules

if TYPE_CHECKING:
    from jax import Array

    from ntklens.ntk.layers import Function


class _CallableModule(ModuleType):
    """A package of the kernel that is also its function: both are called `ntklens.ntk`."""

    def __call__(self, f: "Function", params: Any, x1: "Array", x2: "Array | None" = None) -> "Array":
        """Return the kernel Θ [N, C, N2, C]; `ntklens.ntk.structured.ntk` has the definition."""
        from ntklens.ntk.structured import ntk  # JAX is imported where it is needed

        return ntk(f, params, x1, x2)


sys.modules[__name__].__class__ = _CallableModule
__getattr__ = offer_modules(__name__)
