"""What a `_target_` takes: its arguments and their types, from the signature of the function or class.

Of a module that is not imported yet the source is read instead, where that says all: composing a configuration must not
wait for JAX.
"""

import ast
import contextlib
import functools
import importlib.util
import inspect
import pydoc
import sys
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union

from ntklens.errors import InputError

FLAX_MODULES = ("flax.linen.Module", "flax.linen.module.Module")
FLAX_FIELDS = ("parent", "name")  # arguments of every network of flax; none of them is a setting
PLAIN = (int, float, bool, str)


@dataclass(frozen=True)
class Argument:
    """One argument of a target.

    Attributes:
      kind: int, float, bool, str, a list or dict of them, or Optional of one; Any where the signature does not say.
      required: whether it has no default.
      choices: the values of a `Literal`; empty of any other type.
    """

    kind: Any
    required: bool
    choices: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Arguments:
    """What a target takes.

    Attributes:
      named: name → argument.
      others: whether it takes any other keyword, too.
    """

    named: Mapping[str, Argument]
    others: bool


def read_arguments(target: str) -> Arguments:
    """Return what a target takes by keyword.

    Args:
      target: dotted name of a class or function.

    Returns:
      Its arguments; those of `**options: Unpack[TypedDict]` one by one.

    Raises:
      InputError: if there is no such class or function.
    """
    module, _, name = target.rpartition(".")
    found = None if module in sys.modules else _read_source(module, name)
    return found or _inspect(target)


def _inspect(target: str) -> Arguments:
    try:
        found = pydoc.locate(target)
    except pydoc.ErrorDuringImport as error:
        raise InputError(f"_target_={target}: {error}") from error
    if not callable(found):
        raise InputError(f"_target_={target}: there is no such class or function{_explain_missing(target)}")
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):  # written in C
        return Arguments({}, True)
    with contextlib.suppress(Exception):  # an annotation of the user's own may not be found: it stays text
        signature = inspect.signature(found, eval_str=True)
    named: dict[str, Argument] = {}
    others = False
    for name, one in signature.parameters.items():
        if one.kind is one.VAR_KEYWORD:
            keys = _list_keys(one.annotation)
            named |= {key: _describe(kind, None, False) for key, kind in keys.items()}
            others = others or not keys
        elif one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY):
            default = None if one.default is one.empty else one.default
            named[name] = _describe(one.annotation, default, one.default is one.empty)
    if isinstance(found, type) and any(f"{base.__module__}.{base.__name__}" in FLAX_MODULES for base in found.__mro__):
        named = {name: argument for name, argument in named.items() if name not in FLAX_FIELDS}
    return Arguments(named, others)


def _explain_missing(target: str) -> str:
    """Return what to do where Python does not find the module that a target begins with; empty where it does."""
    package = target.partition(".")[0]
    try:
        found = not package or importlib.util.find_spec(package) is not None
    except ValueError:  # a module without a spec, such as __main__
        found = True
    return "" if found else f" (no module {package}: if it is your own, type PYTHONPATH=FOLDER before the command)"


def _list_keys(annotation: Any) -> dict[str, Any]:
    """Return key → type of `Unpack[a TypedDict]`."""
    inner = typing.get_args(annotation)
    return typing.get_type_hints(inner[0]) if inner and typing.is_typeddict(inner[0]) else {}


def _describe(annotation: Any, default: Any, required: bool) -> Argument:
    """Return what an annotation, or its text, and a default say of an argument."""
    if isinstance(annotation, str):
        annotation = _evaluate(annotation)
    choices = typing.get_args(annotation) if typing.get_origin(annotation) is Literal else ()
    return Argument(_choose_kind(annotation, default, choices), required, choices)


def _choose_kind(annotation: Any, default: Any, choices: tuple[Any, ...]) -> Any:
    """Return the type to check by: the annotation if it is a plain one, else that of the default if it is a number."""
    if _is_plain(annotation):
        return annotation
    if choices:
        (kind,) = kinds if len(kinds := {type(one) for one in choices}) == 1 else (Any,)
        return kind if kind in PLAIN else Any
    if isinstance(default, bool):
        return bool
    if isinstance(default, int):
        return Union[int, float]  # noqa: UP007 (OmegaConf reads this one)
    return float if isinstance(default, float) else Any


def _is_plain(annotation: Any) -> bool:
    """Return whether OmegaConf can hold values to a type."""
    inner = typing.get_args(annotation)
    origin = typing.get_origin(annotation)
    if annotation in PLAIN:
        return True
    if origin in (list, dict):
        return bool(inner) and all(one in PLAIN for one in inner)
    if origin is tuple:
        return len(inner) == 2 and inner[0] in PLAIN and inner[1] is Ellipsis
    is_union = origin is Union or type(annotation).__name__ == "UnionType"
    some = [one for one in inner if one is not type(None)]
    return is_union and (all(one in PLAIN for one in some) or (len(some) == 1 and _is_plain(some[0])))


def _evaluate(annotation: str) -> Any:
    """Return the type that an annotation of built-in types names; Any for all others."""
    names = {name: getattr(typing, name) for name in ("Any", "Dict", "List", "Literal", "Optional", "Tuple", "Union")}
    names |= {one.__name__: one for one in (*PLAIN, list, dict, tuple)}
    try:
        found = eval(annotation, {"__builtins__": {}, **names})
    except Exception:
        return Any
    return _evaluate(found) if isinstance(found, str) else found  # an annotation in quotes


# ---- Read from source ------------------------------------------------------------------------------------------------


