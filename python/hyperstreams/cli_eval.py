"""``hyperstreams eval``."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from .cli_settings import Parser
from .train import RunError, evaluate, evaluate_all, load_run


def main(arguments: Sequence[str]) -> int:
    """Print the validation loss of a run."""
    parser = Parser(
        "eval",
        description="Validation loss of a trained run: on fixed, evenly spaced windows, or with "
        "--full over every\ntoken of the validation split, each scored once.",
        examples=[
            "hyperstreams eval runs/mine",
            "hyperstreams eval runs/mine --full --stride 64",
        ],
    )
    parser.add_argument("run", help="run directory")
    parser.add_argument("--windows", type=int, help="number of windows (default: the run's own)")
    parser.add_argument("--full", action="store_true", help="cover the whole validation split")
    parser.add_argument(
        "--stride",
        type=int,
        help="with --full: tokens a window advances by (default: block_size); smaller gives "
        "every token more context",
    )
    parser.add_argument("--batch_size", type=int, default=16, help="default %(default)s")
    parser.add_argument("--device", default="cpu", help="default %(default)s")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    if options.stride is not None and not options.full:
        raise RunError("--stride: only with --full")
    if options.full and options.windows is not None:
        raise RunError("--windows: not with --full")
    run = load_run(options.run, device=options.device)
    data, autocast = run.data, run.config.autocast
    if options.full:
        stride = data.block_size if options.stride is None else options.stride
        coverage = f"every validation token, stride {stride}"
        loss = evaluate_all(
            run.model, data, stride=stride, batch_size=options.batch_size, autocast=autocast
        )
    else:
        windows = run.config.eval_windows if options.windows is None else options.windows
        if windows < 1:
            raise RunError(f"--windows: expected at least 1, got {windows}")
        coverage = f"{windows} windows"
        batches = data.eval_batches(options.batch_size, windows)
        loss = evaluate(run.model, batches, autocast=autocast)
    record = {
        "run": str(run.out_dir),
        "step": run.step,
        "coverage": coverage,
        "nats_per_token": loss,
        "nats_per_byte": loss / data.val_bytes_per_token,
        "bits_per_byte": loss / data.val_bytes_per_token / math.log(2),
        "perplexity": math.exp(loss),
    }
    if options.json:
        print(json.dumps(record))
    else:
        for key, value in record.items():
            print(f"{key:15} {value:.5f}" if isinstance(value, float) else f"{key:15} {value}")
    return 0
