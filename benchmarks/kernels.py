"""``python -m benchmarks.kernels --only PATTERN``: what a GPU spends a case's call on, by kernel.

Every case is called alone under PyTorch's profiler, the L2 cache emptied before each call
(``--warm`` leaves that out). Prints kernels, launches and microseconds of a call; ``--out`` keeps
them as JSON. Times are the kernels' own: gaps between them and host time are left out.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

from .registry import all_cases, select
from .results import environment_record
from .timing import beyond_cache

Times = dict[str, list[float]]
"""Kernel to the microseconds of each of its launches."""


class KernelTime(NamedTuple):
    """Of one call."""

    kernel: str
    launches: float
    microseconds: float


def short_name(kernel: str) -> str:
    """A kernel's name with its template arguments, without namespaces and parameters."""
    name = kernel.replace("(anonymous namespace)::", "").removeprefix("void ").split("(")[0].strip()
    return re.sub(r"\b(hyperstreams|cuda|maps|at|native)::", "", name)


def times_of(events: Iterable[tuple[str, float]]) -> Times:
    """From the name and the microseconds of every launch."""
    found: Times = defaultdict(list)
    for name, microseconds in events:
        found[short_name(name)].append(microseconds)
    return found


def of_a_call(times: Times, calls: int, emptying: Times) -> list[KernelTime]:
    """The dearest first, without what emptied the cache before each of the calls.

    emptying : the launches of one emptying.
    """
    rows = []
    for kernel, launches in times.items():
        others = emptying.get(kernel, [])
        count = len(launches) / calls - len(others)
        if count > 0:
            spent = sum(launches) / calls - sum(others)
            rows.append(KernelTime(kernel, round(count, 2), round(max(spent, 0.0), 2)))
    return sorted(rows, key=lambda row: -row.microseconds)


def profiled(call: Callable[[], object], calls: int) -> Times:
    """The launches of so many calls."""
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        for _ in range(calls):
            call()
        torch.cuda.synchronize()
    return times_of(
        (event.name, event.time_range.elapsed_us())
        for event in recorded.events()
        if event.device_type.name == "CUDA"
    )


def measure(call: Callable[[], object], calls: int, cache: torch.Tensor | None) -> list[KernelTime]:
    """cache : what is read to empty the cache; None leaves it warm."""

    def emptied() -> None:
        if cache is not None:
            cache.sum()
        call()

    for _ in range(3):
        emptied()
    alone = {} if cache is None else profiled(cache.sum, calls)
    emptying = {name: [sum(us) / len(us)] * (len(us) // calls) for name, us in alone.items()}
    return of_a_call(profiled(emptied, calls), calls, emptying)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__)
    parser.add_argument("--only", nargs="+", default=["gpu/boundary"], metavar="PATTERN")
    parser.add_argument("--calls", type=int, default=10)
    parser.add_argument("--warm", action="store_true", help="do not empty the cache")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print("benchmarks.kernels: expected a CUDA device, got none", file=sys.stderr)
        return 1
    try:
        cases = select(all_cases("cuda"), options.only)
    except ValueError as error:
        parser.error(str(error))
    device = torch.device("cuda")
    cache = None if options.warm else beyond_cache(device)
    found: dict[str, Any] = {}
    for case in cases:
        rows = measure(case.build(device).call, options.calls, cache)
        total = sum(row.microseconds for row in rows)
        found[case.name] = {"microseconds": round(total, 1), "kernels": [r._asdict() for r in rows]}
        print(f"{case.name}: {total:.1f} us")
        for row in rows:
            print(
                f"  {row.microseconds:9.1f} us  x{row.launches:<4g} {row.kernel[:90]}", flush=True
            )
        torch.cuda.empty_cache()
    if options.out:
        record = {"environment": environment_record(sys.argv), "calls": options.calls}
        record |= {"cache": "warm" if options.warm else "cold", "cases": found}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
