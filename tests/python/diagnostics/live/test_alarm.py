"""The collapse alarm: at most its level on balanced runs, early on collapsing ones."""

from __future__ import annotations

import math

import pytest
import torch
from hyperstreams.diagnostics import Capture, Moments, collapse_alarm
from hyperstreams.diagnostics.live.alarm import normal_mixture_boundary, sequential_drop
from hyperstreams.ops import stream_stats_fields, stream_stats_size

SITES, N = 12, 4


def sample_of(share: torch.Tensor) -> Capture:
    """A capture of one token whose write and read shares are ``share [SITES, N]``."""
    sums = torch.zeros(1, SITES + 1, stream_stats_size(N), dtype=torch.float64)
    place = 0
    for name, shape in stream_stats_fields(N).items():
        size = math.prod(shape)
        if name == "count":
            sums[..., place] = 1
        if name in ("read_share", "write_share"):
            sums[0, :SITES, place : place + size] = share
        place += size
    names = tuple(f"L{k // 2}{'am'[k % 2]}" for k in range(SITES))
    return Capture(sums, N, names, torch.zeros(1, dtype=torch.float64))


def run(*, seed: int, pull: float, steps: int = 40, noise: float = 0.15) -> dict[int, Capture]:
    """Designated streams drawn at random, noise at every site, stream 0 gaining by ``pull``."""
    generator = torch.Generator().manual_seed(seed)
    leaders = torch.randint(0, N, (SITES,), generator=generator)
    start = 2.0 * torch.nn.functional.one_hot(leaders, N).double()
    samples = {}
    for step in range(steps):
        logits = start + noise * torch.randn(SITES, N, generator=generator, dtype=torch.float64)
        logits[:, 0] += pull * step
        samples[10 * step] = sample_of(logits.softmax(dim=-1))
    return samples


@pytest.mark.parametrize("margin", [0.0, 0.1])
def test_false_alarms_stay_below_the_level(margin: float) -> None:
    # The first condition alone, without the help of the persistence and at its worst case.
    generator = torch.Generator().manual_seed(0)
    fired = 0
    for _ in range(1000):
        values = 3.5 - margin + torch.randn(60, generator=generator, dtype=torch.float64)
        values[0] += margin
        drops, boundaries = sequential_drop(values, margin=margin, level=0.05)
        fired += bool((drops > boundaries).any())
    assert 1 <= fired <= 50


def test_balanced_runs_do_not_fire() -> None:
    assert sum(collapse_alarm(run(seed=s, pull=0.0, steps=12)).fired for s in range(20)) <= 1


def test_collapsing_runs_fire_early() -> None:
    for seed in range(5):
        alarm = collapse_alarm(run(seed=seed, pull=0.3))
        assert alarm.step is not None
        assert alarm.step <= 200
        assert alarm.value < alarm.initial - 1
        assert alarm.persistence > alarm.persistence_null


def test_usage_that_grows_never_fires() -> None:
    reverse = dict(zip(range(40), reversed(run(seed=1, pull=0.3).values()), strict=True))
    assert not collapse_alarm(reverse).fired


def test_boundary_holds_at_all_times() -> None:
    generator = torch.Generator().manual_seed(0)
    walks = torch.randn(2000, 200, generator=generator, dtype=torch.float64).cumsum(dim=1)
    times = range(1, 201)
    bounds = [t * normal_mixture_boundary(t, 1.0, 0.05, rho=4.0) for t in times]
    crossed = (walks > torch.tensor(bounds)).any(dim=1).double().mean()
    assert 0.005 < crossed < 0.05


def test_errors() -> None:
    samples = run(seed=0, pull=0.0, steps=2)
    with pytest.raises(ValueError, match=r"name: expected one of read_effective.*got 'norm'"):
        collapse_alarm(samples, "norm")
    with pytest.raises(ValueError, match="samples: expected at least one"):
        collapse_alarm({})
    unknown = {0: sample_of(torch.full((SITES, N), float("nan"), dtype=torch.float64))}
    with pytest.raises(ValueError, match="expected coefficients, got none for 'write_eff"):
        collapse_alarm(unknown)
    with pytest.raises(ValueError, match="level: expected in"):
        collapse_alarm(samples, level=0.0)


def test_moments_do_not_depend_on_order_or_split() -> None:
    x = torch.randn(101, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1e6
    w = torch.rand(101, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    whole = Moments.of(x, w)
    parts = [Moments.of(a, b) for a, b in zip(x.split(7), w.split(7), strict=True)]
    merged = Moments()
    for part in reversed(parts):
        merged = part.merge(merged)
    mean = (w * x).sum() / w.sum()
    variance = (w * (x - mean).square()).sum() / w.sum()
    for moments in (whole, merged):
        assert moments.mean == pytest.approx(float(mean), rel=1e-14)
        assert moments.variance == pytest.approx(float(variance), rel=1e-9)
        assert (moments.min, moments.max) == (float(x.min()), float(x.max()))
    assert Moments.of([float("nan"), 2.0]) == Moments.of([2.0])
    assert Moments().merge(Moments()).count == 0
    assert math.isnan(Moments().variance)
    masked = Moments.of([1.0, 5.0], torch.tensor([1.0, 0.0]))
    assert (masked.count, masked.mean, masked.max) == (1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="weights: expected one per value"):
        Moments.of([1.0, 2.0], torch.ones(1))