def _read_source(module: str, name: str) -> Arguments | None:
    """Return a target's arguments without importing it; None where its source does not say them all."""
    found = _find_definition(module, name)
    if found is None:
        return None
    home, node = found
    if isinstance(node, ast.Assign) or node.decorator_list:
        return None
    if isinstance(node, ast.ClassDef):
        return _read_class(home, node)
    return _read_function(home, node.args)


def _read_class(home: str, node: ast.ClassDef) -> Arguments | None:
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            read = None if part.decorator_list else _read_function(home, part.args)
            return read and Arguments({name: one for name, one in read.named.items() if name != "self"}, read.others)
    if not node.bases and not node.keywords:
        return Arguments({}, False)
    bases = [_resolve(home, ast.unparse(base)) for base in node.bases]
    others = [base for base in bases if base not in FLAX_MODULES]
    if len(bases) != len(others) + 1 or not all(map(_adds_no_field, others)):
        return None
    named = {}
    for part in node.body:  # the fields of a dataclass
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            default = None if part.value is None else _find_value(part.value)
            named[part.target.id] = _describe(_read_annotation(home, part.annotation), default, part.value is None)
    return Arguments(named, False)


def _adds_no_field(dotted: str | None) -> bool:
    """Return whether a base class, such as one of shared methods, is no dataclass and has no `__init__`."""
    module, _, name = (dotted or "").rpartition(".")
    found = _find_definition(module, name) if module else None
    if found is None:
        return False
    home, node = found
    if not isinstance(node, ast.ClassDef) or node.decorator_list or node.keywords:
        return False
    if any(isinstance(part, ast.FunctionDef) and part.name == "__init__" for part in node.body):
        return False
    return all(_adds_no_field(_resolve(home, ast.unparse(base))) for base in node.bases)


def _read_function(home: str, arguments: ast.arguments) -> Arguments | None:
    places = [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [None] * (len(places) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = [*zip(places, defaults, strict=True), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    named = {
        one.arg: _describe(
            _read_annotation(home, one.annotation) if one.annotation else Any,
            default and _find_value(default),
            default is None,
        )
        for one, default in pairs[len(arguments.posonlyargs) :]
    }
    if arguments.kwarg is None:
        return Arguments(named, False)
    if arguments.kwarg.annotation is None:
        return Arguments(named, True)
    text = ast.unparse(arguments.kwarg.annotation)
    if not text.startswith("Unpack["):
        return Arguments(named, True)
    module, _, name = (_resolve(home, text[len("Unpack[") : -1]) or "").rpartition(".")
    found = _find_definition(module, name) if module else None
    if found is None or not isinstance(found[1], ast.ClassDef):
        return None
    for part in found[1].body:
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            named[part.target.id] = _describe(_read_annotation(found[0], part.annotation), None, False)
    return Arguments(named, False)


def _read_annotation(home: str, node: ast.expr) -> str:
    """Return an annotation as text; of a name that a module gives to a `Literal`, the latter."""
    text = ast.unparse(node)
    module, _, name = (_resolve(home, text) or f"{home}.{text}").rpartition(".")
    found = _find_definition(module, name) if name.isidentifier() else None
    return ast.unparse(found[1].value) if found and isinstance(found[1], ast.Assign) else text


def _find_value(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def _find_definition(module: str, name: str) -> tuple[str, ast.FunctionDef | ast.ClassDef | ast.Assign] | None:
    """Return the module and the node of a name, followed through `from … import`."""
    for _ in range(9):
        body = _parse_module(module)
        for node in reversed(body or ()):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
                return module, node
            if isinstance(node, ast.Assign) and [ast.unparse(one) for one in node.targets] == [name]:
                return module, node
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                original = next((one.name for one in node.names if (one.asname or one.name) == name), None)
                if original:
                    module, name = node.module, original
                    break
            if not isinstance(node, ast.Import | ast.ImportFrom | ast.Expr) and _binds(node, name):
                return None
        else:
            return None
    return None


def _binds(node: ast.stmt, name: str) -> bool:
    """Return whether a statement, such as an assignment or an if, gives a name a value."""
    parts = [node] if isinstance(node, ast.FunctionDef | ast.ClassDef) else list(ast.walk(node))
    return any(
        (isinstance(part, ast.Name) and part.id == name and isinstance(part.ctx, ast.Store))
        or (isinstance(part, ast.FunctionDef | ast.ClassDef) and part.name == name)
        or (isinstance(part, ast.alias) and (part.asname or part.name) == name)
        for part in parts
    )


def _resolve(home: str, dotted: str) -> str | None:
    """Return the full dotted name of what a module calls by a name that it imports or defines."""
    first, _, rest = dotted.partition(".")
    for node in _parse_module(home) or ():
        if isinstance(node, ast.Import | ast.ImportFrom):
            before = "" if isinstance(node, ast.Import) else f"{node.module}."
            for one in node.names:
                if (one.asname or one.name) == first:
                    return f"{before}{one.name}" + (f".{rest}" if rest else "")
        if isinstance(node, ast.ClassDef) and node.name == first and not rest:
            return f"{home}.{first}"
    return None


def _parse_module(module: str) -> list[ast.stmt] | None:
    path = _find_file(module)
    if path is None:
        return None
    return _parse(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _parse(path: Path, _changed: int) -> list[ast.stmt] | None:
    try:
        return ast.parse(path.read_text(encoding="utf-8")).body
    except (OSError, SyntaxError, ValueError):
        return None


def _find_file(module: str) -> Path | None:
    """Return a module's source file; no package is imported for it."""
    head, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(head)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not rest:
        found = [Path(spec.origin or "")]
    else:
        folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
        places = [folder.joinpath(*rest) for folder in folders]
        found = [path for place in places for path in (place / "__init__.py", place.with_suffix(".py"))]
    return next((path for path in found if path.suffix == ".py" and path.is_file()), None)
