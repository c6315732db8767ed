"""Unconstrained H_res: the logits themselves, as in Hyper-Connections (2409.19606)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Mixer, permute_matrix


@dataclass(frozen=True)
class Free(Mixer):
    """``h_res[j, i] = logit[j * n + i]``. Applying tanh is the connection's activation."""

    name = "free"
    paper = "Hyper-Connections, 2409.19606, eq. 10-14"
    fused_map = "free"

    def logit_count(self, n: int) -> int:
        return n * n

    def initial_logits(self, n: int) -> Tensor:
        return torch.eye(n).flatten()

    def permute_logits(self, logits: Tensor, permutation: Sequence[int], n: int) -> Tensor:
        return permute_matrix(logits, permutation, n)

    def map(self, logits: Tensor, n: int) -> Tensor:
        return logits.unflatten(-1, (n, n))
