"""Assignment is optimal, planted permutations are recovered."""

from __future__ import annotations

import itertools

import pytest
import torch
from hyperstreams.diagnostics import alignment
from torch import Tensor


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("n", [1, 2, 4, 6])
def test_assignment_against_all_permutations(n: int) -> None:
    cost = rand(5, n, n) - 0.5
    permutation, total = alignment.assign(cost)
    rows = torch.arange(n)
    orders = [list(order) for order in itertools.permutations(range(n))]
    brute = torch.stack([cost[:, rows, order].sum(-1) for order in orders]).amin(0)
    assert torch.allclose(total, brute)
    assert torch.equal(permutation.sort(dim=-1).values, rows.expand(5, n))
    taken = cost.gather(-1, permutation.unsqueeze(-1)).sum(dim=(-2, -1))
    assert torch.allclose(taken, brute)


def test_sixteen_streams() -> None:
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    cost = 1 - torch.eye(16)[order]
    permutation, total = alignment.assign(cost)
    assert torch.equal(permutation, order)
    assert total.item() == 0
    with pytest.raises(ValueError, match=r"assign: cost: expected \[..., n, n\]"):
        alignment.assign(torch.zeros(17, 17))


def test_planted_permutation_is_recovered() -> None:
    shares, norms = rand(24, 5), rand(24, 5, seed=1)
    a = alignment.profile(shares, norms)
    assert a.shape == (5, 48)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(3))
    b = alignment.profile(shares[:, order], norms[:, order])
    found = alignment.align(alignment.profile_distance(a, b))
    assert torch.equal(order[found.permutation], torch.arange(5))
    assert found.matched.item() == 0
    assert found.unmatched > 0
    assert found.chance > 0
    same = alignment.align(alignment.profile_distance(a, a))
    assert torch.equal(same.permutation, torch.arange(5))


def test_matched_is_never_above_unmatched_or_chance() -> None:
    found = alignment.align(rand(50, 4, 4))
    assert (found.matched <= found.unmatched + 1e-12).all()
    assert (found.matched <= found.chance + 1e-12).all()
    # Relabelling either run changes the match, not its cost.
    order = torch.tensor([2, 0, 3, 1])
    moved = alignment.align(rand(50, 4, 4)[:, order])
    assert torch.allclose(moved.matched, found.matched)
    assert torch.equal(moved.permutation, found.permutation[:, order])


def test_drift_of_the_match() -> None:
    fixed = torch.tensor([1, 0, 2]).expand(8, 3)
    assert alignment.match_drift(fixed).item() == 0
    swapped = torch.stack([fixed[0], torch.tensor([0, 1, 2])])
    assert alignment.match_drift(swapped).item() == pytest.approx(2 / 3)
