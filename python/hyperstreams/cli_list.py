"""``hyperstreams list``."""

from __future__ import annotations

from collections.abc import Sequence

from .cli_settings import Parser


def _connections() -> dict[str, str]:
    from .nn import CONNECTIONS

    return {name: connection.paper for name, connection in CONNECTIONS.items()}


def _mixers() -> dict[str, str]:
    from .mixers import MIXERS

    return {name: mixer.paper for name, mixer in MIXERS.items()}


def _expansions() -> dict[str, str]:
    from .init import EXPANSION_SCHEMES

    return {name: scheme.summary for name, scheme in EXPANSION_SCHEMES.items()}


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
    return {
        "builtin": "the Python standard library's own sources, split by file",
        "FILE": "any text file; the last val_fraction is kept for validation",
        "FOLDER": "train.bin, val.bin and meta.json, as 'hyperstreams prepare' writes them",
    }


KINDS = {
    "connections": _connections,
    "mixers": _mixers,
    "expansions": _expansions,
    "presets": _presets,
    "figures": _figures,
    "datasets": _datasets,
}


def main(arguments: Sequence[str]) -> int:
    """Print the names of one kind, or of all."""
    parser = Parser(
        "list",
        description="Names that settings and commands accept.",
        examples=["hyperstreams list connections"],
    )
    parser.add_argument("kind", nargs="?", choices=list(KINDS), help="default: all of them")
    options = parser.parse_args(arguments)
    for kind in [options.kind] if options.kind else KINDS:
        names = KINDS[kind]()
        if options.kind is None:
            print(f"{kind}:")
        width = max(map(len, names))
        for name, text in names.items():
            print(f"  {name.ljust(width)}  {text}".rstrip())
    return 0
