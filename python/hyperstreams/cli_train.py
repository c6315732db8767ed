"""``hyperstreams train``."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import Any

from .cli_settings import Parser, add_settings, parse_settings
from .train import RunSummary, load_config, run_training


def main(arguments: Sequence[str]) -> int:
    """Train a model; exit status 128 + signal when a signal stopped it."""
    parser = Parser(
        "train",
        description="Train a GPT. Settings come from TOML files, stacked left to right, and then "
        "from --key value or\n--key=value. The run directory holds the resolved settings, the "
        "environment, the log and the checkpoint.",
        examples=[
            "hyperstreams train",
            "hyperstreams train configs/tiny.toml --connection mhc --steps 300",
            "hyperstreams train --dataset input.txt --tokenizer char --out_dir runs/shakespeare",
            "hyperstreams train --out_dir runs/shakespeare --dataset input.txt --tokenizer char "
            "--resume",
        ],
    )
    add_settings(parser)
    parser.add_argument(
        "--resume", action="store_true", help="continue the run in the run directory"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress, only the last lines")
    namespace, overrides = parse_settings(parser, arguments)
    config = load_config(namespace.configs, overrides)
    # Where no bar can be drawn, the evaluations are the progress.
    plain = not namespace.quiet and not sys.stderr.isatty()
    summary = run_training(
        config,
        resume=namespace.resume,
        progress=not namespace.quiet,
        on_record=_print_evaluation if plain else None,
    )
    print(describe_summary(summary))
    if summary.stopped == "finished":
        return 0
    print(
        f"stopped by {summary.stopped} after step {summary.steps}; the checkpoint is saved; "
        "continue with the same command and --resume",
        file=sys.stderr,
    )
    return 128 + signal.Signals[summary.stopped].value


def _print_evaluation(record: dict[str, Any]) -> None:
    if record["kind"] == "eval":
        print(f"step {record['step']}: validation loss {record['loss']:.4f}", flush=True)


def describe_summary(summary: RunSummary) -> str:
    """A few lines for the terminal."""
    lines = [f"run directory  {summary.out_dir}", f"parameters     {summary.n_parameters:,}"]
    if summary.final_eval_loss is not None:
        lines.append(
            f"loss           {summary.final_eval_loss:.4f} nats per token, "
            f"{summary.final_eval_nats_per_byte:.4f} per byte (validation, step {summary.steps}; "
            f"best {summary.best_eval_loss:.4f} at step {summary.best_eval_step})"
        )
    if summary.ms_per_step_median is not None:
        lines.append(
            f"speed          {summary.ms_per_step_median:.1f} ms per step, "
            f"{summary.tokens_per_second_median:,.0f} tokens per second (medians)"
        )
    if summary.peak_memory_mib is not None:
        lines.append(f"peak memory    {summary.peak_memory_mib:,.0f} MiB")
    return "\n".join(lines)
