"""Planted patterns in contribution matrices are found, others are not."""

from __future__ import annotations

import math

import pytest
import torch
from hyperstreams.diagnostics import patterns
from torch import Tensor

K = 12


def distance() -> Tensor:
    places = torch.arange(K + 1, dtype=torch.float64)
    return places.unsqueeze(1) - places + 1


def plain() -> Tensor:
    return torch.ones(K + 1, K + 1, dtype=torch.float64).tril()


def decaying(rate: float = 0.4) -> Tensor:
    return (-rate * distance()).exp().tril()


def test_decay_rate_of_a_planted_decay() -> None:
    rate, scale = patterns.decay_rate(3 * decaying())
    assert rate == pytest.approx(0.4)
    assert scale == pytest.approx(3)
    assert patterns.decay_rate(plain())[0] == pytest.approx(0)
    assert torch.equal(patterns.by_distance(plain()), torch.ones(K).double())
    assert math.isnan(patterns.decay_rate(torch.ones(2, 2))[0])
    assert math.isnan(patterns.decay_rate(torch.zeros(5, 5))[0])


def test_lambda_needs_decay_and_bottom() -> None:
    planted = decaying()
    planted[:, 0] += 0.5
    found = patterns.lambda_pattern(planted)
    assert found.detected
    assert found.decay == pytest.approx(0.4)
    assert found.bottom_excess == pytest.approx(0.5 / math.exp(-0.4))
    assert found.bottom_mass > 0.2
    assert not patterns.lambda_pattern(plain()).detected
    without = patterns.lambda_pattern(decaying())
    assert not without.detected
    assert without.bottom_excess == pytest.approx(0, abs=1e-9)


def test_bottom_mass() -> None:
    mass = patterns.bottom_mass(plain(), bottom=2)
    assert torch.allclose(mass, (2 / torch.arange(1, K + 2)).clamp_max(1).double())


def test_parallel_blocks() -> None:
    c = decaying(0.1)
    for i in (3, 7):
        c[i, :i] = c[i - 1, :i]
        c[i, i] = 0.0
    found = patterns.parallel_blocks(c)
    assert found.detected.nonzero().flatten().tolist() == [2, 6]
    assert found.coupling[2].item() == 0
    assert found.similarity[2].item() == pytest.approx(1)
    none = patterns.parallel_blocks(plain())
    assert none.coupling.tolist() == [1.0] * (K - 1)
    assert not none.detected.any()
    # Two rows of one or two shared writers are alike by chance.
    chance = plain()
    chance[1, 1] = chance[2, 2] = 0.0
    assert patterns.parallel_blocks(chance).similarity[0].item() == pytest.approx(1)
    assert not patterns.parallel_blocks(chance).detected.any()
    # Low coupling alone is not a parallel block: the rows must be alike.
    c[5, :6] = torch.tensor([0.0, 0, 1, 0, -1, 0], dtype=torch.float64)
    assert patterns.parallel_blocks(c).coupling[4].item() == 0
    assert not patterns.parallel_blocks(c).detected[4]


def test_embedding_in_the_readout() -> None:
    assert patterns.readout_embedding_weight(plain()) == pytest.approx(1 / (K + 1))
    eliminated = plain()
    eliminated[-1, 0] = 0
    assert patterns.readout_embedding_weight(eliminated) == 0


def test_column_mass() -> None:
    attention, mlp = range(1, K + 1, 2), range(2, K + 1, 2)
    groups = {"embedding": [0], "attention": list(attention), "mlp": list(mlp)}
    mass = patterns.column_mass(plain(), groups)
    entries = (K + 1) * (K + 2) / 2
    assert sum(mass.values()) == pytest.approx(1)
    assert mass["embedding"] == pytest.approx((K + 1) / entries)
    assert mass["attention"] == pytest.approx(sum(K + 1 - j for j in attention) / entries)
    only = torch.zeros(K + 1, K + 1)
    only[4, 3] = -2.0
    assert patterns.column_mass(only, groups)["attention"] == 1


def test_shapes_are_worded() -> None:
    with pytest.raises(ValueError, match=r"lambda_pattern: c: expected shape \[K \+ 1, K \+ 1\]"):
        patterns.lambda_pattern(torch.ones(4, 5))
    with pytest.raises(ValueError, match="parallel_blocks: c: expected shape"):
        patterns.parallel_blocks(torch.ones(1, 1))
