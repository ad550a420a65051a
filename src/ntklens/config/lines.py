"""Command lines: how they are read, and how every line that is printed for typing again is written.

Two readers take a printed line, the shell first and Hydra's grammar of overrides after it, so a value may need two
pairs of quotes: `name='"größe #2"'`. `format_override` writes what Hydra reads, `format_command` what the shell reads.
"""

import difflib
import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ntklens.errors import InputError

COMMAND = "python -m ntklens.run"
ONCE = ("task", "task.", "retry", "replace")  # keys that are not for a line that continues
NOT_A_VALUE = "[{(\"'"  # what a list, a dictionary, a function or quotes of the user's own begin with


@dataclass
class CommandLine:
    """What was typed behind the program's name, options first."""

    words: tuple[str, ...] | None = None


current = CommandLine()


def get_words() -> list[str]:
    """Return the words that were typed behind `python -m ntklens.run`, options such as -m first."""
    import sys

    return list(sys.argv[1:] if current.words is None else current.words)


def order_words(words: Sequence[str], suggest: Callable[[str], str | None] = str) -> list[str]:
    """Return a command line's words with the options first, where Hydra's parser wants them.

    Args:
      words: as typed.
      suggest: the key that is meant by another name, for a value that was given with dashes.

    Raises:
      InputError: if an option is unknown or lacks its value.
    """
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()
    options: list[str] = []
    overrides: list[str] = []
    rest = iter(words)
    for word in rest:
        name, equals, _ = word.partition("=")
        if not word.startswith("-") or word == "-":
            overrides.append(word)
            continue
        action = parser._option_string_actions.get(name)
        if action is None:
            raise InputError(_describe_unknown_option(word, parser._option_string_actions, suggest))
        options.append(word)
        if equals or action.nargs == 0 or action.nargs == "?":
            continue
        value = next(rest, None)
        if value is None:
            raise InputError(f"{word}: needs a value; type {word} {'conf' if 'dir' in word else 'NAME'}")
        if action.choices and value not in action.choices:
            raise InputError(f"{word} {value}: must be one of {', '.join(map(str, action.choices))}")
        options.append(value)
    return [*options, *overrides]


def _describe_unknown_option(word: str, known: Iterable[str], suggest: Callable[[str], str | None]) -> str:
    name, equals, value = word.partition("=")
    if near := difflib.get_close_matches(name, list(known), n=1, cutoff=0.8):
        return f"{word}: no such option; did you mean {near[0]}"
    bare = name.lstrip("-").replace("-", "_")
    bare = suggest(bare) or bare
    example = f"{bare}={value}" if equals and value else f"{bare}=…"
    return f"{word}: no such option; values are given without dashes: type {example}"


def hold_back(words: Sequence[str]) -> list[str]:
    """Return a sweep's words so that Hydra checks no value of a group before the group's option is chosen.

    `-m optimizer=momentum,sgd optimizer.momentum=0.5` composes the default optimizer first, which may lack the key. A
    value that is swept over, `choice(0.5)`, is applied to each configuration alone.

    Args:
      words: options first.
    """
    if not any(word in ("-m", "--multirun") for word in words):
        return list(words)
    swept = {key for key, _, value in (word.partition("=") for word in words) if value and _has_several(key, value)}
    held = []
    for word in words:
        key, equals, value = word.partition("=")
        group = key.partition(".")[0]
        inside = equals and group in swept and "." in key and not _has_several(key, value)
        held.append(f"{key}=choice({value})" if inside else word)
    return held


def list_typed(key: str) -> list[str]:
    """Return the values that the last word with this key lists, as Hydra reads them: several are a sweep's."""
    words = [word for word in get_words() if find_key(word) == key]
    override = _parse(words[-1]) if words else None
    if override is None or override.is_delete():
        return []
    if override.is_discrete_sweep():
        return list(override.sweep_string_iterator())
    return [override.get_value_element_as_str()]


def _has_several(key: str, value: str) -> bool:
    override = _parse(f"{key}={value}")
    return override is not None and override.is_sweep_override()


