"""Exactly doubly stochastic H_res, filled cell by cell (TBP-mHC, 2605.21724)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Mixer


def _fill(like: Tensor, n: int, cell: Callable[[int, int, Tensor, Tensor], Tensor]) -> Tensor:
    """``[*like.shape, n, n]`` with ``cell(j, i, low, width)`` from source i to destination j.

    The last row and column take what the others leave.
    """
    capacity = [torch.ones_like(like) for _ in range(n)]
    entries = []
    for j in range(n - 1):
        rest = torch.ones_like(like)
        for i in range(n - 1):
            low = (rest - torch.stack(capacity[i + 1 :]).sum(0)).clamp_min(0.0)
            width = (torch.minimum(rest, capacity[i]) - low).clamp_min(0.0)
            value = cell(j, i, low, width)
            rest = rest - value
            capacity[i] = capacity[i] - value
            entries.append(value)
        entries.append(rest)
        capacity[n - 1] = capacity[n - 1] - rest
    return torch.stack([*entries, *capacity], dim=-1).unflatten(-1, (n, n))


@dataclass(frozen=True)
class Transport(Mixer):
    """A point of the transport polytope from its cells, left to right, row by row.

    With ``r`` what row j still needs and ``c[i]`` what column i still takes, cell (j, i) lies in
    ``L = max(0, r - sum_{i' > i} c[i'])`` to ``U = min(r, c[i])`` and becomes
    ``L + (U - L) sigmoid(t[j, i])``; the last column and the last row take the remainder. The
    ``(n - 1)**2`` logits are t, row-major. (The paper's third bound, from the capacity of the rows
    below, never binds in this order: one empty row below can take any column's remainder.)

    Any such matrix is reached and only such. The bounds' max and min make kinks.

    initial_mixing : the initial h_res has this in every entry off the diagonal. Our choice, about
        mHC's; at t = 0 h_res would be far from the identity.
    minorisation : delta of ``(1 - delta) h_res + delta / n``; 0 leaves it out. The released option
        has delta = sigmoid(-8) = 3.35e-4.
    scaled_slope : ``sigmoid(slope t / (U - L + slope_eps))`` instead, the released option that
        keeps the derivative's size in a narrow interval.
    """

    name = "transport"
    paper = "TBP-mHC, 2605.21724"
    invariants = frozenset({"doubly_stochastic", "nonnegative"})

    initial_mixing: float = 2.0**-11
    minorisation: float = 0.0
    scaled_slope: bool = False
    slope: float = 4.0
    slope_eps: float = 1e-3

    def __post_init__(self) -> None:
        if not 0.0 < self.initial_mixing < 1.0 / (self.max_streams - 1):
            raise ValueError(
                f"mixer 'transport': initial_mixing must be in (0, 1/{self.max_streams - 1}), "
                f"got {self.initial_mixing}"
            )
        if not 0.0 <= self.minorisation <= 1.0:
            raise ValueError(
                f"mixer 'transport': minorisation must be in 0..1, got {self.minorisation}"
            )
        if not (self.slope > 0.0 and self.slope_eps > 0.0):
            raise ValueError(
                "mixer 'transport': slope and slope_eps must be > 0, "
                f"got {self.slope} and {self.slope_eps}"
            )

    def logit_count(self, n: int) -> int:
        return (n - 1) ** 2

    def initial_logits(self, n: int) -> Tensor:
        off = torch.tensor(self.initial_mixing, dtype=torch.float64)
        logits = []

        def cell(j: int, i: int, low: Tensor, width: Tensor) -> Tensor:
            value = 1.0 - (n - 1) * off if i == j else off
            t = torch.logit((value - low) / width)
            logits.append(t * (width + self.slope_eps) / self.slope if self.scaled_slope else t)
            return value

        _fill(off, n, cell)
        return torch.stack(logits).float() if logits else torch.zeros(0)

    def map(self, logits: Tensor, n: int) -> Tensor:
        def cell(j: int, i: int, low: Tensor, width: Tensor) -> Tensor:
            t = logits[..., j * (n - 1) + i]
            if self.scaled_slope:
                t = self.slope * t / (width + self.slope_eps)
            return low + width * torch.sigmoid(t)

        m = _fill(logits[..., :1].sum(dim=-1), n, cell)
        if self.minorisation:
            m = (1.0 - self.minorisation) * m + self.minorisation / n
        return m
