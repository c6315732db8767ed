"""The machine's roof: copy bandwidth and matrix-product rate, measured in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from .timing import Call, Sample, wall_clock
from .work import Work

COPY_BYTES = {
    "cpu": tuple(2**power for power in range(18, 29, 2)),
    "cuda": tuple(2**power for power in range(18, 33, 2)),
}
"""Bytes read and written by the copies, from what caches hold to what they do not."""
PRODUCT_SIZE = {"cpu": 1024, "cuda": 4096}
TRIAL_SECONDS = 0.15


@dataclass(frozen=True)
class Roof:
    """Measured limits at one number of threads.

    copy_bandwidth : bytes moved (read plus written) by a copy -> bytes per second.
    multiply_rate : name of a dtype -> operations per second of a square matrix product.
    """

    copy_bandwidth: Mapping[int, float]
    multiply_rate: Mapping[str, float]

    def bandwidth(self, moved: int) -> float:
        """The most bytes per second of the copies that move no less than the fitting one, which is
        the largest of those that move no more than ``moved`` bytes.

        The fitting copy is in caches at least as well as what moves ``moved`` bytes; a larger copy
        has the higher rate where the cost of a call binds the smaller one.
        """
        fitting = max((size for size in self.copy_bandwidth if size <= moved), default=0)
        return max(rate for size, rate in self.copy_bandwidth.items() if size >= fitting)

    def rate(self, dtype: str) -> float:
        """Operations per second; half precision may as well be computed in float32."""
        return max(self.multiply_rate[dtype], self.multiply_rate["float32"])

    def least_seconds(self, work: Work, dtype: str) -> tuple[float, str]:
        """Seconds that ``work`` takes at least, and what binds: ``traffic`` or ``arithmetic``."""
        traffic = work.bytes / self.bandwidth(work.bytes)
        arithmetic = (work.flops or 0) / self.rate(dtype)
        if arithmetic > traffic:
            return arithmetic, "arithmetic"
        return traffic, "traffic"

    def as_record(self) -> dict[str, Any]:
        return {
            "copy_gb_per_s": {str(k): round(v / 1e9, 2) for k, v in self.copy_bandwidth.items()},
            "product_gflop_per_s": {k: round(v / 1e9, 1) for k, v in self.multiply_rate.items()},
        }


def measure_roof(
    *, threads: int, dtypes: Iterable[str], device: torch.device, sample: Sample | None = None
) -> Roof:
    """Copies of several sizes and products in ``dtypes`` and float32: the best of each.

    sample : how a call is timed; by the clock on the wall if None.
    """
    timed = sample or wall_clock(device)
    previous = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        copies = {size: _copy(size, device) for size in COPY_BYTES[device.type]}
        bandwidth = {size: size / _best_seconds(copy(), timed) for size, copy in copies.items()}
        rates = {name: _multiply_rate(name, device, timed) for name in {"float32", *dtypes}}
    finally:
        torch.set_num_threads(previous)
    return Roof(bandwidth, rates)


def _best_seconds(call: Call, sample: Sample) -> float:
    """The shortest of the single calls that fit into ``TRIAL_SECONDS``, three at least."""
    sample(call, 1)
    begin = time.perf_counter()
    spent = [sample(call, 1) for _ in range(3)]
    while time.perf_counter() - begin < TRIAL_SECONDS:
        spent.append(sample(call, 1))
    return min(spent)


def _copy(moved: int, device: torch.device) -> Callable[[], Call]:
    def make() -> Call:
        source = torch.ones(moved // 8, dtype=torch.float32, device=device)
        target = torch.zeros_like(source)
        return lambda: target.copy_(source)

    return make


def _multiply_rate(name: str, device: torch.device, sample: Sample) -> float:
    size = PRODUCT_SIZE[device.type]
    generator = torch.Generator().manual_seed(0)
    dtype = getattr(torch, name)
    left, right = (torch.randn(size, size, generator=generator).to(device, dtype) for _ in range(2))
    out = torch.empty(size, size, device=device, dtype=dtype)
    return 2 * size**3 / _best_seconds(lambda: torch.mm(left, right, out=out), sample)
