"""The flat namespace of settings: names, types and TOML files.

A setting has one name everywhere: in a TOML file, on the command line and in ``config.json``.
"""

from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from .errors import RunError, require


def field_types(cls: type) -> dict[str, Any]:
    """Names and resolved type hints of a dataclass's fields."""
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def unknown_name(kind: str, name: str, known: Iterable[str]) -> RunError:
    """The error for a name that does not exist, with the nearest one that does."""
    known = sorted(known)
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    return RunError(f"unknown {kind} {name!r}; {hint}")


def convert(name: str, hint: Any, value: object) -> object:
    """``value`` as the type ``hint``; text is parsed, an int is accepted for a float."""
    for candidate in _alternatives(hint):
        try:
            return _convert_one(candidate, value)
        except (TypeError, ValueError):
            continue
    raise RunError(f"{name}: expected {describe_type(hint)}, got {value!r}")


def _alternatives(hint: Any) -> tuple[Any, ...]:
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(sorted(get_args(hint), key=lambda option: option is not type(None)))
    return (hint,)


def _convert_one(hint: Any, value: object) -> object:
    if isinstance(value, str):
        return _parse(hint, value)
    if get_origin(hint) is Literal and value in get_args(hint):
        return value
    if get_origin(hint) is tuple and isinstance(value, Sequence):
        return tuple(_convert_one(get_args(hint)[0], item) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # Not isinstance: a bool is no int here.
    if type(value) is hint:
        return value
    raise TypeError


def _parse(hint: Any, text: str) -> object:
    words = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}
    if hint is str:
        return text
    if hint is int:
        return int(text)
    if hint is float:
        return float(text)
    if hint is bool and text.lower() in words:
        return words[text.lower()]
    if hint is type(None) and text.lower() == "none":
        return None
    if get_origin(hint) is tuple:
        return tuple(_parse(get_args(hint)[0], item) for item in text.split(","))
    for option in get_args(hint) if get_origin(hint) is Literal else ():
        if text == str(option):
            return option
    raise ValueError


def describe_type(hint: Any) -> str:
    """A type hint in words, for errors and for ``--help``."""
    names = []
    for option in _alternatives(hint):
        if option is type(None):
            names.append("none")
        elif get_origin(option) is Literal:
            names.extend(repr(value) for value in get_args(option))
        else:
            names.append(getattr(option, "__name__", str(option)))
    return " or ".join(names)


def read_toml(path: str | Path) -> dict[str, object]:
    """The settings of one TOML file: a flat list of ``key = value``."""
    parser = "tomllib" if sys.version_info >= (3, 11) else "tomli"
    toml = require(parser, extra="train", purpose="reading TOML files")
    path = Path(path)
    try:
        with path.open("rb") as file:
            settings: dict[str, object] = toml.load(file)
    except FileNotFoundError as error:
        raise RunError(f"{path}: no such config file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: cannot be read ({error})") from error
    except toml.TOMLDecodeError as error:
        raise RunError(f"{path}: not valid TOML ({error})") from error
    for key, value in settings.items():
        if isinstance(value, dict):
            raise RunError(f"{path}: [{key}]: settings are one flat namespace, without tables")
    return settings
