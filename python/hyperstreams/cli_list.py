"""``hyperstreams list``."""

from __future__ import annotations

from collections.abc import Sequence

from .cli_settings import Parser
from .train.errors import RunError


def _presets() -> dict[str, str]:
    from .models import GPTConfig, parameter_table
    from .models.config import PRESETS

    def describe(name: str) -> str:
        total = parameter_table(GPTConfig.preset(name, connection="residual"))["total"]
        sizes = ", ".join(f"{key} {value}" for key, value in PRESETS[name].items())
        return f"{total:,} parameters with connection residual: {sizes}"

    return {name: describe(name) for name in PRESETS}


def _figures() -> dict[str, str]:
    from .reproduce.figures import FIGURES

    return {name: spec.title for name, spec in FIGURES.items()}


def _datasets() -> dict[str, str]:
    from .train import COLLECTIONS

    prepared = {
        name: f"{collection.title}; first: hyperstreams prepare --dataset {name} FOLDER"
        for name, collection in COLLECTIONS.items()
    }
    return {
        "builtin": "the Python standard library's own sources, split by file",
        "FILE": "any text file; the last val_fraction is kept for validation",
        "FOLDER": "train.bin, val.bin and meta.json, as 'hyperstreams prepare' writes them",
        **prepared,
    }


NAMES = {"presets": _presets, "figures": _figures, "datasets": _datasets}
TABLES = ("connections", "mixers", "inits", "dialects", "metrics")
KINDS = (*TABLES, *NAMES)


def main(arguments: Sequence[str]) -> int:
    """Print the table of one kind, or of all."""
    parser = Parser(
        "list",
        description="Names that settings and commands accept, with what they mean and cost.",
        examples=[
            "hyperstreams list connections",
            "hyperstreams list connections --n_streams 2 --width 768",
            "hyperstreams list --markdown > docs/connections.md",
            "hyperstreams list metrics --markdown > docs/diagnostics.md",
        ],
    )
    parser.add_argument("kind", nargs="?", choices=KINDS, help="default: all of them")
    parser.add_argument("--n_streams", type=int, default=4, help="n of the counts, default 4")
    parser.add_argument("--width", type=int, default=1024, help="C of the counts, default 1024")
    parser.add_argument("--markdown", action="store_true", help="the docs page")
    options = parser.parse_args(arguments)
    from . import catalogue

    if options.n_streams < 1 or options.width < 1:
        raise RunError("list: n_streams, width: expected at least 1")
    if options.markdown:
        page = catalogue.metrics_markdown if options.kind == "metrics" else catalogue.markdown
        print(page(), end="")
        return 0
    for kind in [options.kind] if options.kind else KINDS:
        if options.kind is None:
            print(f"{kind}:")
        if kind in NAMES:
            names = NAMES[kind]()
            width = max(map(len, names))
            for name, text in names.items():
                print(f"  {name.ljust(width)}  {text}".rstrip())
            continue
        if kind == "connections":
            table = catalogue.connections(options.n_streams, options.width)
        elif kind == "mixers":
            table = catalogue.mixers(options.n_streams)
        elif kind == "inits":
            table = catalogue.inits()
        else:
            table = catalogue.dialects() if kind == "dialects" else catalogue.metrics()
        print(table.about.replace("`", ""))
        print(table.text())
    return 0
