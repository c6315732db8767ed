"""``hyperstreams reproduce``."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from .cli_figure import add_scale, chosen_scale
from .cli_settings import Parser


def main(arguments: Sequence[str]) -> int:
    """Every figure at a scale and one page with the claims."""
    parser = Parser(
        "reproduce",
        description="Find or train what every figure needs, draw all of them, judge the claims K1 "
        "to K6 and write\none report.html. Interrupted runs continue, finished ones are reused. "
        "Scale paper prints commands\nand costs unless all its runs are there.",
        examples=[
            "hyperstreams reproduce --scale tiny",
            "hyperstreams reproduce --scale tiny --figures fig6,fig8,phase",
            "hyperstreams reproduce --scale paper --dataset data/openwebtext",
        ],
    )
    add_scale(parser)
    parser.add_argument("--figures", help="comma-separated names instead of all")
    parser.add_argument("--out", help="folder to write to, default runs/reproduce-SCALE")
    options = parser.parse_args(arguments)
    from .reproduce.cache import RunCache
    from .reproduce.figures import FIGURES, printed_plan
    from .reproduce.reproduction import reproduce, wanted_runs

    scale, cache = chosen_scale(options), RunCache(options.runs)
    names = options.figures.split(",") if options.figures else list(FIGURES)
    wanted = wanted_runs(scale, names)
    if not scale.trains and cache.missing(wanted):
        print(printed_plan(["claims", *names], wanted, scale, cache))
        return 0
    try:
        made = reproduce(
            scale,
            options.out or f"runs/reproduce-{scale.name}",
            cache=cache,
            figures=names,
            quiet=options.quiet,
            command=("hyperstreams", "reproduce", *arguments),
        )
    except InterruptedError as error:
        print(f"stopped by {error}; the same command continues", file=sys.stderr)
        return 128 + signal.Signals[str(error)].value
    for claim in made.claims:
        print(f"{claim.key} {claim.outcome}: {claim.text}")
    print(f"report: {made.report}\n{made.report.resolve().as_uri()}")
    return 0
