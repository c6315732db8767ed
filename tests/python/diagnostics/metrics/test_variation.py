"""Analysis of variance of planted shares; static, dynamic and decayed logits."""

from __future__ import annotations

import math

import pytest
import torch
from hyperstreams.diagnostics import variation
from torch import Tensor

K, B, T, N = 5, 6, 7, 4


def shares(*shape: int, seed: int = 0) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values.softmax(dim=-1)


def test_each_source_of_variance_is_found_where_it_was_planted() -> None:
    constant = variation.variance_decomposition(torch.full((K, B, T, N), 0.25))
    assert [part.item() for part in constant] == [0, 0, 0, 0]
    for index, planted in enumerate(
        (shares(K, 1, 1, N).expand(K, B, T, N), shares(1, 1, T, N).expand(K, B, T, N))
    ):
        parts = variation.variance_decomposition(planted)
        assert parts.total > 1e-3
        assert torch.allclose(parts[index + 1], parts.total)
    tokens = shares(K, B, T, N)
    routed = torch.cat([tokens, 0.5 - tokens], dim=1)
    parts = variation.variance_decomposition(routed)
    assert torch.allclose(parts.tokens, parts.total)


def test_parts_sum_to_the_total_and_ignore_the_order_of_streams() -> None:
    parts = variation.variance_decomposition(shares(K, B, T, N))
    assert torch.allclose(parts.sites + parts.positions + parts.tokens, parts.total)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    moved = variation.variance_decomposition(shares(K, B, T, N)[..., order])
    assert torch.allclose(torch.stack(moved), torch.stack(parts))
    # Independent tokens: 1/B of their variance looks like positions, 1/(B T) like sites.
    assert (parts.positions / parts.total).item() == pytest.approx(1 / B, abs=0.08)
    with pytest.raises(ValueError, match="variance_decomposition: share"):
        variation.variance_decomposition(shares(K, N))


def test_variance_between_groups() -> None:
    group = torch.arange(60) % 3
    means = shares(K, 3, N)
    determined = means[:, group]
    assert torch.allclose(variation.group_means(determined, group, 3), means)
    ones = torch.ones(K, dtype=torch.float64)
    assert torch.allclose(variation.explained_by_group(determined, group, 3), ones)
    constant = torch.full((K, 60, N), 0.25)
    assert torch.equal(variation.explained_by_group(constant, group, 3), torch.zeros(K))
    assert variation.group_means(determined, group, 4)[:, 3].isnan().all()
    chance = torch.stack(
        [variation.explained_by_group(shares(K, 60, N, seed=s), group, 3) for s in range(20)]
    )
    assert chance.mean().item() == pytest.approx(2 / 59, rel=0.2)


def test_frequency_buckets() -> None:
    counts = torch.tensor([0, 1, 2, 3, 4, 1024])
    bucket = variation.frequency_bucket(torch.tensor([[0, 1, 2], [3, 4, 5]]), counts)
    assert bucket.tolist() == [[0, 0, 1], [1, 2, 10]]


def test_static_share() -> None:
    static = torch.tensor([1.0, -1.0, -1.0])
    assert variation.static_share(static, torch.zeros(10, 3)).item() == 1
    assert variation.static_share(torch.zeros(3), torch.ones(10, 3)).item() == 0
    flips = torch.tensor([1.0, -1.0]).repeat(5).unsqueeze(-1) * static
    assert variation.static_share(static, flips).item() == pytest.approx(0.5)
    order = torch.tensor([2, 0, 1])
    assert torch.equal(
        variation.static_share(static[order], flips[:, order]),
        variation.static_share(static, flips),
    )


def test_travel_and_decay_of_the_published_schedule() -> None:
    """Medium, 10,000 steps: warm-up 200, cosine from 6e-4 to a tenth, decay 0.1."""
    step = torch.arange(10_000, dtype=torch.float64)
    cosine = 6e-5 + 0.5 * (6e-4 - 6e-5) * (1 + (math.pi * (step - 200) / 9_800).cos())
    rates = torch.where(step < 200, 6e-4 * (step + 1) / 201, cosine)
    assert variation.travel_bound(rates) == pytest.approx(3.3, abs=0.05)
    start = torch.tensor([0.0, -8.0, -8.0], dtype=torch.float64)
    path = variation.decay_path(start, rates, 0.1)
    assert path.shape == (10_001, 3)
    assert torch.equal(path[0], start)
    assert path[-1].tolist() == pytest.approx([0, -5.76, -5.76], abs=0.03)
    assert variation.logit_travel(path[0], start).item() == 0
    expected = (8 - 5.76) * math.sqrt(2 / 3)
    assert variation.logit_travel(path[-1], start).item() == pytest.approx(expected, abs=0.03)
    assert variation.logit_travel(path[-1], path[-1]).item() == 0
