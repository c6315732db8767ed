"""Verdicts on planted captures: each claim supported, refuted and left open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hyperstreams import ops
from hyperstreams.diagnostics import Capture
from hyperstreams.reproduce.claim_statistics import (
    SeedCaptures,
    claim_k1,
    claim_k2,
    claim_k3,
    claim_k4,
    claim_k5,
    claim_k6,
)
from hyperstreams.reproduce.claims import CLAIMS, MIN_SEEDS, THRESHOLDS, Claim, Measure, Threshold
from hyperstreams.reproduce.claims_report import (
    claims_table,
    overall,
    verdict_words,
)

N, SITES = 4, ("L0a", "L0m", "L1a", "L1m", "L2a", "L2m", "L3a", "L3m")
EVEN = torch.full((N,), 1 / N)


def favouring(stream: int, top: float) -> torch.Tensor:
    """A share that gives ``top`` to one stream and the rest evenly to the others."""
    weights = torch.full((N,), (1 - top) / (N - 1))
    weights[stream] = top
    return weights


def planted(
    *,
    share: Sequence[torch.Tensor],
    mass: float = 0.0,
    norm: Sequence[float] = (1.0,) * N,
    straight: int | None = None,
    seed: int = 0,
) -> Capture:
    """A capture of known coefficients: shares per site, off-diagonal mass, norms, a straight line.

    ``straight`` is a stream whose tokens lie nearly on a line; the others are random.
    """
    generator = torch.Generator().manual_seed(seed)
    mixer = (1 - mass * N / (N - 1)) * torch.eye(N) + mass * N / (N - 1) * torch.full((N, N), 1 / N)
    tokens = 24
    rows = []
    for k in range(len(SITES) + 1):
        x = torch.randn(1, tokens, N, 16, generator=generator)
        if straight is not None:
            line = torch.arange(tokens).view(1, tokens, 1) * torch.ones(16)
            x[:, :, straight] = line + 0.01 * x[:, :, straight]
        x = x / x.norm(dim=-1, keepdim=True).mean(dim=1, keepdim=True)
        x = x * torch.tensor(norm)[:, None]
        if k == len(SITES):
            rows.append(ops.stream_stats(x))
            continue
        weights = share[k].expand(1, tokens, N).contiguous()
        h_res = mixer.expand(1, tokens, N, N).contiguous()
        y = torch.randn(1, tokens, 16, generator=generator)
        rows.append(ops.stream_stats(x, y, h_pre=weights, h_post=2 * weights, h_res=h_res))
    sums = torch.stack([row.double().reshape(-1) for row in rows]).unsqueeze(0)
    return Capture(sums, N, SITES, torch.zeros(1, dtype=torch.float64))


def initial(seed: int) -> Capture:
    """The published start: sites favour streams in turn with 0.475, mixers near the identity."""
    return planted(
        share=[favouring(k % N, 0.475) for k in range(len(SITES))], mass=0.006, seed=seed
    )


def seeds(make: object, count: int = 3, losses: Sequence[float] = ()) -> list[SeedCaptures]:
    losses = losses or [1.5] * count
    return [
        SeedCaptures(s, make(s), initial(s), loss, 5.5)  # type: ignore[operator]
        for s, loss in zip(range(count), losses, strict=True)
    ]


def collapsed(seed: int) -> Capture:
    """One stream for everything, the largest and the straightest; no mixing."""
    return planted(
        share=[favouring(0, 0.9)] * len(SITES),
        norm=(8.0, 1.0, 1.0, 1.0),
        mass=0.01,
        straight=0,
        seed=seed,
    )


def balanced(seed: int) -> Capture:
    """Even use, substantial mixing, the norm elsewhere, the straight stream another."""
    share = [EVEN + 0.001 * torch.eye(N)[k % N] for k in range(len(SITES))]
    return planted(share=share, mass=0.5, norm=(1.0, 1.0, 1.0, 3.0), straight=3, seed=seed)


def undecided(seed: int) -> Capture:
    """Between the thresholds, or on both sides of them from seed to seed."""
    top = (0.58, 0.68, 0.52)[seed % 3]
    norms = ((8.0, 2.0, 1.5, 1.0), (1.0, 1.5, 2.0, 8.0), (3.0, 1.0, 1.0, 1.0))[seed % 3]
    return planted(
        share=[favouring(0 if k < 5 else 1, top) for k in range(len(SITES))],
        mass=0.13,
        norm=norms,
        straight=(0, 3, 0)[seed % 3],
        seed=seed,
    )


@pytest.mark.parametrize("make", [claim_k1, claim_k2, claim_k3, claim_k4])
def test_every_claim_about_a_checkpoint_can_come_out_each_way(make: object) -> None:
    outcomes = [make(seeds(kind)).outcome for kind in (collapsed, balanced, undecided)]  # type: ignore[operator]
    assert outcomes == ["supported", "refuted", "inconclusive"]


def test_planted_numbers_are_measured() -> None:
    mixing, gained, largest = claim_k1(seeds(balanced)).measures
    assert gained.values == pytest.approx(((0.5 - 0.006) / 0.75,) * 3, rel=1e-4)
    assert largest.values == pytest.approx(mixing.values, rel=1e-4)
    assert mixing.values == pytest.approx((0.5 / 0.75,) * 3, rel=1e-4)
    assert mixing.initial == pytest.approx((0.006 / 0.75,) * 3, rel=1e-4)
    by_name = {m.name: m for m in claim_k2(seeds(collapsed)).measures}
    assert by_name["read dominance"].value == pytest.approx((4 * 0.9 - 1) / 3)
    assert by_name["write dominance gained"].value == pytest.approx((4 * 0.9 - 1) / 3 - 0.3)
    # The mean persistence of random leaders, over all 4^8 ways to draw them.
    draws = torch.arange(N ** len(SITES)).unsqueeze(1) // N ** torch.arange(len(SITES)) % N
    counts = torch.nn.functional.one_hot(draws, N).sum(dim=1)
    chance = counts.amax(dim=1).double().mean().item() / len(SITES)
    persistence = by_name["read persistence above chance"]
    assert persistence.value == pytest.approx(1 - chance)
    assert claim_k3(seeds(collapsed)).measures[0].value > 0.7
    excess = claim_k4(seeds(collapsed)).measures[0]
    assert excess.value < -60  # a line against random directions
    assert abs(sum(excess.initial or ()) / 3) < 10


def test_balanced_use_with_mixing_refutes_the_diagnosis() -> None:
    claims = [make(seeds(balanced)) for make in (claim_k1, claim_k2, claim_k3, claim_k4)]
    claims += [claim_k5({}), claim_k6([], [])]
    assert "the diagnosis is refuted: streams are used evenly" in overall(claims, "planted")
    turning = seeds(
        lambda seed: planted(
            share=[favouring(k % N, 0.9) for k in range(len(SITES))], mass=0.5, seed=seed
        )
    )
    claims[:2] = [claim_k1(turning), claim_k2(turning)]  # a dominant stream, another at every site
    assert "refuted: no one stream persistently dominates" in overall(claims, "planted")
    claims[:2] = [claim_k1(seeds(collapsed)), claim_k2(seeds(collapsed))]
    assert "the diagnosis is supported" in overall(claims, "planted")
    assert "beyond chance. K1 met the threshold before training already" in overall(claims, "p")
    claims[0] = claim_k1(seeds(balanced))
    assert "neither supported nor refuted whole: K1 refuted, K2 supported" in overall(claims, "p")
    assert "before training" not in overall(claims, "p")
    claims = [make(seeds(balanced)) for make in (claim_k1, claim_k2, claim_k3, claim_k4)]
    claims += [claim_k5({}), claim_k6([], [])]
    assert verdict_words(claims[0], "planted") == (
        "Refuted at this scale (planted) by: late mixing, late mixing gained, largest late site."
    )
    table = claims_table(claims, "planted")
    assert table.count("refuted</span>") >= 5
    assert "Inconclusive: not measured." in table


def test_what_held_before_training_is_said_to_have() -> None:
    claim = claim_k1(seeds(collapsed))
    assert claim.measures[0].so_from_the_start
    assert "met the threshold before training" in verdict_words(claim, "planted")
    assert "before training" not in verdict_words(claim_k2(seeds(collapsed)), "planted")


def test_few_seeds_decide_nothing() -> None:
    claim = claim_k2(seeds(collapsed, count=MIN_SEEDS - 1))
    assert claim.outcome == "inconclusive"
    assert "at least 3 are needed" in verdict_words(claim, "planted")
    assert claim_k1(seeds(collapsed, count=1)).measures[0].interval is None


def test_features_are_judged_beside_their_controls() -> None:
    def shares(trained: list[float], shuffled: float, random: float) -> Claim:
        return claim_k5({"trained": trained, "shuffled": [shuffled] * 3, "random": [random] * 3})

    high = [0.810, 0.814, 0.812]
    assert shares(high, 0.30, 0.35).outcome == "supported"
    assert shares(high, 0.30, 0.80).outcome == "refuted"  # so in an untrained model too
    assert shares([0.3, 0.31, 0.3], 0.29, 0.29).outcome == "refuted"
    assert shares([0.6, 0.42, 0.5], 0.3, 0.3).outcome == "inconclusive"
    assert claim_k5({}).outcome == "inconclusive"


@pytest.mark.parametrize(
    ("tops", "losses", "expected"),
    [
        ((0.60, 0.61, 0.60), (1.40, 1.41, 1.40), "supported"),
        ((0.90, 0.90, 0.90), (1.50, 1.50, 1.50), "refuted"),
        ((0.60, 0.61, 0.60), (1.55, 1.56, 1.55), "refuted"),
        ((0.60, 0.61, 0.60), (1.40, 1.55, 1.48), "inconclusive"),
    ],
)
def test_scaling_is_judged_by_pairs_of_seeds(
    tops: Sequence[float], losses: Sequence[float], expected: str
) -> None:
    def scaled(seed: int) -> Capture:
        return planted(share=[favouring(0, tops[seed])] * len(SITES), seed=seed)

    plain = seeds(collapsed)
    lss = seeds(scaled, losses=losses)
    claim = claim_k6(plain, lss, [replace(s, loss=s.loss + 0.01) for s in lss])
    assert claim.outcome == expected
    assert claim.measures[2].initial == (0.0, 0.0, 0.0)
    assert claim.measures[2].values == pytest.approx([loss - 1.5 for loss in losses])
    assert "minus a constant scale without noise -0.0100" in claim.remark


def test_thresholds_leave_room_between_the_verdicts() -> None:
    for name, threshold in THRESHOLDS.items():
        sign = 1 if threshold.wanted == "high" else -1
        assert sign * threshold.support > sign * threshold.refute, name
        assert threshold.judge(threshold.support, threshold.support) == "supported"
        assert threshold.judge(threshold.refute, threshold.refute) == "refuted"
        wide = (-1e9, 1e9)
        assert threshold.judge(*wide) == "inconclusive"
    assert set(CLAIMS) == {f"K{k}" for k in range(1, 7)}


def test_interval_over_seeds_is_students() -> None:
    measure = Measure("rank correlation", "", (0.5, 0.7, 0.9))
    low, high = measure.interval or (0.0, 0.0)
    assert (low + high) / 2 == pytest.approx(0.7)
    assert high - low == pytest.approx(2 * 4.303 * 0.2 / 3**0.5)
    assert Threshold("low", 0.1, 0.2).words().startswith("supported: interval at most 0.1")
