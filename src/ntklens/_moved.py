"""Where modules have moved: their earlier import paths work for one release, with a warning.

Notebooks name them, own files in conf/, and jobs that wait in a queue while ntklens is upgraded.
"""

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MOVED: dict[str, tuple[str, ...]] = {  # earlier path → where its names are now
    "ntklens.analysis.combined": ("store.combined",),
    "ntklens.analysis.forms": ("stats.forms",),
    "ntklens.analysis.join": ("store.join",),
    "ntklens.analysis.load": ("store.load",),
    "ntklens.analysis.observables": ("recording.observables",),
    "ntklens.analysis.powerlaw": ("stats.powerlaw",),
    "ntklens.analysis.profile": ("stats.profile",),
    "ntklens.analysis.samples": ("stats.samples",),
    "ntklens.analysis.stack": ("store.stack",),
    "ntklens.analysis.surface": ("stats.surface",),
    "ntklens.analysis.transition": ("stats.transition", "analysis.transitions"),
    "ntklens.command": ("cli",),
    "ntklens.measure": ("recording.measure", "recording.recorder", "recording.spectra"),
    "ntklens.tasks.compute": ("jobs.compute", "jobs.build", "jobs.pack", "jobs.failures"),
    "ntklens.tasks.job": ("launch.slurm.job",),
    "ntklens.tasks.track": ("tasks.sync",),
    "ntklens.tracking": ("jobs.tracker",),
    "ntklens.tracking.progress": ("jobs.watcher",),
    "ntklens.tracking.tracker": ("jobs.tracker",),
    "ntklens.tracking.wandb": ("wandb.tracker",),
    "ntklens.training.checkpoint": ("store.checkpoint",),
    "ntklens.trajectory": ("store.trajectory", "recording.trajectory", "recording.quantities", "config.identity"),
}


class MovedModules(MetaPathFinder, Loader):
    """Imports a module by its earlier path; its names are looked up where they are now."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> Any:
        """Return the specification of a module that has moved; None for all others."""
        inside = any(other.startswith(f"{name}.") for other in MOVED)
        return ModuleSpec(name, self, is_package=inside) if name in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        """Give the module its names."""
        places = [f"ntklens.{place}" for place in MOVED[module.__name__]]
        warnings.warn(f"{module.__name__} has moved: {', '.join(places)}", DeprecationWarning, stacklevel=2)

        def look_up(name: str) -> Any:
            for place in places:
                if hasattr(found := import_module(place), name):
                    return getattr(found, name)
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

        module.__dict__["__getattr__"] = look_up


def install() -> None:
    """Let the earlier paths be imported."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(MovedModules())
