"""``hyperstreams compare``."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from .cli_settings import Parser, add_settings, parse_settings
from .diagnostics import capture, quantity
from .train import LoadedRun, RunError, RunSummary, load_settings, run_comparison
from .train.compare import format_table

CAPTURE_BATCHES = 4
QUANTITIES = ("read_effective_streams", "write_effective_streams", "off_diagonal_mass")


def main(arguments: Sequence[str]) -> int:
    """Train connections x seeds and print one table."""
    parser = Parser(
        "compare",
        description="Train several connections with several seeds on the same data in the same "
        "order and print one table.\nA connection may be extended: mhc_lite+lss (Learned Stream "
        "Scaling), mhc+n_streams=2, ... Finished runs\nare reused, interrupted ones continued.",
        examples=[
            "hyperstreams compare --connections residual,mhc,mhc_lite,mhc_lite+lss --seeds 3 "
            "--out runs/first",
            "hyperstreams compare configs/tiny.toml --connections hc,identity --seeds 0,7 "
            "--steps 300 --out runs/second",
        ],
    )
    parser.add_argument("--connections", required=True, help="comma-separated; see above")
    parser.add_argument(
        "--seeds", default="3", help="a count (3: seeds 0, 1, 2) or a list (0,7); default 3"
    )
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

    comparison = run_comparison(
        settings,
        namespace.connections.split(","),
        parse_seeds(namespace.seeds),
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
    return 0


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
    """Mean over sites of effective streams and off-diagonal mass, on fixed validation windows."""
    if not run.config.model.has_streams:
        return {}
    batch_size = run.config.batch_size
    batches = run.data.eval_batches(batch_size, CAPTURE_BATCHES * batch_size)
    captured = capture(run.model, batches)
    return {name: float(quantity(name, captured).mean()) for name in QUANTITIES}
