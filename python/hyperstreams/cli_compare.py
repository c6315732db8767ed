"""``hyperstreams compare``."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping, Sequence

from .cli_settings import Parser, add_settings, parse_settings
from .diagnostics import capture, quantity
from .nn import CONNECTIONS
from .train import (
    LoadedRun,
    RunError,
    RunSummary,
    build_config,
    load_settings,
    run_comparison,
)
from .train.compare import format_table
from .train.trainer import build_model

CAPTURE_BATCHES = 4
ALL_STEPS, ALL_SEEDS = 150, "2"
"""What ``--connections all`` trains unless told otherwise: about an hour on two cores."""
QUANTITIES = ("read_effective_streams", "write_effective_streams", "off_diagonal_mass")


def main(arguments: Sequence[str]) -> int:
    """Train connections x seeds and print one table."""
    parser = Parser(
        "compare",
        description="Train several connections with several seeds on the same data in the same "
        "order and print one table.\nA connection may be extended: mhc_lite+lss (Learned Stream "
        "Scaling), mhc+n_streams=2, ...\n'all' stands for every connection that exists for the "
        f"sizes and uses the options,\ntrained for {ALL_STEPS} steps with {ALL_SEEDS} seeds "
        "unless said otherwise. Finished runs are\nreused, interrupted ones continued.",
        examples=[
            "hyperstreams compare --connections residual,mhc,mhc_lite,mhc_lite+lss --seeds 3 "
            "--out runs/first",
            "hyperstreams compare configs/tiny.toml --connections hc,identity --seeds 0,7 "
            "--steps 300 --out runs/second",
            "hyperstreams compare --connections all --preset tiny --out runs/all",
        ],
    )
    parser.add_argument("--connections", required=True, help="comma-separated; see above")
    parser.add_argument("--seeds", help="a count (3: seeds 0, 1, 2) or a list (0,7); default 3")
    parser.add_argument("--out", default="runs/compare", help="default %(default)s")
    parser.add_argument("--quiet", action="store_true", help="no progress, only the table")
    add_settings(parser)
    namespace, overrides = parse_settings(parser, arguments)
    settings = load_settings(namespace.configs, overrides)
    for name in ("connection", "seed", "out_dir"):
        if name in settings:
            raise RunError(f"{name}: compare sets it from --connections, --seeds and --out")

    def report(spec: str, seed: int, summary: RunSummary) -> None:
        print(f"{spec}, seed {seed}: loss {summary.final_eval_loss:.4f}", flush=True)

    specs = namespace.connections.split(",")
    if "all" in specs:
        settings.setdefault("steps", ALL_STEPS)
    comparison = run_comparison(
        settings,
        every_connection(specs, settings),
        parse_seeds(namespace.seeds or (ALL_SEEDS if "all" in specs else "3")),
        namespace.out,
        progress=not namespace.quiet,
        measure=measure_streams,
        on_run=None if namespace.quiet else report,
    )
    if comparison.interrupted is not None:
        print(f"stopped by {comparison.interrupted}; the same command continues", file=sys.stderr)
        return 128 + signal.Signals[comparison.interrupted].value
    print(format_table(comparison.rows), end="")
    print(f"written: {namespace.out}/compare.json, compare.csv, compare.md")
    try:
        from .reproduce.comparison import save_picture

        print(f"picture: {save_picture(comparison.rows, namespace.out)}")
    except RunError as error:
        print(f"no picture: {error}", file=sys.stderr)
    return 0


def every_connection(specs: Sequence[str], settings: Mapping[str, object]) -> list[str]:
    """``specs`` with ``all`` replaced by every connection that exists for these settings."""
    if "all" not in specs:
        return list(specs)
    names = []
    for name in CONNECTIONS:
        try:
            build_config({**settings, "connection": name})
        except RunError as error:
            print(f"left out: {error}", file=sys.stderr)
        else:
            names.append(name)
    return list(dict.fromkeys(s for spec in specs for s in (names if spec == "all" else [spec])))


def parse_seeds(text: str) -> list[int]:
    """``"3"`` is 0, 1, 2; ``"0,7"`` is itself, and ``"7,"`` is seed 7 alone."""
    try:
        numbers = [int(word) for word in text.removesuffix(",").split(",")]
    except ValueError as error:
        raise RunError(
            f"--seeds: expected a count or a comma-separated list, got {text!r}"
        ) from error
    return numbers if "," in text else list(range(numbers[0]))


def measure_streams(run: LoadedRun) -> dict[str, float]:
    """Mean over sites of effective streams and off-diagonal mass, on fixed validation windows.

    With each its value before training, under ``<name>_initial``.
    """
    if not run.config.model.has_streams:
        return {}
    batch_size = run.config.batch_size
    batches = list(run.data.eval_batches(batch_size, CAPTURE_BATCHES * batch_size))
    initial = build_model(run.config).eval()
    values = {}
    for model, suffix in ((run.model, ""), (initial, "_initial")):
        captured = capture(model, batches)
        for name in QUANTITIES:
            values[name + suffix] = float(quantity(name, captured).mean())
    return values
