"""Whether two trainings found the same features: one-to-one matching of latents."""

from __future__ import annotations

import torch
from torch import Tensor


def match_latents(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """One-to-one match of latents with the largest total cosine of their decoders.

    first ``[r, I, d]``, second ``[m, I, d]`` with r <= m; returns the partner ``[r]`` (int64) of
    every latent of ``first`` and their cosine ``[r]``. Decoders of all sites count as one vector.
    Exact (shortest augmenting paths, at most ``r^2 m`` operations). Unlike the largest cosine, no
    latent is used twice, so that a split feature is not counted as found several times.
    """
    if first.shape[0] > second.shape[0] or first.shape[1:] != second.shape[1:]:
        raise ValueError(
            "match_latents: first, second: expected [r, I, d] and [m, I, d] with r <= m, "
            f"got {list(first.shape)} and {list(second.shape)}"
        )
    left, right = (
        torch.nn.functional.normalize(rows.detach().flatten(1).double().cpu(), dim=1)
        for rows in (first, second)
    )
    cosine = left @ right.T
    partner = _assign(1.0 - cosine)
    return partner, cosine[torch.arange(len(partner)), partner]


def shared_fraction(first: Tensor, second: Tensor, *, threshold: float = 0.9) -> float:
    """Fraction of the smaller dictionary's latents whose match has a cosine above ``threshold``.

    1 for a dictionary and a permutation of it; nan for an empty one. Pass alive latents only.
    """
    if first.shape[0] > second.shape[0]:
        first, second = second, first
    return float((match_latents(first, second)[1] > threshold).double().mean())


def _assign(cost: Tensor) -> Tensor:
    """Column of every row in the assignment of least cost: ``[r, m] -> [r]``, r <= m.

    Rows enter one by one. ``u``, ``v`` are the dual prices that keep reduced costs at least 0 and
    at 0 on what is assigned; each row's cheapest path through reduced costs ends at a free column.
    """
    # Polynomial, for thousands of latents; ``alignment.assign`` is exponential in n <= 16 and
    # takes all matrices of a batch at once.
    rows, columns = cost.shape
    u, v = cost.new_zeros(rows), cost.new_zeros(columns)
    owner = [-1] * columns
    for row in range(rows):
        distance = cost.new_full((columns,), torch.inf)
        before = torch.full((columns,), -1, dtype=torch.int64)
        visited = torch.zeros(columns, dtype=torch.bool)
        order: list[int] = []
        current, reached, column = row, 0.0, -1
        while True:
            through = reached + cost[current] - u[current] - v
            shorter = (through < distance) & ~visited
            distance = torch.where(shorter, through, distance)
            before[shorter] = column
            column = int(torch.where(visited, torch.inf, distance).argmin())
            reached = float(distance[column])
            visited[column] = True
            if owner[column] < 0:
                break
            order.append(column)
            current = owner[column]
        u[row] += reached
        for passed in order:
            slack = reached - float(distance[passed])
            u[owner[passed]] += slack
            v[passed] -= slack
        while column >= 0:
            previous = int(before[column])
            owner[column] = owner[previous] if previous >= 0 else row
            column = previous
    result = torch.empty(rows, dtype=torch.int64)
    for column, row in enumerate(owner):
        if row >= 0:
            result[row] = column
    return result
