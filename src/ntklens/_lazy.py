"""Modules as attributes of their package: imported where they are first named, so that `import ntklens` stays light."""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType


def offer_modules(package: str) -> Callable[[str], ModuleType]:
    """Return the `__getattr__` of a package that imports its modules by name."""

    def get_module(name: str) -> ModuleType:
        if name.startswith("_") or find_spec(f"{package}.{name}") is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return import_module(f"{package}.{name}")

    return get_module
