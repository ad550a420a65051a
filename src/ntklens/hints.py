"""Errors in what was typed as one line that says what to type instead: errors of ours, of Hydra and of OmegaConf."""

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException, ValidationError

from ntklens.config.amounts import NUMBER, name_unit, read_meant
from ntklens.config.lines import (
    COMMAND,
    NOT_A_VALUE,
    find_key,
    format_command,
    format_override,
    get_words,
    is_readable,
    join_split,
    list_typed,
    order_words,
    quote_word,
    suggest_quotes,
)
from ntklens.config.options import (
    describe_unknown_key,
    describe_wrong_kind,
    find_example,
    list_launchers,
    list_options,
    suggest_key,
)
from ntklens.config.schemas import KEPT, Config
from ntklens.config.task import check_read
from ntklens.errors import InputError
from ntklens.recording.quantities import list_optional
from ntklens.words import correct_names

NAMES = {entry.name for entry in fields(Config)} | {"hydra", "scaling", "experiment", "protocol"}
CLOSING = {"[": "]", "{": "}", "(": ")"}
NOISE = ("full_key:", "object_type=", "reference_type=", "See https://")
LISTED: dict[str, Callable[[], Sequence[str]]] = {"metrics": list_optional, "keep": lambda: KEPT}  # what lists may hold
TEXTS = ("name", "paths.results", "dataset.root", "dataset.name")  # keys whose values may hold commas and spaces
NO_EQUALS, NO_COMMA = "not key=value", "a sweep's values are separated by commas"
EXAMPLES = {"Integer": ((int,), "10"), "Float": ((float, int), "4"), "bool": ((bool,), "true")}  # where conf/ has none
KINDS = {"Integer": "an integer", "Float": "a number", "String": "text", "bool": "true or false"}


def describe(error: Exception) -> str:
    """Return one line that names what to type, for an error of ours, Hydra's or OmegaConf's."""
    if isinstance(error, InputError):
        return " ".join(str(error).split())
    if isinstance(error, OverrideParseException):
        return _describe_unreadable(str(error.override), str(error))
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _describe_missing_option(error.missing_cfg_file, error.options or [])
    text = str(error)
    if match := re.match(r"Ambiguous value for argument '(.*)'\n", text):
        return _describe_several(match[1])
    if match := re.match(r"Sweep parameters '(.*)' requires --multirun", text):
        return _describe_several(match[1])
    if match := re.match(r"Multiple values for (\S+)\. To override a value use 'override (\S+): (.*)'", text):
        return f"+{match[1]}={match[3]}: {match[1]} has a value already; type {match[1]}={match[3]}"
    if match := re.match(r"Could not override '([^']*)'\. No match in the defaults list", text):
        return describe_unknown_key(match[1], [entry.name for entry in fields(Config)])
    if match := re.match(r"Missing mandatory value: (\S+)", text):
        return f"~{match[1]}: no group can be left out; leave the word out, or type {match[1]}=OPTION"
    if match := re.match(r"Additional config directory '(.*)' not found", text):
        return f"--config-dir {match[1]}: there is no such folder; it holds your own groups, such as model/mine.yaml"
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    key, schema = getattr(cause, "full_key", None), getattr(cause, "object_type", None)
    if key and isinstance(cause, ConfigKeyError | ConfigAttributeError):
        if is_dataclass(schema):
            return describe_unknown_key(key, [entry.name for entry in fields(schema)])
        parent = getattr(cause, "parent_node", None)
        if isinstance(parent, DictConfig) and not parent:
            whole = key.rpartition(".")[0]
            return f"{key}: {whole} has no parts; type {whole}=VALUE"
        if isinstance(parent, DictConfig):
            return describe_unknown_key(key, [str(name) for name in parent], str(parent.get("_target_") or ""))
    if match := re.match(r"Interpolation key '(.*)' not found", text):
        if match[1] == "dataset.name":
            return "dataset.name: missing; the file of the dataset's option gives it a value, such as name: rings"
        return (
            f"${{{match[1]}}}: there is no such key; quote the dollar sign, \\${{{match[1]}}}, if it is meant as text"
        )
    if isinstance(cause, ValidationError) and key:
        return _describe_wrong_kind(key, cause, text)
    lines = [line.strip() for line in f"{text}\n{'' if cause is error else cause}".splitlines() if line.strip()]
    text = ": ".join(dict.fromkeys(line for line in lines if not line.startswith(NOISE)))
    text = text.removeprefix("Error merging override ")
    return f"{key}: {text}" if key and key not in text else text


