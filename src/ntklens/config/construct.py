"""Objects from the groups of the configuration: `_target_` and its arguments."""

import inspect
import pydoc
from typing import Any

from omegaconf import DictConfig

from ntklens.errors import InputError


def construct(node: DictConfig, **arguments: Any) -> Any:
    """Call the node's `_target_` with its other values and `arguments`; its errors pass through as they are."""
    values = {str(key): value for key, value in node.items() if key != "_target_"}
    try:
        target = pydoc.locate(node._target_)
        if not callable(target):
            raise InputError(f"_target_={node._target_}: there is no such class or function")
        inspect.signature(target).bind(**values, **arguments)
    except (pydoc.ErrorDuringImport, TypeError) as error:
        raise InputError(f"_target_={node._target_}: {error}") from error
    return target(**values, **arguments)
