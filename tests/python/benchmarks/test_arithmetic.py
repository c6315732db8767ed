"""Statistics, least work and roofline, on numbers done by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from benchmarks import timing, work
from benchmarks.case import Case, Gate, Workload
from benchmarks.measure import numbers
from benchmarks.roofline import Roof, measure_roof

SHAPE = work.Shape(tokens=10, n_streams=4, width=100, element=2)
UNIT = 10 * 100 * 2
ROOF = Roof({1000: 1e9, 100_000: 5e8}, {"float32": 2e9, "bfloat16": 1e9, "float16": 8e9})


def test_quantiles_lie_between_neighbours() -> None:
    assert timing.quantile([3, 1, 2], 0.5) == 2
    assert timing.quantile([1, 2, 4, 8], 0.5) == 3
    assert timing.quantile([0, 10], 0.9) == pytest.approx(9)
    assert timing.quantile([5], 0.1) == 5
    with pytest.raises(ValueError, match="expected at least one"):
        timing.quantile([], 0.5)


def test_ratios_are_paired() -> None:
    assert timing.ratios([2, 9], [1, 3]) == [2, 3]
    with pytest.raises(ValueError):
        timing.ratios([1], [1, 2])


def test_a_sample_is_as_many_calls_as_it_takes() -> None:
    assert timing.repeats_for(1.0) == 1
    assert timing.repeats_for(timing.SAMPLE_SECONDS / 7.5) == 8
    assert timing.repeats_for(0.0) == 10_000


def test_every_round_times_every_candidate_and_begins_with_another() -> None:
    calls: list[str] = []

    def waits(name: str):
        def call() -> None:
            calls.append(name)
            timing.time.sleep(timing.SAMPLE_SECONDS)

        return call

    times = timing.paired_seconds({k: waits(k) for k in "abc"}, rounds=4, warmup=1)
    assert {name: len(values) for name, values in times.items()} == dict.fromkeys("abc", 4)
    # Each turn is an untimed call and the timed one.
    assert calls[-24:] == list("aabbccbbccaaccaabbaabbcc")
    assert all(value >= timing.SAMPLE_SECONDS for values in times.values() for value in values)


class FakeGpu:
    """Queues what it is told to; events take 2 ms, of which none is waiting."""

    def __init__(self) -> None:
        self.queue: list[str] = []

    def get_device_properties(self, device: object) -> SimpleNamespace:
        return SimpleNamespace(L2_cache_size=4)

    def synchronize(self) -> None:
        self.queue.append("synchronize")

    def _sleep(self, cycles: int) -> None:
        self.queue.append("wait")
        self.cycles = cycles

    def Event(self, *, enable_timing: bool) -> SimpleNamespace:
        assert enable_timing
        return SimpleNamespace(
            record=lambda: self.queue.append("event"), elapsed_time=lambda end: 2.0
        )


@pytest.mark.parametrize("cold", [False, True])
def test_the_gpu_waits_for_the_host_and_times_the_call_alone(
    cold: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = FakeGpu()
    monkeypatch.setattr(timing.torch, "cuda", gpu)
    clock = timing.DeviceClock(torch.device("cpu"), cold=cold)
    if cold:
        assert clock._larger is not None
        assert clock._larger.nbytes == 2**28
        larger = SimpleNamespace(sum=lambda: gpu.queue.append("read something larger"))
        monkeypatch.setattr(clock, "_larger", larger)

    def call() -> None:
        gpu.queue.append("call")
        timing.time.sleep(2e-3)

    assert clock(call, 3) == pytest.approx(2e-3)
    once = ["read something larger"] * cold + ["wait", "event", "call", "event"]
    assert gpu.queue == ["synchronize", "call", "synchronize", *once * 3, "synchronize"]
    assert gpu.cycles >= 2e-3 * clock.MOST_CYCLES_PER_SECOND


@pytest.mark.parametrize(
    ("least", "forward", "both"),
    [
        (work.read, 5, 5 + 9),
        (work.mix_write, 9, 9 + 14),
        (work.expand, 5, 5 + 6),
        (lambda s, backward: work.project(s, logits=24, backward=backward), 4, 4 + 8),
        (lambda s, backward: work.boundary(s, logits=24, backward=backward), 10, 25),
        (lambda s, backward: work.sublayer(s, logits=24, backward=backward), 14, 41),
    ],
)
def test_units_of_traffic_at_four_streams(least, forward: int, both: int) -> None:
    """The table of units; what is beside them is coefficients and parameters, in float32."""
    wide = work.Shape(tokens=10**6, n_streams=4, width=10**4, element=4)
    for backward, units in ((False, forward), (True, both)):
        moved = least(wide, backward=backward).bytes / (wide.tokens * wide.width * 4)
        assert units <= moved < units + 0.1


def test_bytes_and_operations_of_read() -> None:
    assert work.read(SHAPE, backward=False) == work.Work(5 * UNIT + 10 * 4 * 4, 8 * 1000)
    assert work.read(SHAPE, backward=True).flops == 8 * 1000 + 12 * 1000


def test_operations_of_a_boundary_are_those_of_its_parts() -> None:
    for backward in (False, True):
        whole = work.boundary(SHAPE, logits=24, backward=backward)
        parts = [
            work.read(SHAPE, backward=backward),
            work.mix_write(SHAPE, backward=backward),
            work.project(SHAPE, logits=24, backward=backward),
        ]
        assert whole.flops == sum(part.flops or 0 for part in parts)
        assert whole.bytes < sum(part.bytes for part in parts)


def test_unknown_operations_stay_unknown() -> None:
    assert (work.Work(1, 2) + work.Work(3, 4)) == work.Work(4, 6)
    assert (work.Work(1, None) + work.Work(3, 4)) == work.Work(4, None)
    assert work.coefficients(tokens=7, logits=24, outputs=24, backward=False).flops is None


def test_bandwidth_is_the_best_of_the_fitting_copy_and_the_larger_ones() -> None:
    assert ROOF.bandwidth(99_999) == 1e9
    assert ROOF.bandwidth(100_000) == 5e8
    assert ROOF.bandwidth(3) == 1e9


def test_a_small_copy_bound_by_its_call_does_not_lower_the_roof() -> None:
    """Rates rise with the size as far as caches hold it."""
    roof = Roof({1000: 3e10, 4000: 7e10, 16_000: 1.1e11, 64_000: 2e10, 256_000: 1e10}, {})
    assert roof.bandwidth(10) == 1.1e11
    assert roof.bandwidth(1000) == roof.bandwidth(5000) == roof.bandwidth(63_999) == 1.1e11
    assert roof.bandwidth(64_000) == 2e10
    assert roof.bandwidth(10**9) == 1e10


def test_half_precision_may_be_computed_in_float32() -> None:
    assert ROOF.rate("bfloat16") == 2e9
    assert ROOF.rate("float16") == 8e9


def test_the_larger_time_binds() -> None:
    assert ROOF.least_seconds(work.Work(100_000, 10), "float32") == (2e-4, "traffic")
    assert ROOF.least_seconds(work.Work(1000, 2_000_000), "float32") == (1e-3, "arithmetic")
    assert ROOF.least_seconds(work.Work(100_000, None), "float32") == (2e-4, "traffic")


def test_measured_roof_is_positive_and_leaves_the_threads_alone() -> None:
    before = torch.get_num_threads()
    roof = measure_roof(threads=1, dtypes=["float32"], device=torch.device("cpu"))
    assert torch.get_num_threads() == before
    assert min(roof.copy_bandwidth.values()) > 0
    assert roof.multiply_rate["float32"] > 0


def test_numbers_of_a_case() -> None:
    case = Case(
        name="group/case",
        build=lambda device: Workload(lambda: None),
        tests=("read",),
        work=work.Work(100_000, 50_000),
        tokens=1000,
        gate=Gate("without", every=10, limit=0.01),
    )
    times = {"hyperstreams": [1e-3, 2e-3, 4e-3], "eager": [4e-3] * 3, "without": [1e-3, 1e-3, 5e-3]}
    record = numbers(case, times, ROOF)
    assert record["median_ms"] == 2
    assert record["ns_per_token"] == 2000
    assert record["gb_per_s"] == 0.05
    assert record["gflop_per_s"] == 0.025
    assert record["roofline"] == {"least_ms": 0.2, "bound": "traffic", "percent": 10.0}
    assert record["baselines"]["eager"]["ratio"] == 2  # of 4, 2 and 1
    assert record["gate"]["share"] == 0  # ratios 1, 0.5 and 1.25
    assert record["gate"]["holds"]
    slow = numbers(case, times | {"without": [0.5e-3] * 3}, ROOF)["gate"]
    assert slow["share"] == pytest.approx((4 - 1) / 10)
    assert not slow["holds"]
