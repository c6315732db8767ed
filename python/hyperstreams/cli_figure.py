"""``hyperstreams figure``."""

from __future__ import annotations

from collections.abc import Sequence

from .cli_settings import Parser


def main(arguments: Sequence[str]) -> int:
    """Draw one figure from trained runs."""
    parser = Parser(
        "figure",
        description="Draw a figure from one or more trained runs: PNG, PDF, CSV and JSON.",
        examples=[
            "hyperstreams list figures",
            "hyperstreams figure fig2 --run runs/mine --out figures",
        ],
    )
    parser.add_argument("name", help="one of 'hyperstreams list figures'")
    parser.add_argument(
        "--run", action="append", required=True, metavar="DIR", help="run directory; repeatable"
    )
    parser.add_argument("--out", default="figures", help="folder to write to, default figures")
    options = parser.parse_args(arguments)
    from .reproduce.figures import run_figure

    for path in run_figure(options.name, options.run, options.out):
        print(path)
    return 0
