"""Circulant H_res: a mixture of cyclic shifts beside the identity (C-mHC)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .base import Mixer


@dataclass(frozen=True)
class Circulant(Mixer):
    """``M = sum_k c_k Pi^k``, ``c = (1 - gamma) e_0 + gamma softmax(logits)``, k = 0..n-1.

    Pi is the cyclic shift with ``Pi[r, r + 1 mod n] = 1``: ``M[r, c]`` is the coefficient
    ``c - r mod n``. All M commute.

    gamma : share of mixing, 0 to 1; the paper's beta / (2 L) with L the number of sublayers, for
        which the smallest singular value of the product over depth is at least
        ``exp(-beta - beta**2 / L)``. The default is the published model's beta = 4, L = 12; see
        :meth:`for_depth`.
    orientation : ``"destination_rows"``: h_res = M. ``"source_rows"``: h_res = M transposed.
    """

    name = "circulant"
    paper = "C-mHC (Circulant Hyper-Connections, Zwick 2026), Theorem 3"
    invariants = frozenset({"doubly_stochastic", "nonnegative", "commuting"})
    fused_map = "circulant"

    gamma: float = 4.0 / 24.0
    orientation: Literal["destination_rows", "source_rows"] = "destination_rows"

    def __post_init__(self) -> None:
        if not 0.0 <= self.gamma <= 1.0:
            raise ValueError(f"mixer 'circulant': gamma must be in 0..1, got {self.gamma}")
        if self.orientation not in ("destination_rows", "source_rows"):
            raise ValueError(
                "mixer 'circulant': orientation must be 'destination_rows' or 'source_rows', "
                f"got {self.orientation!r}"
            )

    @classmethod
    def for_depth(cls, sublayers: int, *, beta: float = 4.0) -> Circulant:
        """The mixer with ``gamma = beta / (2 sublayers)``, attention and MLP counted alike."""
        if sublayers < 1:
            raise ValueError(f"mixer 'circulant': sublayers must be >= 1, got {sublayers}")
        return cls(gamma=beta / (2 * sublayers))

    def logit_count(self, n: int) -> int:
        return n

    def initial_logits(self, n: int) -> Tensor:
        return torch.zeros(n)

    def map(self, logits: Tensor, n: int) -> Tensor:
        weights = self.gamma * torch.softmax(logits, dim=-1)
        stay = torch.zeros(n, dtype=logits.dtype, device=logits.device)
        stay[0] = 1.0 - self.gamma
        index = torch.arange(n, device=logits.device)
        shift = index - index.unsqueeze(-1)
        if self.orientation == "source_rows":
            shift = -shift
        return (weights + stay)[..., shift % n]

    def fused_settings(self, n: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
        return (int(self.orientation == "source_rows"),), (self.gamma,)
