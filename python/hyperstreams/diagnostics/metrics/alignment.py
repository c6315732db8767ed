"""Which stream of one run is which of another: optimal assignment and its distances."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Alignment(NamedTuple):
    """What :func:`align` gives.

    permutation ``[..., n]``: stream of the second run that each stream of the first is matched to.
    matched, unmatched, chance ``[...]``: mean cost per stream of that match, of equal indices, and
    of a random match.
    """

    permutation: Tensor
    matched: Tensor
    unmatched: Tensor
    chance: Tensor


def assign(cost: Tensor) -> tuple[Tensor, Tensor]:
    """Permutation of least total cost (D25): ``[..., n, n] -> [..., n]`` int64 and ``[...]``.

    Row j is assigned column ``permutation[j]``. Exact, by dynamic programming over the ``2**n``
    subsets of columns, so n is at most 16.
    """
    # Exponential in n but without a loop over the leading axes: a capture has a matrix for every
    # token and site. Dictionaries of thousands of latents, one matrix, take the polynomial solver
    # of crosscoder/stability.py.
    n = cost.shape[-1]
    if cost.ndim < 2 or cost.shape[-2] != n or not 1 <= n <= 16:
        raise ValueError(f"assign: cost: expected [..., n, n], n <= 16, got {list(cost.shape)}")
    masks = torch.arange(1 << n, device=cost.device)
    best = cost.new_full((*cost.shape[:-2], 1 << n), math.inf)
    best[..., 0] = 0.0
    choice = torch.zeros(best.shape, dtype=torch.int64, device=cost.device)
    for j in range(n):
        extended = torch.full_like(best, math.inf)
        for i in range(n):
            holding = masks[(masks >> i) & 1 == 1]
            candidate = best[..., holding ^ (1 << i)] + cost[..., j, i].unsqueeze(-1)
            better = candidate < extended[..., holding]
            extended[..., holding] = torch.where(better, candidate, extended[..., holding])
            choice[..., holding] = torch.where(better, i, choice[..., holding])
        best = extended
    left = torch.full(best.shape[:-1], (1 << n) - 1, dtype=torch.int64, device=cost.device)
    permutation = torch.zeros(*best.shape[:-1], n, dtype=torch.int64, device=cost.device)
    for j in range(n - 1, -1, -1):
        taken = choice.gather(-1, left.unsqueeze(-1)).squeeze(-1)
        permutation[..., j] = taken
        left = left ^ (1 << taken)
    return permutation, best[..., -1]


def align(cost: Tensor) -> Alignment:
    """Match the streams of two runs (D25): ``[..., n, n]`` costs, such as ``1 - CKA``.

    matched <= unmatched and matched <= chance always; a run against itself gives the identity; a
    planted permutation is recovered, which makes roles comparable where indices are arbitrary.
    Null: ``chance``, though a *best* match is below it even for unrelated runs; compare with the
    matched cost of shuffled signatures. Source: linear assignment, as in feature matching of seeds.
    """
    permutation, total = assign(cost)
    n = cost.shape[-1]
    unmatched = cost.diagonal(dim1=-2, dim2=-1).mean(dim=-1)
    return Alignment(permutation, total / n, unmatched, cost.mean(dim=(-2, -1)))


def profile(*values: Tensor) -> Tensor:
    """Signature of each stream over depth: quantities ``[K, n]`` (shares, norms) ``-> [n, F]``."""
    return torch.cat([value.T for value in values], dim=-1)


def profile_distance(a: Tensor, b: Tensor) -> Tensor:
    """Root mean square difference of signatures (D25): ``[n, F], [n, F] -> [n, n]``."""
    return (a.unsqueeze(-2) - b.unsqueeze(-3)).square().mean(dim=-1).sqrt()


def match_drift(permutation: Tensor) -> Tensor:
    """Fraction of streams whose match changes from one site to the next (D25): ``[K, n] -> []``.

    0 when the streams keep their roles over depth. Null: ``1 - 1/n`` for independent matches.
    """
    return (permutation[1:] != permutation[:-1]).double().mean()
