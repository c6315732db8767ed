"""One case: build it, time it beside its baselines, make the numbers that are reported."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from .case import Absent, Case
from .roofline import Roof
from .timing import Call, Sample, paired_seconds, ratios, spread, wall_clock

SUBJECT = "hyperstreams"


@contextmanager
def settings_of(case: Case, *, threads: int) -> Iterator[int]:
    """The case's number of threads, or ``threads``, and its instruction set, inside."""
    library = torch.ops.hyperstreams
    own_threads = case.threads or threads
    before_threads, before_isa = torch.get_num_threads(), library._cpu_isa()
    torch.set_num_threads(own_threads)
    if case.isa is not None:
        library._set_cpu_isa(case.isa)
    try:
        yield own_threads
    finally:
        torch.set_num_threads(before_threads)
        library._set_cpu_isa(before_isa)


def measure(
    case: Case,
    *,
    rounds: int,
    warmup: int,
    threads: int,
    device: torch.device,
    roofs: Mapping[int, Roof],
    leave_out: Collection[str] = (),
    sample: Sample | None = None,
) -> dict[str, Any]:
    """The case's record; ``leave_out``: names of baselines.

    sample : how calls are timed where host time does not count; None is the clock on the wall.
    """
    by_wall = case.wall_clock or sample is None
    with settings_of(case, threads=threads) as own_threads:
        torch.manual_seed(0)
        workload = case.build(device)
        calls: dict[str, Call] = {SUBJECT: workload.call}
        notes = {}
        for name, make in workload.baselines.items():
            if name in leave_out:
                continue
            try:
                calls[name] = make()
                calls[name]()
            except Exception as error:  # other packages and compilers fail in their own ways
                calls.pop(name, None)
                notes[name] = _reason(error)
        timed = wall_clock(device) if by_wall or sample is None else sample
        times = paired_seconds(calls, rounds=rounds, warmup=warmup, sample=timed)
    record: dict[str, Any] = {
        "name": case.name,
        "dtype": case.dtype,
        "threads": own_threads,
        "rounds": rounds,
        "clock": "wall" if by_wall else "device",
    }
    if case.isa is not None:
        record["isa"] = case.isa
    record |= numbers(case, times, roofs[own_threads])
    if notes:
        record["notes"] = notes
    return record


def numbers(case: Case, times: Mapping[str, Sequence[float]], roof: Roof) -> dict[str, Any]:
    """What the seconds of each round mean; ``ratio``: how many times a baseline's time ours is
    shorter by, median and percentiles over the rounds."""
    subject = times[SUBJECT]
    record: dict[str, Any] = _milliseconds(subject)
    seconds = spread(subject)[0]
    if case.tokens:
        record["ns_per_token"] = round(1e9 * seconds / case.tokens, 3)
    if case.curve is not None:
        record["curve"] = list(case.curve)
    if case.work is not None:
        least, bound = roof.least_seconds(case.work, case.dtype)
        record["bytes"] = case.work.bytes
        record["gb_per_s"] = round(case.work.bytes / seconds / 1e9, 3)
        if case.work.flops is not None:
            record["flops"] = case.work.flops
            record["gflop_per_s"] = round(case.work.flops / seconds / 1e9, 3)
        record["roofline"] = {
            "least_ms": round(1e3 * least, 6),
            "bound": bound,
            "percent": round(100 * least / seconds, 1),
        }
    baselines = {}
    faster = {}
    for name, other in times.items():
        if name == SUBJECT:
            continue
        middle, low, high = spread(ratios(other, subject))
        faster[name] = middle
        baselines[name] = _milliseconds(other) | {
            "ratio": round(middle, 4),
            "ratio_p10": round(low, 4),
            "ratio_p90": round(high, 4),
        }
    record["baselines"] = baselines
    if case.gate is not None and case.gate.baseline in faster:
        share = case.gate.share(faster[case.gate.baseline])
        record["gate"] = {
            "baseline": case.gate.baseline,
            "every": case.gate.every,
            "share": round(share, 5),
            "limit": case.gate.limit,
            "holds": share <= case.gate.limit,
        }
    return record


def _milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    names = ("median_ms", "p10_ms", "p90_ms")
    return {name: round(1e3 * value, 6) for name, value in zip(names, spread(seconds), strict=True)}


def _reason(error: Exception) -> str:
    said = str(error).strip().partition("\n")[0]
    return said if isinstance(error, Absent) else f"failed with {type(error).__name__}: {said}"
