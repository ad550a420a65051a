"""ntklens: how the neural tangent kernel moves while a network learns, and how that scales."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ntklens.analysis.load import load as load
    from ntklens.ntk.metrics import effective_rank as effective_rank
    from ntklens.ntk.metrics import trace as trace
    from ntklens.ntk.structured import kernel as kernel
    from ntklens.ntk.structured import layer_kernels as layer_kernels
    from ntklens.ntk.structured import layer_traces as layer_traces

_PUBLIC = {
    "load": "ntklens.analysis.load",
    "kernel": "ntklens.ntk.structured",
    "layer_kernels": "ntklens.ntk.structured",
    "layer_traces": "ntklens.ntk.structured",
    "trace": "ntklens.ntk.metrics",
    "effective_rank": "ntklens.ntk.metrics",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:  # JAX is imported by what needs it, not by `import ntklens`
    if name not in _PUBLIC:
        raise AttributeError(f"module 'ntklens' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__
