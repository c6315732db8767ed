"""``python -m benchmarks``: test what is chosen, time it, write JSON, a table and a picture."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

os.environ["HYPERSTREAMS_REQUIRE_FUSED"] = "1"

from hyperstreams import backend_status

from . import compare, own_tests, results
from .case import Case, check_baselines
from .measure import measure
from .registry import all_cases, select
from .report import duration, gates, markdown, ratio
from .roofline import Roof, measure_roof
from .timing import DeviceClock, Sample

QUICK_ROUNDS, ROUNDS = 3, 20


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = made.add_argument
    add("--list", action="store_true", help="name the chosen cases and stop")
    add(
        "--only",
        nargs="+",
        default=[],
        metavar="PATTERN",
        help="names, their beginnings or shell patterns",
    )
    add("--threads", type=int, default=torch.get_num_threads())
    add("--rounds", type=int, help=f"paired rounds of a case (default {ROUNDS})")
    add(
        "--quick",
        action="store_true",
        help=f"{QUICK_ROUNDS} rounds, nothing compiled: does it run?",
    )
    add("--without", nargs="+", default=[], metavar="BASELINE", help="baselines to leave out")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--warm", action="store_true", help="on a GPU: do not empty its cache before each call")
    add("--out", type=Path, help="JSON file; the table and the picture go beside it")
    add("--compare", metavar="REV", help="time another revision in turn, built for that")
    add("--skip-tests", action="store_true", help="time without running the tests first")
    return made


def refuse_on_red(cases: Sequence[Case], device: str) -> bool:
    """Whether any test of the cases is red on the device; says which."""
    for arguments in own_tests.commands(key for case in cases for key in case.tests):
        print(f"tests first: pytest {' '.join(arguments)}", flush=True)
        said = own_tests.red(arguments, device=device)
        if said:
            print(f"{said}\nred: nothing is timed", file=sys.stderr)
            return True
    return False


def clock_of(arguments: argparse.Namespace) -> Sample | None:
    """How calls are timed where host time does not count; None: by the clock on the wall."""
    if arguments.device != "cuda":
        return None
    return DeviceClock(torch.device("cuda"), cold=not arguments.warm)


def measure_roofs(
    cases: Sequence[Case], threads: int, device: torch.device, sample: Sample | None
) -> dict[int, Roof]:
    """One roof for each number of threads that the cases run with."""
    counts = sorted({case.threads or threads for case in cases})
    dtypes = {case.dtype for case in cases}
    return {
        count: measure_roof(threads=count, dtypes=dtypes, device=device, sample=sample)
        for count in counts
    }


def line(record: dict[str, Any]) -> str:
    """What is printed as soon as a case is done."""
    if "error" in record:
        return f"{record['name']}: failed: {record['error']}"
    parts = [duration(record["median_ms"])]
    if "roofline" in record:
        parts.append(f"{record['roofline']['percent']:.0f}% of the roof")
    parts += [f"{name} {ratio(name, of)}" for name, of in record["baselines"].items()]
    return f"{record['name']}: {', '.join(parts)}"


def record_of(
    case: Case, arguments: argparse.Namespace, roofs: dict[int, Roof], sample: Sample | None
) -> dict[str, Any]:
    """The case's record; of a case that fails, one with ``error``."""
    try:
        return measure(
            case,
            rounds=arguments.rounds,
            warmup=1 if arguments.quick else 3,
            threads=arguments.threads,
            device=torch.device(arguments.device),
            roofs=roofs,
            leave_out=arguments.without,
            sample=sample,
        )
    except Exception as error:
        traceback.print_exc()
        return {"name": case.name, "error": f"{type(error).__name__}: {error}"}


def run(cases: Sequence[Case], arguments: argparse.Namespace, command: list[str]) -> int:
    """Time, print and write; the exit status. The JSON file is complete after every case."""
    kind = "_".join([*(["quick"] if arguments.quick else []), *arguments.only])
    out = arguments.out or results.default_path(kind, arguments.device, arguments.threads)
    environment = results.environment_record(command)
    sample = clock_of(arguments)
    roofs = measure_roofs(cases, arguments.threads, torch.device(arguments.device), sample)
    records: list[dict[str, Any]] = []
    result = {
        "format": results.FORMAT,
        "environment": environment,
        "rounds": arguments.rounds,
        "cache": "warm" if sample is None or arguments.warm else "cold",
        "roofs": {str(threads): roof.as_record() for threads, roof in roofs.items()},
        "cases": records,
    }
    for case in cases:
        records.append(record_of(case, arguments, roofs, sample))
        print(line(records[-1]), flush=True)
        results.write_json(result, out)
    print("\n" + markdown(result))
    print("written: " + ", ".join(str(path) for path in results.write(result, out)))
    over = [record for record in records if not record.get("gate", {}).get("holds", True)]
    for said in gates(over):
        print(f"limit exceeded: {said}", file=sys.stderr)
    failed = any("error" in record for record in records)
    # The few rounds of --quick are no judgement.
    return 1 if failed or (over and not arguments.quick) else 0


def main(argv: list[str] | None = None) -> int:
    made = parser()
    arguments = made.parse_args(argv)
    status = backend_status()
    if status.cpu != "loaded":
        made.error(f"the compiled ops are missing ({status.cpu}): make build")
    if arguments.device == "cuda" and not arguments.list:
        if not torch.cuda.is_available():
            made.error("--device: expected a device that this PyTorch sees, got cuda")
        if status.cuda != "loaded":
            made.error(f"the CUDA ops are missing ({status.cuda}): make gpu-build")
    arguments.rounds = arguments.rounds or (QUICK_ROUNDS if arguments.quick else ROUNDS)
    if arguments.compare and arguments.without:
        made.error("--without: expected no --compare beside it, which times no baselines, got both")
    if arguments.quick:
        arguments.without.append("compiled")
    try:
        check_baselines(arguments.without, "--without")
        cases = select(all_cases(arguments.device), arguments.only)
    except ValueError as error:
        made.error(str(error))
    if arguments.list:
        print("\n".join(case.name for case in cases))
        return 0
    if not arguments.skip_tests and refuse_on_red(cases, arguments.device):
        return 1
    torch.set_num_threads(arguments.threads)
    command = ["python", "-m", "benchmarks", *(sys.argv[1:] if argv is None else argv)]
    if arguments.compare:
        return compare.run(cases, arguments, command)
    return run(cases, arguments, command)


if __name__ == "__main__":
    sys.exit(main())
