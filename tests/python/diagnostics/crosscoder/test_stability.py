"""Matching of latents between trainings."""

from __future__ import annotations

import itertools

import pytest
import torch
from hyperstreams.diagnostics.crosscoder import match_latents, shared_fraction
from hyperstreams.diagnostics.crosscoder.stability import _assign


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (3, 6), (5, 5)])
def test_assignment_is_the_best_of_all(shape: tuple[int, int]) -> None:
    for seed in range(20):
        cost = torch.rand(shape, generator=generator(seed), dtype=torch.float64)
        rows = torch.arange(shape[0])
        found = _assign(cost)
        assert found.unique().numel() == shape[0]
        best = min(
            float(cost[rows, list(columns)].sum())
            for columns in itertools.permutations(range(shape[1]), shape[0])
        )
        assert float(cost[rows, found].sum()) == pytest.approx(best)


def test_a_permuted_dictionary_is_matched_whatever_its_scale() -> None:
    decoder = torch.randn(60, 3, 5, generator=generator())
    order = torch.randperm(60, generator=generator(1))
    scale = torch.rand(60, 1, 1, generator=generator(2)) + 0.1
    partner, cosine = match_latents(decoder, (scale * decoder)[order])
    assert torch.equal(order[partner], torch.arange(60))
    torch.testing.assert_close(cosine, torch.ones(60).double())
    assert shared_fraction(decoder, decoder[order]) == 1.0
    assert shared_fraction(decoder, torch.randn(80, 3, 5, generator=generator(3))) == 0.0
    # Half the features, the other half new: either order of the arguments gives the same.
    half = torch.cat([decoder[:30], torch.randn(40, 3, 5, generator=generator(4))])
    assert shared_fraction(decoder, half) == shared_fraction(half, decoder) == 0.5


def test_no_latent_is_matched_twice() -> None:
    decoder = torch.eye(4).view(4, 1, 4)
    copies = decoder[[0, 0, 0, 1]]
    assert shared_fraction(copies, decoder) == 0.5
    with pytest.raises(ValueError, match=r"match_latents: first, second: expected \[r, I, d\]"):
        match_latents(decoder, decoder[:2])
