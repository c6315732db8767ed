"""Time per token of one boundary, forward and backward, against tokens, width, streams, threads."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ..case import Case
from ..problem import BOTH
from .sites import site_case

CONNECTION = "mhc"
"""Its map exists for every n."""
TOKENS, WIDTH, N_STREAMS = 2048, 384, 4
TOKEN_POINTS = (1, 4, 16, 64, 256, 1024, 4096, 16384)
WIDTH_POINTS = (64, 100, 128, 256, 384, 512, 768, 1024, 2048)
STREAM_POINTS = (1, 2, 3, 4, 5, 8, 16)


def thread_points() -> tuple[int, ...]:
    """1, 2, 4, ... and all processors that this process may use."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    count = count or 1
    powers = (2**power for power in range(count.bit_length()))
    return tuple(sorted({*powers, count}))


def cases() -> Iterator[Case]:
    """One curve for each axis; the other sizes stay at T = 2048, C = 384, n = 4."""
    axes = {
        "tokens": TOKEN_POINTS,
        "width": WIDTH_POINTS,
        "n_streams": STREAM_POINTS,
        "threads": thread_points(),
    }
    for axis, points in axes.items():
        for point in points:
            yield site_case(
                f"scaling/{axis}/{point}",
                kind="boundary",
                connection=CONNECTION,
                tokens=point if axis == "tokens" else TOKENS,
                width=point if axis == "width" else WIDTH,
                n_streams=point if axis == "n_streams" else N_STREAMS,
                threads=point if axis == "threads" else None,
                mode=BOTH,
                alone=True,
                curve=(axis, point),
                devices=("cpu",) if axis == "threads" else ("cpu", "cuda"),
            )
