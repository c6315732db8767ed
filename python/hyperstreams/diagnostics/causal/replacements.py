"""What a coefficient can be replaced by: pure functions of the tensor that a site would use."""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDS = 50
"""Alternations that restore both sums of a doubly stochastic mixer after entries were dropped."""


def token_mean(value: Tensor, inner: int) -> Tensor:
    """Mean over all axes but the last ``inner``, in float64: ``[..., *inner] -> [*inner]``.

    Exact no-op for coefficients that do not depend on the token.
    """
    if value.ndim == inner:
        return value
    return value.flatten(0, -inner - 1).double().mean(dim=0).to(value.dtype)


def identity(value: Tensor) -> Tensor:
    """The identity matrix in the shape of ``value [..., n, n]``."""
    return torch.eye(value.shape[-1], dtype=value.dtype, device=value.device).expand(value.shape)


def uniform(value: Tensor) -> Tensor:
    """``1 / n`` everywhere, in the shape of ``value [..., n]`` or ``[..., n, n]``."""
    return torch.full_like(value, 1.0 / value.shape[-1])


def top_entries(value: Tensor, keep: int, *, row_sums: bool, column_sums: bool) -> Tensor:
    """The ``keep`` largest entries (by size) of a mixer ``[..., destination, source]``, rescaled.

    row_sums : the mixer fixes what a destination receives. Each destination keeps its largest
        sources, scaled so that it receives what it received before.
    column_sums : the mixer fixes what a source spends. Alone: each source keeps its largest
        destinations, scaled so that it spends what it spent before. Together with ``row_sums``:
        each destination keeps its largest sources, then sources and destinations are rescaled in
        turn (:data:`ROUNDS` times, destinations last), so that destination sums are exact and
        source sums as close as the entries that are left allow.
    Neither : each destination keeps its largest sources, unscaled.

    ``keep >= n`` returns ``value`` itself. A sum of 0 stays.
    """
    n = value.shape[-1]
    if keep >= n:
        return value
    if column_sums and not row_sums:
        turned = top_entries(value.transpose(-1, -2), keep, row_sums=True, column_sums=False)
        return turned.transpose(-1, -2).contiguous()
    mask = torch.zeros_like(value, dtype=torch.bool)
    mask.scatter_(-1, value.abs().topk(keep, dim=-1).indices, value=True)
    kept = torch.where(mask, value, torch.zeros_like(value))
    if not row_sums:
        return kept
    rounds = ROUNDS if column_sums else 1
    for _ in range(rounds):
        if column_sums:
            kept = _with_sums(kept, value, dim=-2)
        kept = _with_sums(kept, value, dim=-1)
    return kept


def _with_sums(kept: Tensor, full: Tensor, dim: int) -> Tensor:
    """``kept`` scaled along ``dim`` to the sums of ``full``; a sum of 0 stays."""
    now, wanted = (t.sum(dim=dim, keepdim=True) for t in (kept, full))
    return kept * torch.where(now == 0, 1.0, wanted / torch.where(now == 0, 1.0, now))
