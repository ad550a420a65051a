"""ntklens: how the neural tangent kernel moves while a network learns, and how that scales."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ntklens import _moved

if TYPE_CHECKING:
    from ntklens._compat import neural_tangents as neural_tangents
    from ntklens.analysis.study import analyse as analyse
    from ntklens.ntk.metrics import effective_rank as effective_rank
    from ntklens.ntk.metrics import trace as trace
    from ntklens.ntk.structured import kernel as kernel
    from ntklens.ntk.structured import layer_kernels as layer_kernels
    from ntklens.ntk.structured import layer_traces as layer_traces
    from ntklens.recording.observables import measure_observables as measure_observables
    from ntklens.report.cell import draw as draw
    from ntklens.stats.powerlaw import fit_form as fit_form
    from ntklens.stats.powerlaw import fit_law as fit_law
    from ntklens.stats.samples import summarise as summarise
    from ntklens.stats.transition import find_transition as find_transition
    from ntklens.store.load import load as load
    from ntklens.store.snapshots import load_snapshots as load_snapshots

_PUBLIC = {
    "load": "ntklens.store.load",
    "measure_observables": "ntklens.recording.observables",
    "summarise": "ntklens.stats.samples",
    "fit_form": "ntklens.stats.powerlaw",
    "fit_law": "ntklens.stats.powerlaw",
    "find_transition": "ntklens.stats.transition",
    "analyse": "ntklens.analysis.study",
    "kernel": "ntklens.ntk.structured",
    "layer_kernels": "ntklens.ntk.structured",
    "layer_traces": "ntklens.ntk.structured",
    "trace": "ntklens.ntk.metrics",
    "effective_rank": "ntklens.ntk.metrics",
    "draw": "ntklens.report.cell",
    "load_snapshots": "ntklens.store.snapshots",
    "neural_tangents": "ntklens._compat",
}
__all__ = sorted(_PUBLIC)
_moved.install()


def __getattr__(name: str) -> Any:  # JAX is imported by what needs it, not by `import ntklens`
    if name not in _PUBLIC:
        raise AttributeError(f"module 'ntklens' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__