def _parse(word: str) -> Any:
    """Return what Hydra makes of a word; None if it cannot read it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(word)
    except HydraException:
        return None


def is_readable(word: str) -> bool:
    """Return whether Hydra can read a word."""
    return _parse(word) is not None


def format_override(key: str, value: Any) -> str:
    """Return the word that gives a key this value, as Hydra reads it; quotes only where Hydra needs them."""
    return f"{key}={_format_value(value)}"


def _format_value(value: Any, inside: bool = False) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{_format_value(one, True)}" for name, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(_format_value(one, True) for one in value) + "]"
    text = str(value)
    plain = _parse(f"k={text}")
    if plain is not None and not plain.is_sweep_override():
        read = plain.value()
        if isinstance(read, str) and read == text and text and not (inside and re.search(r"[\[\]{},:\\]", text)):
            return text if "${" not in text else _quote(text)
    return _quote(text)


def _quote(text: str) -> str:
    from hydra.core.override_parser.types import Quote, QuotedString

    literal = re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + r"\${", text)  # for OmegaConf: no interpolation
    return QuotedString(literal, Quote.single if '"' in text and "'" not in text else Quote.double).with_quotes()


def format_command(words: Iterable[str]) -> str:
    """Return the line to type in a shell: `python -m ntklens.run` and these words, quoted where the shell needs it."""
    return " ".join([COMMAND, *map(quote_word, words)])


def quote_word(word: str) -> str:
    """Return a word as a shell takes it; of key=value only the value stands in quotes."""
    key, equals, value = word.partition("=")
    if equals and value and not key.startswith(("~", "=")) and shlex.quote(key) == key:
        return f"{key}={shlex.quote(value)}"
    return shlex.quote(word)


def format_task(task: str, folder: Path) -> str:
    """Return the line that does a task for a sweep.

    Args:
      task: such as status.
      folder: of the sweep, `multirun/<name>`.
    """
    words = [f"task={task}", format_override("name", folder.name)]
    if str(folder.parent) != "multirun":
        words.append(format_override("paths.results", str(folder.parent)))
    return format_command(words)


def join_split(words: Sequence[str], word: str) -> tuple[str, str] | None:
    """Return what a shell split at its spaces, as typed, and the line with it whole; None if `word` is no part of such.

    Args:
      words: options first.
      word: that Hydra cannot read: `model.width=32,` before `64`.
    """
    groups: list[list[str]] = []
    for one in words:
        before = "".join(groups[-1]) if groups else "-"
        opened = sum(map(before.count, "[{(")) > sum(map(before.count, "]})"))
        inside = opened or one[:1] in (",", "=") or (before[-1:] in (",", "=") and "=" not in one)
        if inside and before[0] != "-" and one[:1] != "-":
            groups[-1].append(one)
        else:
            groups.append([one])
    split = next((group for group in groups if word in group and len(group) > 1), None)
    whole = _parse("".join(split)) if split else None
    if split is None or whole is None:
        return None
    line = ["".join(group) for group in groups]
    if whole.is_sweep_override() and not {"-m", "--multirun"} & set(words):
        line = ["-m", *line]
    return " ".join(split), format_command(line)


def find_key(word: str) -> str:
    """Return the key that a word gives a value to; nothing for an option."""
    return "" if word.startswith("-") else word.partition("=")[0].lstrip("+~")


def drop_words(words: Iterable[str], *keys: str) -> list[str]:
    """Return words without those that give a value to one of these keys, or, for `key.`, to one below it."""
    return [
        word
        for word in words
        if not any(find_key(word) == key or (key[-1] == "." and find_key(word).startswith(key)) for key in keys)
    ]


def list_continuing(words: Iterable[str]) -> list[str]:
    """Return the words of the line that continues what these began: all but what is done once."""
    return drop_words(words, *ONCE)


def suggest_quotes(word: str, sweeping: bool) -> str | None:
    """Return a word with the quotes that make Hydra read it, as a shell takes it; None if quotes are not what it lacks.

    Args:
      word: that Hydra cannot read.
      sweeping: whether commas separate the values of a sweep.
    """
    key, equals, value = word.partition("=")
    if not equals or not value:
        return None
    if value[0] in "[" and value[-1] == "]":
        values, brackets = value[1:-1].split(","), ("[", "]")
    elif value[0] in NOT_A_VALUE:
        return None
    else:
        values, brackets = (value.split(",") if sweeping else [value]), ("", "")
    quoted = ",".join(
        _format_value(one, inside=len(values) > 1) if _parse(f"k={one}") is None else one for one in values
    )
    suggestion = f"{key}={brackets[0]}{quoted}{brackets[1]}"
    return quote_word(suggestion) if _parse(suggestion) is not None else None