def _describe_unreadable(word: str, text: str) -> str:
    if split := join_split(get_words(), word):
        return f"{split[0]}: a shell splits this at its spaces; type: {split[1]}"
    key, equals, value = word.partition("=")
    if not equals:
        return _describe_without_value(word)
    if any(_is_known(name) for name in re.findall(r"\s([\w./]+)=", value)):
        return f"{word}: several overrides in one pair of quotes; type {COMMAND} {word}"
    if value.startswith("=") and (bare := value.lstrip("= ")):
        return f"{word}: type {key}={bare}"
    sweeping = any(typed in ("-m", "--multirun") for typed in get_words())
    values = [one for one in value.split(",") if one]
    if value[:1] not in NOT_A_VALUE and values and len(values) <= value.count(","):
        return f"{word}: a value between commas is empty; type {key}={','.join(values)}"
    if tidy := _tidy(word):
        reason = "" if len(tidy) < len(word) else "brackets or quotes do not match; "
        return f"{word}: {reason}type {quote_word(tidy)}"
    if quoted := suggest_quotes(word, sweeping):
        return f"{word}: a value with such characters needs quotes of its own; type {quoted}"
    reason = " ".join(text.partition("See https://")[0].split()).removeprefix(f"Error parsing override '{word}' ")
    return f"{word}: brackets or quotes do not match ({reason}); type {key}=VALUE"


def _tidy(word: str) -> str:
    """Return a word without spaces around its equals sign and with brackets closed; empty if Hydra cannot read that."""
    tidy = re.sub(r"^([\w./@+~-]+)\s*=\s*", r"\1=", word.strip())
    opened: list[str] = []
    for letter in tidy:
        if letter in CLOSING:
            opened.append(CLOSING[letter])
        elif opened and letter == opened[-1]:
            opened.pop()
    tidy += "".join(reversed(opened))
    return tidy if tidy != word and is_readable(tidy) else ""


def _is_known(key: str) -> bool:
    """Return whether a key, or what it is below of, is a setting or another name of one."""
    return key.partition(".")[0] in NAMES or suggest_key(key) is not None


def _describe_without_value(word: str) -> str:
    bare, words = word.rstrip(":"), get_words()
    place = words.index(word) if word in words else 0
    before, after = words[place - 1] if place else "", "".join(words[place + 1 : place + 2])
    key, _, value = before.partition("=")
    is_text = find_key(before) in TEXTS and not _is_known(bare)
    is_key = _is_known(bare) and after and not re.search(r"^-|=", after)
    texts = (f"{value} {bare} {after}", f"{value} {bare}")  # `1 to 5`, `5 min`
    amount, said = next(((meant, text) for text in texts if (meant := read_meant(key, text))), ("", ""))
    cases = (  # holds, what is shown, why it is wrong, what to type
        (bare in list_options("task"), word, NO_EQUALS, f"task={bare}"),
        (bare in list_options("experiment"), word, NO_EQUALS, f"experiment={bare}"),
        (is_key, f"{word} {after}", NO_EQUALS, f"{bare}={quote_word(after)}"),
        (is_text, f"{before} {word}", "a shell splits this at its spaces", quote_word(f"{before} {word}")),
        (_is_number(value) and bare == "000", f"{before} {word}", "a number has no spaces", f"{before}{bare}"),
        (_is_number(value) and _is_number(bare), f"{before} {word}", NO_COMMA, f"{before},{bare}"),
        (amount, f"{key}={said}", f"a number stands without a unit{name_unit(key)}", f"{key}={amount}"),
        (True, word, NO_EQUALS, f"{bare}=VALUE"),
    )
    return next(f"{shown}: {reason}; type {line}" for holds, shown, reason, line in cases if holds)


