"""ntklens: how the neural tangent kernel moves while a network learns, and how that scales."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ntklens import _moved
from ntklens._lazy import offer_modules

if TYPE_CHECKING:
    from ntklens import ntk as ntk
    from ntklens._compat import neural_tangents as neural_tangents
    from ntklens.analysis.claims.judge import Claim as Claim
    from ntklens.analysis.diagnostics import Diagnosis as Diagnosis
    from ntklens.analysis.groups import Group as Group
    from ntklens.analysis.study import Study as Study
    from ntklens.analysis.study import analyse as analyse
    from ntklens.errors import InputError as InputError
    from ntklens.jobs.own_loop import Recorder as Recorder
    from ntklens.models.infinite import InfiniteKernels as InfiniteKernels
    from ntklens.models.infinite import infinite_kernels as infinite_kernels
    from ntklens.notebook import train as train
    from ntklens.ntk.metrics import effective_rank as effective_rank
    from ntklens.ntk.metrics import trace as trace
    from ntklens.ntk.plan import KernelPlan as KernelPlan
    from ntklens.ntk.structured import explain_ntk as explain_ntk
    from ntklens.ntk.structured import kernel as kernel
    from ntklens.ntk.structured import layer_kernels as layer_kernels
    from ntklens.ntk.structured import layer_traces as layer_traces
    from ntklens.ntk.structured import ntk_by_layer as ntk_by_layer
    from ntklens.ntk.structured import ntk_trace as ntk_trace
    from ntklens.recording.observables import measure_observables as measure_observables
    from ntklens.report.cell import draw as draw
    from ntklens.stats.powerlaw import Fit as Fit
    from ntklens.stats.powerlaw import Interval as Interval
    from ntklens.stats.powerlaw import Law as Law
    from ntklens.stats.powerlaw import fit_form as fit_form
    from ntklens.stats.powerlaw import fit_law as fit_law
    from ntklens.stats.samples import Samples as Samples
    from ntklens.stats.samples import summarise as summarise
    from ntklens.stats.surface import Surface as Surface
    from ntklens.stats.transition import Transition as Transition
    from ntklens.stats.transition import find_transition as find_transition
    from ntklens.store.load import load as load
    from ntklens.store.snapshots import Snapshot as Snapshot
    from ntklens.store.snapshots import load_snapshots as load_snapshots

    __version__: str

_PUBLIC = {
    # kernels of any JAX function
    "ntk": "ntklens.ntk",  # the module, which may be called
    "ntk_by_layer": "ntklens.ntk.structured",
    "ntk_trace": "ntklens.ntk.structured",
    "trace": "ntklens.ntk.metrics",
    "effective_rank": "ntklens.ntk.metrics",
    "kernel": "ntklens.ntk.structured",
    "layer_kernels": "ntklens.ntk.structured",
    "layer_traces": "ntklens.ntk.structured",
    "explain_ntk": "ntklens.ntk.structured",
    "KernelPlan": "ntklens.ntk.plan",
    "neural_tangents": "ntklens._compat",
    "infinite_kernels": "ntklens.models.infinite",
    "InfiniteKernels": "ntklens.models.infinite",
    # trajectories
    "Recorder": "ntklens.jobs.own_loop",
    "train": "ntklens.notebook",
    "load": "ntklens.store.load",
    "load_snapshots": "ntklens.store.snapshots",
    "Snapshot": "ntklens.store.snapshots",
    # what they say
    "measure_observables": "ntklens.recording.observables",
    "summarise": "ntklens.stats.samples",
    "Samples": "ntklens.stats.samples",
    "fit_form": "ntklens.stats.powerlaw",
    "Fit": "ntklens.stats.powerlaw",
    "Interval": "ntklens.stats.powerlaw",
    "fit_law": "ntklens.stats.powerlaw",
    "Law": "ntklens.stats.powerlaw",
    "find_transition": "ntklens.stats.transition",
    "Transition": "ntklens.stats.transition",
    "Surface": "ntklens.stats.surface",
    "analyse": "ntklens.analysis.study",
    "Study": "ntklens.analysis.study",
    "Group": "ntklens.analysis.groups",
    "Claim": "ntklens.analysis.claims.judge",
    "Diagnosis": "ntklens.analysis.diagnostics",
    "draw": "ntklens.report.cell",
    "InputError": "ntklens.errors",
}
__all__ = ["__version__", *sorted(_PUBLIC)]
_moved.install()


def __getattr__(name: str) -> Any:  # JAX is imported by what needs it, not by `import ntklens`
    if name == "__version__":
        from importlib.metadata import version

        return version("ntklens")
    if name not in _PUBLIC:
        return offer_modules(__name__)(name)
    module = import_module(_PUBLIC[name])
    return module if module.__name__ == f"{__name__}.{name}" else getattr(module, name)


def __dir__() -> list[str]:
    return __all__
