"""``hyperstreams demo``: train four small models on real text and report on their streams."""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ..models import GPTConfig
from ..train import RunError, TrainConfig, run_training
from .progress import Progress, duration
from .report import write_report
from .runs import describe
from .style import require_matplotlib

STEPS, QUICK_STEPS = 1000, 160
MODELS: tuple[dict[str, str], ...] = (
    {"connection": "residual"},
    {"connection": "mhc"},
    {"connection": "mhc_lite"},
    {"connection": "mhc_lite", "expand": "learned_scale"},
)
COSTS = {"residual": 1.0}
"""Guessed cost of a step beside the residual's, until it has been measured; others: OTHER_COST."""
OTHER_COST = 1.4
REPORT_SECONDS = 30.0


def demo_configs(out: str | Path, *, steps: int, seeds: int = 1) -> list[TrainConfig]:
    """Settings of every run: the tiny preset, bytes of the built-in text, 2048 tokens a step.

    A run's folder carries the hash of its settings, so that equal settings find a finished run.
    """
    configs = []
    for seed in range(seeds):
        for overrides in MODELS:
            config = TrainConfig(
                seed=seed,
                steps=steps,
                lr=5e-3,
                batch_size=16,
                warmup_steps=min(100, max(steps // 5, 1)),
                eval_every=max(steps // 15, 1),
                log_every=min(10, steps),
                checkpoint_every=max(steps // 3, 1),
                tokenizer="byte",
                model=GPTConfig.preset("tiny", **overrides),
            )
            suffix = "-lss" if config.model.expand == "learned_scale" else ""
            name = f"{config.model.connection}{suffix}-seed{seed}-{config.fingerprint()}"
            out_dir = str(Path(out) / "runs" / name)
            configs.append(dataclasses.replace(config, out_dir=out_dir))
    return configs


def run_demo(
    out: str | Path = "runs/demo",
    *,
    steps: int = STEPS,
    seeds: int = 1,
    command: Sequence[str] = ("hyperstreams", "demo"),
) -> Path:
    """Train what is not trained yet and write ``out/report.html``; returns its path.

    Raises :class:`InterruptedError` after a signal; the same call continues where it stopped.
    """
    require_matplotlib()
    began = time.monotonic()
    configs = demo_configs(out, steps=steps, seeds=seeds)
    labels = [describe(config.flat()) for config in configs]
    costs = [COSTS.get(config.model.connection, OTHER_COST) for config in configs]
    progress = Progress(labels, costs, steps, closing=REPORT_SECONDS)
    for index, (label, config) in enumerate(zip(labels, configs, strict=True)):
        summary = run_training(config, resume=True, progress=False, on_record=progress.start(index))
        if summary.stopped != "finished":
            raise InterruptedError(summary.stopped)
        progress.finish(
            f"[{index + 1}/{len(configs)}] {label:<14} {summary.final_eval_nats_per_byte:.4f} nats "
            f"per byte, {summary.ms_per_step_median:.0f} ms a step"
        )
    progress.finish("drawing the figures and writing the report ...")
    report = write_report([str(config.out_dir) for config in configs], out, command=command)
    progress.finish(f"done in {duration(time.monotonic() - began)}")
    return report


def main(arguments: Sequence[str]) -> int:
    """Command line of ``hyperstreams demo``."""
    parser = argparse.ArgumentParser(
        prog="hyperstreams demo",
        description="Train residual, mHC, mHC-lite and mHC-lite + LSS on the built-in text (at "
        "most ten minutes on two cores) and write one HTML report with loss curves, four figures "
        "and a table. Finished runs are reused, interrupted ones continued.",
        epilog="example: hyperstreams demo --quick --out runs/look",
    )
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_STEPS} steps: two minutes")
    parser.add_argument("--steps", type=int, help=f"steps of every run, default {STEPS}")
    parser.add_argument("--seeds", type=int, default=1, help="runs per model, default 1")
    parser.add_argument("--out", default="runs/demo", help="default %(default)s")
    options = parser.parse_args(arguments)
    steps = options.steps or (QUICK_STEPS if options.quick else STEPS)
    if steps < 1 or options.seeds < 1:
        raise RunError("demo: --steps and --seeds: expected at least 1")
    try:
        report = run_demo(
            options.out,
            steps=steps,
            seeds=options.seeds,
            command=("hyperstreams", "demo", *arguments),
        )
    except InterruptedError as error:
        print(f"stopped by {error}; the same command continues", file=sys.stderr)
        return 128 + signal.Signals[str(error)].value
    print(f"report: {report}\n{report.resolve().as_uri()}")
    return 0
