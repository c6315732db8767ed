"""``hyperstreams figure``."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .cli_settings import Parser

if TYPE_CHECKING:
    from .reproduce.scales import Scale


def main(arguments: Sequence[str]) -> int:
    """Draw one figure, from runs that are named or from those that it finds or trains."""
    parser = Parser(
        "figure",
        description="Draw a figure as PNG, PDF, CSV and JSON: from trained runs (--run), or at a "
        "scale, for which\nthe runs it needs are found or trained (interrupted ones continue). "
        "Scale paper prints commands and costs.",
        examples=[
            "hyperstreams list figures",
            "hyperstreams figure fig2 --run runs/mine --out figures",
            "hyperstreams figure fig6 --scale tiny",
            "hyperstreams figure fig9 --scale paper --dataset data/openwebtext",
        ],
    )
    parser.add_argument("name", help="one of 'hyperstreams list figures'")
    parser.add_argument("--run", action="append", metavar="DIR", help="run directory; repeatable")
    add_scale(parser)
    parser.add_argument("--out", default="figures", help="folder to write to, default figures")
    options = parser.parse_args(arguments)
    from .reproduce.cache import RunCache
    from .reproduce.figures import figure_at_scale, get_figure, printed_plan, run_figure

    if options.run:
        paths = run_figure(options.name, options.run, options.out)
    else:
        scale = chosen_scale(options)
        spec, cache = get_figure(options.name), RunCache(options.runs)
        if not scale.trains and cache.missing(spec.plan(scale)):
            print(printed_plan([spec.name], spec.plan(scale), scale, cache))
            return 0
        try:
            paths = figure_at_scale(
                options.name, scale, cache=cache, out=options.out, quiet=options.quiet
            )
        except InterruptedError as error:
            print(f"stopped by {error}; the same command continues", file=sys.stderr)
            return 128 + signal.Signals[str(error)].value
    for path in paths:
        print(path)
    return 0


def add_scale(parser: Parser) -> None:
    """``--scale``, ``--runs``, ``--dataset`` and ``--quiet``, which reproduce takes too."""
    from .reproduce.scales import SCALES

    texts = "; ".join(f"{name}: {scale.about}" for name, scale in SCALES.items())
    parser.add_argument("--scale", default="tiny", help=f"{texts.replace('%', '%%')}; default tiny")
    parser.add_argument(
        "--runs", default="runs/figures", metavar="DIR", help="folder of cached runs"
    )
    parser.add_argument("--dataset", help="text file or token folder in place of the scale's")
    parser.add_argument("--quiet", action="store_true", help="no progress")


def chosen_scale(options: argparse.Namespace) -> Scale:
    """The scale that the options name."""
    from .reproduce.scales import get_scale

    scale = get_scale(options.scale)
    return scale.on(dataset=options.dataset) if options.dataset else scale