def _is_number(text: str) -> bool:
    return re.fullmatch(NUMBER, text) is not None


def _describe_missing_option(file: str, options: Sequence[str]) -> str:
    group, _, option = file.rpartition("/")
    if "//" in file:
        group, _, option = file.partition("/")
    options = list_launchers() if group == "hydra/launcher" else options
    near = difflib.get_close_matches(option.lower(), list(options), n=1)
    if group == "dataset" and "/" in option:
        return f"{group}={option}: no such option; for files type dataset=mnist dataset.root={option}"
    hint = f"did you mean {group}={near[0]}; " if near else ""
    return f"{group}={option}: no such option; {hint}available: {', '.join(options)}"


def _describe_several(word: str) -> str:
    key, _, value = word.partition("=")
    words = [typed for typed in get_words() if typed not in ("--run", "-r")]
    if line := _describe_unread(words):
        return line
    line = format_command(order_words(["-m", *map(_correct_key, words)]))
    quoted = _quote_text(key, value)
    if key == "name" and any(typed.startswith("task=") for typed in words):
        return f"{word}: several sweeps are a list; type {quote_word(f'name=[{value}]')}"
    text = f" (as one text: {quoted})" if key in TEXTS else ""
    return f"{word}: several values are a sweep, which needs -m{text}; type: {line}"


def _describe_unread(words: Sequence[str]) -> str:
    """Return the line for overrides that the typed task does not read; empty if it reads all."""
    options = list_options("task")
    try:
        for name in list_typed("task"):
            if name in options:
                check_read(str(options[name]["_target_"]), [word for word in words if "=" in word and word[0] != "-"])
    except InputError as error:
        return str(error)
    return ""


def _correct_key(word: str) -> str:
    """Return a word with the key that is meant by another name; several seeds are a sweep over `seed`."""
    key, equals, value = word.partition("=")
    if key == "seeds" and "," in value:
        return f"seed={value}"
    if not equals or not re.match(r"[\w.]+$", key) or key.partition(".")[0] in NAMES:
        return word
    return f"{suggest_key(key) or key}={value}"


def _quote_text(key: str, text: str) -> str:
    """Return the word that gives a key this text, as a shell takes it."""
    return quote_word(format_override(key, text))


def _describe_wrong_kind(key: str, cause: ValidationError, text: str) -> str:
    typed = re.match(r"Error merging override ~?(\S+?)=(.*)", text)
    value: Any = getattr(cause, "value", None)
    shown = f"{key}={typed[2]}" if typed and typed[1].lstrip("+") == key else key
    if "is not Optional" in str(cause):
        return f"{shown if shown != key else f'{key}=null'}: needs a value; leave {key} out for its default"
    match = re.search(r"could not be converted to (\w+)|is not a valid (\w+)", str(cause))
    kind = (match[1] or match[2]) if match else ""
    if isinstance(value, dict) and not value:
        return f"{typed[1] if typed else key}: {key} has no parts; type {key}=VALUE"
    if kind == "Integer" and isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return f"{shown}: must be an integer ({value} is a Float); type {key}={int(value)}"
    if isinstance(value, list):
        listed = ",".join(map(str, value))
        return f"{shown}: must be {KINDS.get(kind, kind)}, not a list; for a sweep type: {COMMAND} -m {key}={listed}"
    if "is not a ListConfig" in str(cause):
        known = LISTED[key]() if key in LISTED else [str(value)]
        meant = correct_names([str(value)], known)
        hint = f"; type {key}=[{meant[0]}]" if meant else f" of some of {', '.join(known)}"
        return f"{shown}: must be a list{hint}"
    if kind in KINDS:
        return describe_wrong_kind(key, value, KINDS[kind], _find_example(key, kind, value))
    return f"{shown}: {str(cause).splitlines()[0]}"


def _find_example(key: str, kind: str, value: Any) -> str:
    if kind == "Integer" and isinstance(value, float) and 1 <= value < 2**53:
        return str(round(value))
    kinds, example = EXAMPLES.get(kind, ((), "VALUE"))
    return find_example(key, *kinds) or example
