"""ntklens: how the neural tangent kernel moves while a network learns, and how that scales."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ntklens._compat import neural_tangents as neural_tangents
    from ntklens.analysis.load import load as load
    from ntklens.analysis.observables import measure_observables as measure_observables
    from ntklens.analysis.powerlaw import fit_form as fit_form
    from ntklens.analysis.powerlaw import fit_law as fit_law
    from ntklens.analysis.samples import summarise as summarise
    from ntklens.analysis.study import analyse as analyse
    from ntklens.analysis.transition import find_transition as find_transition
    from ntklens.ntk.metrics import effective_rank as effective_rank
    from ntklens.ntk.metrics import trace as trace
    from ntklens.ntk.structured import kernel as kernel
    from ntklens.ntk.structured import layer_kernels as layer_kernels
    from ntklens.ntk.structured import layer_traces as layer_traces
    from ntklens.report.cell import draw as draw
    from ntklens.snapshots import load_snapshots as load_snapshots

_PUBLIC = {
    "load": "ntklens.analysis.load",
    "measure_observables": "ntklens.analysis.observables",
    "summarise": "ntklens.analysis.samples",
    "fit_form": "ntklens.analysis.powerlaw",
    "fit_law": "ntklens.analysis.powerlaw",
    "find_transition": "ntklens.analysis.transition",
    "analyse": "ntklens.analysis.study",
    "kernel": "ntklens.ntk.structured",
    "layer_kernels": "ntklens.ntk.structured",
    "layer_traces": "ntklens.ntk.structured",
    "trace": "ntklens.ntk.metrics",
    "effective_rank": "ntklens.ntk.metrics",
    "draw": "ntklens.report.cell",
    "load_snapshots": "ntklens.snapshots",
    "neural_tangents": "ntklens._compat",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:  # JAX is imported by what needs it, not by `import ntklens`
    if name not in _PUBLIC:
        raise AttributeError(f"module 'ntklens' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__
