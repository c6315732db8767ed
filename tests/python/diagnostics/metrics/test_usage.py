"""Sanity properties of the usage and mixing metrics (planted cases, symmetries, known nulls)."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hyperstreams.diagnostics import metrics
from torch import Tensor


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shares(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=generator(seed), dtype=torch.float64).softmax(dim=-1)


def one_hot(stream: int, n: int = 4) -> Tensor:
    return torch.eye(n, dtype=torch.float64)[stream]


@pytest.mark.parametrize("n", [1, 2, 4, 7])
def test_share_sums_to_one_and_keeps_planted_cases(n: int) -> None:
    h = torch.randn(50, n, generator=generator(), dtype=torch.float64)
    assert torch.allclose(metrics.share(h).sum(-1), torch.ones(50, dtype=torch.float64))
    assert torch.equal(metrics.share(3.0 * one_hot(n - 1, n)), one_hot(n - 1, n))
    assert torch.allclose(metrics.share(torch.full((n,), -0.2)), torch.full((n,), 1 / n))
    assert torch.equal(metrics.share(torch.zeros(2, n)), torch.zeros(2, n))


def test_share_follows_a_permutation_of_streams() -> None:
    h = torch.rand(30, 5, generator=generator(), dtype=torch.float64)
    order = torch.tensor([3, 0, 4, 2, 1])
    for average in ("mean_of_ratios", "ratio_of_means"):
        moved = metrics.mean_share(h[:, order], average=average)
        assert torch.allclose(moved, metrics.mean_share(h, average=average)[order])


def test_both_averages_agree_only_for_token_independent_coefficients() -> None:
    static = torch.tensor([0.7, 0.2, 0.2, 0.1], dtype=torch.float64).expand(10, 4)
    ratios = metrics.mean_share(static)
    assert torch.allclose(ratios, metrics.mean_share(static, average="ratio_of_means"))
    tokens = torch.tensor([[1.0, 0.0], [1.0, 9.0]], dtype=torch.float64)
    assert metrics.mean_share(tokens).tolist() == pytest.approx([0.55, 0.45])
    of_means = metrics.mean_share(tokens, average="ratio_of_means")
    assert of_means.tolist() == pytest.approx([2 / 11, 9 / 11])
    with pytest.raises(ValueError, match="mean_share: average: expected"):
        metrics.mean_share(tokens, average="median")  # type: ignore[arg-type]


@pytest.mark.parametrize(("n", "largest", "effective"), [(2, 0.731, 1.79), (4, 0.475, 3.555)])
def test_initial_share_of_the_published_designation(
    n: int, largest: float, effective: float
) -> None:
    logits = -torch.ones(n, dtype=torch.float64)
    logits[0] = 1.0
    pi = metrics.share(logits.sigmoid())
    assert pi[0].item() == pytest.approx(largest, abs=5e-4)
    if n == 4:
        written = metrics.write_signal_share(2 * logits.sigmoid())
        assert written[0].item() == pytest.approx(0.711, abs=5e-4)
        assert metrics.dominance(pi).item() == pytest.approx(0.300, abs=5e-4)
        assert metrics.dominance_gap(pi).item() == pytest.approx(0.300, abs=5e-4)
    assert metrics.effective_streams(pi).item() == pytest.approx(effective, abs=5e-3)


def test_read_covariance_share() -> None:
    p = torch.rand(20, 4, generator=generator(), dtype=torch.float64)
    x = torch.randn(20, 4, 9, generator=generator(1), dtype=torch.float64)
    gram = x @ x.mT
    assert torch.allclose(
        metrics.read_covariance_share(p, gram).sum(-1), torch.ones(20, dtype=torch.float64)
    )
    orthogonal = torch.eye(4, dtype=torch.float64)
    assert torch.allclose(metrics.read_covariance_share(p, orthogonal), metrics.share(p.square()))
    identical = torch.ones(4, 4, dtype=torch.float64)
    assert torch.allclose(metrics.read_covariance_share(p, identical), metrics.share(p))
    opposite = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
    assert metrics.read_covariance_share(torch.tensor([1.0, 0.4]).double(), opposite)[1] < 0


def test_signal_shares_ignore_a_change_of_stream_scale() -> None:
    p = torch.rand(20, 3, generator=generator(), dtype=torch.float64)
    x = torch.randn(20, 3, 8, generator=generator(1), dtype=torch.float64)
    a = torch.tensor([2.0, 0.5, 3.0], dtype=torch.float64)
    scaled, q = x * a[:, None], p / a
    assert torch.allclose(
        metrics.read_signal_share(p, x.norm(dim=-1)),
        metrics.read_signal_share(q, scaled.norm(dim=-1)),
    )
    assert torch.allclose(
        metrics.read_covariance_share(p, x @ x.mT),
        metrics.read_covariance_share(q, scaled @ scaled.mT),
    )
    assert not torch.allclose(metrics.share(p), metrics.share(q))


def test_write_signal_share_and_relative_update() -> None:
    assert torch.equal(metrics.write_signal_share(-0.3 * one_hot(2)), one_hot(2))
    update = metrics.relative_update(
        torch.tensor([0.5, 0.0]), torch.tensor(4.0), torch.tensor([8.0, 1.0])
    )
    assert update.tolist() == [0.25, 0.0]


@pytest.mark.parametrize("kind", ["entropy", "participation"])
def test_effective_streams_counts_used_streams(kind: metrics.EffectiveKind) -> None:
    for n, k in [(4, 4), (4, 1), (4, 2), (8, 3), (1, 1)]:
        pi = torch.zeros(n, dtype=torch.float64)
        pi[:k] = 1 / k
        assert metrics.effective_streams(pi, kind=kind).item() == pytest.approx(k)


def test_effective_streams_orders() -> None:
    pi = shares(200, 6) ** 2
    pi = pi / pi.sum(-1, keepdim=True)
    assert (
        metrics.effective_streams(pi, kind="participation") <= metrics.effective_streams(pi) + 1e-12
    ).all()
    token_level = metrics.entropy(pi).mean().exp()
    assert metrics.effective_streams(pi.mean(0)) > token_level
    order = torch.randperm(6, generator=generator())
    assert torch.allclose(metrics.effective_streams(pi[:, order]), metrics.effective_streams(pi))
    with pytest.raises(ValueError, match="effective_streams: kind: expected"):
        metrics.effective_streams(pi, kind="renyi")  # type: ignore[arg-type]


def test_dominance() -> None:
    assert metrics.dominance(torch.full((4,), 0.25)).item() == 0
    assert metrics.dominance(one_hot(1)).item() == 1
    assert metrics.dominance(torch.ones(1)).item() == 0
    uniform = torch.full((4,), 0.25, dtype=torch.float64)
    path = torch.stack([(1 - w) * uniform + w * one_hot(3) for w in torch.linspace(0, 1, 9)])
    assert (metrics.dominance(path).diff() > 0).all()
    assert (metrics.dominance_gap(path).diff() > 0).all()
    assert metrics.dominance_gap(one_hot(0)).item() == 1
    with pytest.raises(ValueError, match="dominance_gap: pi"):
        metrics.dominance_gap(torch.ones(3, 1))


def test_persistence_of_planted_leaders() -> None:
    planted = torch.stack([one_hot(2)] * 10)
    assert metrics.persistence(planted).item() == 1
    assert metrics.persistence(torch.eye(4)[[0, 1, 1, 2]]).item() == 0.5
    order = torch.tensor([2, 3, 1, 0])
    pi = shares(24, 4)
    assert torch.equal(metrics.persistence(pi[:, order]), metrics.persistence(pi))


@pytest.mark.parametrize(("n", "mean"), [(2, 0.58), (4, 0.36), (8, 0.24), (16, 0.17)])
def test_persistence_null_matches_the_known_means(n: int, mean: float) -> None:
    probability = metrics.persistence_null(n, 24)
    assert probability.sum().item() == pytest.approx(1.0)
    expectation = (probability * torch.arange(25)).sum() / 24
    assert expectation.item() == pytest.approx(mean, abs=6e-3)


def test_persistence_null_against_enumeration() -> None:
    n, sites = 3, 5
    counts = torch.zeros(sites + 1, dtype=torch.float64)
    for draw in itertools.product(range(n), repeat=sites):
        counts[max(draw.count(s) for s in range(n))] += 1
    assert torch.allclose(metrics.persistence_null(n, sites), counts / n**sites)
    with pytest.raises(ValueError, match="persistence_null"):
        metrics.persistence_null(0, 3)


def test_site_information() -> None:
    assert metrics.site_information(torch.eye(4).double()).item() == pytest.approx(math.log(4))
    assert metrics.site_information(shares(1, 4).expand(7, 4)).item() == pytest.approx(0, abs=1e-12)
    assert metrics.site_information(torch.stack([one_hot(1)] * 5)).item() == 0


def test_switch_rate() -> None:
    assert metrics.switch_rate(torch.tensor([[1, 1, 1], [2, 2, 2]])).item() == 0
    assert metrics.switch_rate(torch.tensor([[0, 1, 0], [2, 2, 3]])).item() == 0.75
    random = torch.randint(0, 4, (500, 24), generator=generator())
    assert metrics.switch_rate(random).item() == pytest.approx(1 - 1 / 4, abs=0.02)


def test_off_diagonal_mass_and_identity_distance() -> None:
    eye, mean = torch.eye(4).double(), torch.full((4, 4), 0.25).double()
    assert metrics.off_diagonal_mass(eye) == 0
    assert metrics.identity_distance(eye) == 0
    assert metrics.off_diagonal_mass(mean).item() == pytest.approx(0.75)
    assert metrics.identity_distance(mean).item() == pytest.approx(math.sqrt(3 / 8))
    alike = 0.9 * eye + 0.1 * mean
    mass = metrics.off_diagonal_mass(alike).item()
    assert metrics.identity_distance(alike).item() == pytest.approx(math.sqrt(2 / 3) * mass)
    assert metrics.identity_distance(eye.roll(1, 0)).item() == pytest.approx(1.0)
    r = torch.rand(5, 4, 4, generator=generator()).double()
    by_destination = metrics.off_diagonal_by_destination(r)
    assert torch.equal(by_destination[2], 1 - r[2].diagonal())
    assert torch.allclose(by_destination.mean(-1), metrics.off_diagonal_mass(r))
    order = torch.tensor([3, 1, 0, 2])
    moved = r[:, order][:, :, order]
    for measure in (
        metrics.off_diagonal_mass,
        metrics.identity_distance,
        metrics.permutation_distance,
    ):
        assert torch.allclose(measure(moved), measure(r))


def test_permutation_distance() -> None:
    n = 4
    for order in itertools.permutations(range(n)):
        assert metrics.permutation_distance(torch.eye(n)[list(order)]).item() < 1e-6
    r = torch.rand(6, n, n, generator=generator(), dtype=torch.float64)
    eye = torch.eye(n, dtype=torch.float64)
    brute = torch.stack(
        [
            (r - eye[list(order)]).square().sum((-2, -1)).sqrt() / math.sqrt(2 * n)
            for order in itertools.permutations(range(n))
        ]
    ).amin(0)
    assert torch.allclose(metrics.permutation_distance(r), brute)


def test_token_variation_separates_static_from_dynamic_mixing() -> None:
    r = torch.rand(4, 4, generator=generator(), dtype=torch.float64)
    assert metrics.token_variation(r, r.square()).item() == 0
    tokens = torch.rand(100, 4, 4, generator=generator(), dtype=torch.float64)
    mean = tokens.mean(0)
    direct = (tokens - mean).square().sum((-2, -1)).mean() / ((mean - torch.eye(4)).square().sum())
    assert torch.allclose(metrics.token_variation(mean, tokens.square().mean(0)), direct)
