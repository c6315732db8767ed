"""Paired timing: the candidates take turns in one process, so that drift of the machine cancels."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

Call = Callable[[], object]
Sample = Callable[[Call, int], float]
"""Seconds of one call, the mean of so many."""

SAMPLE_SECONDS = 2e-3
"""A sample is as many calls as this takes: one call where a call is longer."""


def synchronizer(device: torch.device) -> Callable[[], None]:
    """What makes the clock wait for the device."""
    return torch.cuda.synchronize if device.type == "cuda" else lambda: None


def seconds_of(call: Call, repeats: int, synchronize: Callable[[], None]) -> float:
    """Seconds of one call, the mean of ``repeats`` in a row."""
    synchronize()
    begin = time.perf_counter()
    for _ in range(repeats):
        call()
    synchronize()
    return (time.perf_counter() - begin) / repeats


def wall_clock(device: torch.device) -> Sample:
    """Calls in a row by the clock on the wall, the device's work included."""
    synchronize = synchronizer(device)
    return lambda call, repeats: seconds_of(call, repeats, synchronize)


def beyond_cache(device: torch.device) -> torch.Tensor:
    """What is read to empty a GPU's L2 cache: larger than it, and nothing to write back."""
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    return torch.ones(max(4 * cache, 2**28) // 4, device=device)


class DeviceClock:
    """A GPU's own time of a call, by events: kernels and the gaps between them, no host time.

    Before each call the GPU waits for as long as the host takes to queue it, so that no gap is the
    host's. cold: the L2 cache is emptied first, by reading something larger (which leaves nothing
    to write back).
    """

    MOST_CYCLES_PER_SECOND = 3e9
    """Of a GPU: the wait is given in cycles."""

    def __init__(self, device: torch.device, *, cold: bool) -> None:
        self._larger = beyond_cache(device) if cold else None

    def __call__(self, call: Call, repeats: int) -> float:
        torch.cuda.synchronize()
        begin = time.perf_counter()
        call()
        host_seconds = time.perf_counter() - begin
        torch.cuda.synchronize()
        cycles = int(1.2 * self.MOST_CYCLES_PER_SECOND * host_seconds) + 100_000
        events = []
        for _ in range(repeats):
            if self._larger is not None:
                self._larger.sum()
            torch.cuda._sleep(cycles)
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            end.record()
            events.append((start, end))
        torch.cuda.synchronize()
        return sum(start.elapsed_time(end) for start, end in events) / (1e3 * repeats)


def repeats_for(seconds: float) -> int:
    """Calls of so many seconds that make a sample."""
    return min(10_000, max(1, math.ceil(SAMPLE_SECONDS / max(seconds, 1e-9))))


@contextmanager
def without_collector() -> Iterator[None]:
    """No garbage collection in the middle of a sample."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def paired_seconds(
    candidates: Mapping[str, Call],
    *,
    rounds: int,
    warmup: int = 3,
    sample: Sample = lambda call, repeats: seconds_of(call, repeats, lambda: None),
) -> dict[str, list[float]]:
    """Seconds of a call, round by round: every round times every candidate once.

    Each round begins with another candidate, so that none always follows the same one, and each
    candidate runs once untimed before its turn: none pays for the caches and the pages of memory
    that the one before it left behind.
    """
    names = list(candidates)
    repeats = {}
    for name in names:
        sample(candidates[name], 1)
        spent = [sample(candidates[name], 1) for _ in range(max(1, warmup - 1))]
        repeats[name] = repeats_for(min(spent))
    times: dict[str, list[float]] = {name: [] for name in names}
    with without_collector():
        for turn in range(rounds):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                candidates[name]()
                times[name].append(sample(candidates[name], repeats[name]))
    return times


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` of the values lie, linear between neighbours."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("quantile: values: expected at least one, got none")
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, 10th and 90th percentile."""
    return quantile(values, 0.5), quantile(values, 0.1), quantile(values, 0.9)


def ratios(baseline: Sequence[float], subject: Sequence[float]) -> list[float]:
    """The baseline's time over the subject's, round by round: above 1, the subject is faster."""
    return [b / s for b, s in zip(baseline, subject, strict=True)]
