"""``hyperstreams eval``."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from .cli_settings import Parser
from .train import (
    LoadedRun,
    RunError,
    TokenData,
    evaluate,
    evaluate_all,
    evaluate_released,
    load_run,
    open_data,
)


def main(arguments: Sequence[str]) -> int:
    """Print the validation loss of a run."""
    parser = Parser(
        "eval",
        description="Validation loss of a trained run. --protocol windows: the run's own fixed, "
        "evenly spaced windows;\nreleased: 200 batches of windows drawn at random, as in the code "
        "released with arXiv 2606.03483;\nfull: every token of the split, each scored once. "
        "Their perplexities differ: compare like with like.",
        examples=[
            "hyperstreams eval runs/mine",
            "hyperstreams eval runs/mine --protocol full --stride 64",
            "hyperstreams eval runs/mine --protocol released --dataset data/wt103 --split test",
        ],
    )
    parser.add_argument("run", help="run directory")
    parser.add_argument(
        "--protocol", choices=["windows", "released", "full"], default="windows", help="%(default)s"
    )
    parser.add_argument(
        "--dataset", help="a folder made by 'hyperstreams prepare' (default: the run's own data)"
    )
    parser.add_argument("--split", default="val", help="val or test, default %(default)s")
    parser.add_argument("--windows", type=int, help="windows: how many (default: the run's own)")
    parser.add_argument("--batches", type=int, help="released: how many (default: 200)")
    parser.add_argument("--seed", type=int, help="released: of the windows (default: 1337)")
    parser.add_argument(
        "--stride",
        type=int,
        help="full: tokens a window advances by (default: block_size); smaller gives every token "
        "more context",
    )
    parser.add_argument("--batch_size", type=int, default=16, help="default %(default)s")
    parser.add_argument("--device", default="cpu", help="default %(default)s")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    owner = {"windows": "windows", "batches": "released", "seed": "released", "stride": "full"}
    for name, protocol in owner.items():
        if getattr(options, name) is not None and options.protocol != protocol:
            raise RunError(f"--{name}: only with --protocol {protocol}")
    run = load_run(options.run, device=options.device)
    data, autocast = _data(run, options.dataset, options.split), run.config.autocast
    size, error = options.batch_size, None
    if options.protocol == "full":
        stride = data.block_size if options.stride is None else options.stride
        coverage = f"every token, stride {stride}"
        loss = evaluate_all(run.model, data, stride=stride, batch_size=size, autocast=autocast)
    elif options.protocol == "released":
        batches = 200 if options.batches is None else options.batches
        seed = 1337 if options.seed is None else options.seed
        coverage = f"{batches} batches of {size} x {data.block_size} random windows, seed {seed}"
        loss, error = evaluate_released(
            run.model, data, batches=batches, batch_size=size, seed=seed, autocast=autocast
        )
    else:
        windows = run.config.eval_windows if options.windows is None else options.windows
        if windows < 1:
            raise RunError(f"--windows: expected at least 1, got {windows}")
        coverage = f"{windows} windows"
        loss = evaluate(run.model, data.eval_batches(size, windows), autocast=autocast)
    record = {
        "run": str(run.out_dir),
        "step": run.step,
        "data": f"{data.meta['source']} ({data.val_name})",
        "protocol": options.protocol,
        "coverage": coverage,
        "nats_per_token": loss,
        **({} if error is None else {"standard_error": error}),
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


def _data(run: LoadedRun, dataset: str | None, split: str) -> TokenData:
    """The split to evaluate on: of the run's own data, or of a folder in the run's tokens."""
    config = run.config
    if dataset is None and split == "val":
        return run.data
    data = open_data(
        config.dataset if dataset is None else dataset,
        tokenizer=run.tokenizer.name,
        block_size=config.model.block_size,
        val_fraction=config.val_fraction,
        val_name=split,
    )
    if data.tokenizer.describe() != run.tokenizer.describe():
        raise RunError(f"dataset {dataset}: another alphabet than that of the run's tokeniser")
    return data
