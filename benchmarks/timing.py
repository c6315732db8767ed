"""Paired timing: the candidates take turns in one process, so that drift of the machine cancels."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any


def paired_times(
    candidates: Mapping[str, Callable[[], object]], *, rounds: int, warmup: int = 3
) -> dict[str, list[float]]:
    """Seconds of every call: each round calls every candidate once, in order."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(warmup + rounds):
        for name, call in candidates.items():
            begin = time.perf_counter()
            call()
            if turn >= warmup:
                times[name].append(time.perf_counter() - begin)
    return times


def summarize(times: Mapping[str, list[float]], *, baseline: str) -> dict[str, dict[str, Any]]:
    """Per candidate: median, 10th and 90th percentile in ms; median of the rounds' ratios.

    ``ratio`` is the baseline's time over the candidate's, round by round: above 1 is faster.
    """
    table: dict[str, dict[str, Any]] = {}
    for name, seconds in times.items():
        ordered = sorted(seconds)
        ratios = sorted(b / s for b, s in zip(times[baseline], seconds, strict=True))
        table[name] = {
            "median_ms": round(1e3 * statistics.median(ordered), 4),
            "p10_ms": round(1e3 * ordered[len(ordered) // 10], 4),
            "p90_ms": round(1e3 * ordered[len(ordered) * 9 // 10], 4),
            "ratio": round(statistics.median(ratios), 3),
            "ratio_p10": round(ratios[len(ratios) // 10], 3),
            "ratio_p90": round(ratios[len(ratios) * 9 // 10], 3),
        }
    return table
