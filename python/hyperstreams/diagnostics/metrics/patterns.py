"""Patterns in unfolded contributions: decay with distance, the bottom, parallel blocks, columns.

All take ``c [K + 1, K + 1]``, token means of
:func:`~hyperstreams.diagnostics.ledger.contributions` with merged starts: column 0 is the
embedding, column j the site j - 1, row i the input of site i, the last row the readout. The
*distance* of an entry counts sites back: ``i - j + 1``, 1 for the site just before. None depends on
the order of streams.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class LambdaPattern(NamedTuple):
    """What :func:`lambda_pattern` finds; see there."""

    decay: float
    bottom_excess: float
    bottom_mass: float
    detected: bool


class ParallelBlocks(NamedTuple):
    """What :func:`parallel_blocks` finds, one entry per site from the second on."""

    coupling: Tensor
    similarity: Tensor
    detected: Tensor


def _check(op: str, c: Tensor, least: int) -> None:
    if c.ndim != 2 or c.shape[0] != c.shape[1] or c.shape[0] <= least:
        raise ValueError(
            f"{op}: c: expected shape [K + 1, K + 1] with K >= {least}, got {list(c.shape)}"
        )


def by_distance(c: Tensor, *, bottom: int = 1) -> Tensor:
    """Mean ``|c|`` at each distance 1, 2, ..., without the first ``bottom`` columns (D12p).

    ``-> [K + 1 - bottom]``. Plain residual: ones.
    """
    _check("by_distance", c, max(bottom, 1))
    kept = c.abs()[bottom:, bottom:]
    return torch.stack([kept.diagonal(-offset).mean() for offset in range(kept.shape[0])])


def decay_rate(c: Tensor, *, bottom: int = 1) -> tuple[float, float]:
    """Least-squares fit ``|c| = a exp(-r distance)`` (D12p): returns ``(r, a)``.

    Fitted to the logarithm of :func:`by_distance` where it is not 0. r is 0 for a plain residual
    network; recovered from a planted decay. Fewer than two distances: r is nan.
    """
    mean = by_distance(c, bottom=bottom).double()
    distance = torch.arange(1, mean.numel() + 1, dtype=torch.float64, device=mean.device)
    counted = mean > 0
    if int(counted.sum()) < 2:
        return float("nan"), float("nan")
    x, y = distance[counted], mean[counted].log()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    return -float(slope), float((y.mean() - slope * x.mean()).exp())


def bottom_mass(c: Tensor, *, bottom: int = 1) -> Tensor:
    """Share of each row's absolute weight in the first ``bottom`` columns (D12p): ``-> [K + 1]``.

    Plain residual: ``bottom / (i + 1)`` in row i, at most 1.
    """
    _check("bottom_mass", c, max(bottom - 1, 0))
    return c.abs()[:, :bottom].sum(dim=1) / c.abs().sum(dim=1)


def lambda_pattern(
    c: Tensor,
    *,
    bottom: int = 1,
    far: int = 3,
    min_decay: float = 0.05,
    min_excess: float = 0.1,
) -> LambdaPattern:
    """Decay with distance *and* access to the bottom: the shape of a Lambda (D12p).

    ``decay``: :func:`decay_rate`. ``bottom_excess``: mean over entries of the first ``bottom``
    columns at distance ``far`` or more of ``|c|`` minus what the fitted decay gives there, in units
    of the fit at distance 1. ``bottom_mass``: mean of :func:`bottom_mass` over the same rows.
    ``detected``: both exceed their minimum. A plain residual network has decay 0: not detected;
    decay alone has no excess: not detected. Source: the pattern described in 2409.19606 (HC); the
    thresholds are ours.
    """
    _check("lambda_pattern", c, max(bottom, far))
    rate, scale = decay_rate(c, bottom=bottom)
    rows = torch.arange(c.shape[0], device=c.device).unsqueeze(1)
    columns = torch.arange(bottom, device=c.device).unsqueeze(0)
    distance = (rows - columns + 1).double()
    kept = distance >= far
    expected = scale * (-rate * distance).exp()
    above = (c.abs()[:, :bottom].double() - expected)[kept].mean()
    excess = float(above) / (scale * math.exp(-rate))
    mass = bottom_mass(c, bottom=bottom)[kept.any(dim=1)].mean()
    found = rate > min_decay and excess > min_excess
    return LambdaPattern(rate, excess, float(mass), found)


def parallel_blocks(
    c: Tensor, *, max_coupling: float = 0.1, min_similarity: float = 0.9, min_writers: int = 3
) -> ParallelBlocks:
    """Neighbouring sites that work in parallel rather than in sequence (D12p).

    For each site i >= 1: ``coupling = |c[i, i]| / max_j |c[i, j]|``, how much it reads of the site
    just before it, and ``similarity``, the cosine of rows i and i - 1 over the writers that both
    can see: of one writer always 1 or -1, of few often large by chance. ``detected`` where the
    coupling is at most ``max_coupling``, the similarity at least ``min_similarity`` and the writers
    at least ``min_writers``. Plain residual: coupling 1. Source: parallel transformer blocks found
    in 2409.19606 (HC); the thresholds are ours.
    """
    _check("parallel_blocks", c, 1)
    coupling, similarity = [], []
    for i in range(1, c.shape[0] - 1):
        row, before = c[i], c[i - 1]
        coupling.append(row[i].abs() / row.abs().max())
        similarity.append(torch.nn.functional.cosine_similarity(row[:i], before[:i], dim=0))
    pair = torch.stack(coupling) if coupling else c.new_zeros(0)
    cosine = torch.stack(similarity) if similarity else c.new_zeros(0)
    writers = torch.arange(1, 1 + len(pair), device=c.device)
    found = (pair <= max_coupling) & (cosine >= min_similarity) & (writers >= min_writers)
    return ParallelBlocks(pair, cosine, found)


def readout_embedding_weight(c: Tensor) -> float:
    """``|c[K, 0]| / sum_j |c[K, j]|``: the embedding in the readout (D12p).

    Near 0: the embedding is eliminated from the output, as 2409.19606 (HC) reads its pictures.
    Plain residual: ``1 / (K + 1)``.
    """
    _check("readout_embedding_weight", c, 0)
    return float(c[-1, 0].abs() / c[-1].abs().sum())


def column_mass(c: Tensor, groups: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Share of all absolute weight per group of columns (D12p), such as attention and MLP.

    ``groups`` maps a name to columns. Plain residual: column j has ``K + 1 - j`` equal entries for
    j >= 1, and the embedding K + 1. Groups that cover all columns sum to 1.
    """
    _check("column_mass", c, 0)
    magnitude = c.abs()
    total = magnitude.sum()
    return {name: float(magnitude[:, list(g)].sum() / total) for name, g in groups.items()}
