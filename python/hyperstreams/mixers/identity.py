"""H_res = I: streams are read and written but never mixed (identity Hyper-Connections)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Mixer


@dataclass(frozen=True)
class Identity(Mixer):
    """H_res = I. No logits; ``map`` returns None, which every op reads as the identity."""

    name = "identity"
    paper = "residual-mix ablation of mHC (2512.24880, ablation table); iHC"
    invariants = frozenset({"identity", "doubly_stochastic", "nonnegative"})
    fused_map = "identity"

    def logit_count(self, n: int) -> int:
        return 0

    def initial_logits(self, n: int) -> Tensor:
        return torch.zeros(0)

    def permute_logits(self, logits: Tensor, permutation: Sequence[int], n: int) -> Tensor:
        return logits

    def map(self, logits: Tensor, n: int) -> None:
        return None
