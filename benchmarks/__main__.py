"""``python -m benchmarks``: time, print tables, write one JSON file with hardware and date."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

os.environ["HYPERSTREAMS_REQUIRE_FUSED"] = "1"

from hyperstreams.train.environment import describe_environment

from .coefficients import run_coefficients
from .probe import print_probe, run_probe, too_dear
from .sublayer import CASES, run_case
from .training_step import run_steps

RESULTS = Path(__file__).parent / "results"
TABLES = ("coefficients", "sublayer", "step", "probe")


def print_sublayers(results: list[dict[str, Any]]) -> None:
    print("\nOne sublayer, n = 4, forward + backward (median ms; speed-up is the paired median)")
    print("| connection | T x C | dtype | eager reference | fused | speed-up |")
    print("|---|---|---|---|---|---|")
    for case in results:
        fused, eager = case["times"]["fused"], case["times"]["reference"]
        print(
            f"| {case['connection']} | {case['tokens']} x {case['width']} | {case['dtype']} "
            f"| {eager['median_ms']:.1f} | {fused['median_ms']:.1f} | {fused['ratio']:.1f}x |"
        )


def print_coefficients(result: dict[str, Any]) -> None:
    print(
        f"\nThe coefficients op, {result['tokens']} tokens, n = {result['n_streams']}, forward + "
        "backward (median ms; speed-up is the paired median)"
    )
    print("| mixer | eager reference | fused | speed-up | autograd floor |\n|---|---|---|---|---|")
    for name, times in result["mixers"].items():
        fused, eager = times["fused"], times["reference"]
        print(
            f"| {name} | {eager['median_ms']:.2f} | {fused['median_ms']:.2f} "
            f"| {fused['ratio']:.1f}x | {times['autograd_floor']['median_ms']:.2f} |"
        )


def print_steps(steps: dict[str, Any]) -> None:
    print(f"\nTraining step, tiny model, {steps['tokens']} tokens (median ms)")
    print("| connection | ms | times the residual's |\n|---|---|---|")
    for name, row in steps["times"].items():
        print(f"| {name} | {row['median_ms']:.1f} | {1 / row['ratio']:.2f}x |")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=20, help="paired rounds per case")
    parser.add_argument("--only", choices=TABLES, help="one of the tables")
    parser.add_argument("--out", type=Path, help="JSON file (default: benchmarks/results/...)")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    environment = describe_environment() | {
        "command": ["python", "-m", "benchmarks", *sys.argv[1:]]
    }
    record: dict[str, Any] = {"environment": environment}
    wanted = TABLES if arguments.only is None else (arguments.only,)
    if "coefficients" in wanted:
        record["coefficients"] = run_coefficients(rounds=arguments.rounds)
        print_coefficients(record["coefficients"])
    if "sublayer" in wanted:
        record["sublayer"] = [run_case(case, rounds=arguments.rounds) for case in CASES]
        print_sublayers(record["sublayer"])
    if "step" in wanted:
        record["training_step"] = run_steps(rounds=arguments.rounds)
        print_steps(record["training_step"])
    if "probe" in wanted:
        record["probe"] = run_probe(rounds=arguments.rounds)
        print_probe(record["probe"])
    day = time.strftime("%Y-%m-%d", time.gmtime())
    table = "" if arguments.only is None else f"{arguments.only}_"
    out = arguments.out or RESULTS / f"{table}cpu_{arguments.threads}threads_{day}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"\nwritten: {out}")
    over = too_dear(record.get("probe", []))
    for line in over:
        print(f"too dear: {line}", file=sys.stderr)
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
