"""Command-line options made from the settings: ``--key value`` for every field."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from .models import GPTConfig
from .train import RunError, TrainConfig
from .train.config import known_settings
from .train.options import convert, describe_type, unknown_name


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are :class:`RunError`, without a page of usage."""

    def __init__(self, command: str, *, description: str, examples: Iterable[str]) -> None:
        super().__init__(
            prog=f"hyperstreams {command}",
            description=description,
            epilog="\n".join(["examples:", *(f"  {example}" for example in examples)]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> Any:
        raise RunError(message)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """An option for every setting, the model's included, and the TOML files before them."""
    parser.add_argument("configs", nargs="*", metavar="CONFIG.toml", help="stacked left to right")
    known = known_settings()
    own = {field.name: field for field in dataclasses.fields(TrainConfig)}
    model = {field.name: field for field in dataclasses.fields(GPTConfig)}
    groups = {
        "training": parser.add_argument_group("settings of the training"),
        "model": parser.add_argument_group(
            "settings of the model", "names: hyperstreams list connections | expansions | presets"
        ),
    }
    for name, hint in known.items():
        if name == "vocab_size":
            continue
        if name in own:
            group, text = groups["training"], own[name].metadata["help"] + "; "
            default = own[name].default
        elif name in model:
            group, text, default = groups["model"], "", model[name].default
        else:
            group, text, default = groups["model"], "size of the model; ", "tiny"
        shown = str(default).lower() if default is None or isinstance(default, bool) else default
        flag: dict[str, Any] = {"nargs": "?", "const": "true"} if hint is bool else {}
        group.add_argument(
            f"--{name}",
            default=argparse.SUPPRESS,
            metavar=describe_type(hint).upper().replace("'", "").replace(" OR ", "|"),
            help=f"{text}default {shown}".replace("%", "%%"),
            **flag,
        )


def parse_settings(
    parser: argparse.ArgumentParser, arguments: Sequence[str]
) -> tuple[argparse.Namespace, dict[str, object]]:
    """The parsed arguments, and the settings among them with their types.

    ``--batch-size`` is ``--batch_size``. An unknown option is an error with the nearest known one.
    """
    words = [
        "--" + word[2:].partition("=")[0].replace("-", "_") + "".join(word[2:].partition("=")[1:])
        if word.startswith("--")
        else word
        for word in arguments
    ]
    options = [option for action in parser._actions for option in action.option_strings]
    for word in words:
        name = word.partition("=")[0]
        if name.startswith("--") and name not in options:
            raise unknown_name("option", name, options)
    namespace = parser.parse_args(words)
    known = known_settings()
    given = {name: value for name, value in vars(namespace).items() if name in known}
    return namespace, {name: convert(name, known[name], value) for name, value in given.items()}
