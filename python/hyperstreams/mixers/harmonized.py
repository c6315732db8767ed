"""A static deviation from the identity that a gain controller may shrink (Harmonized HC)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ._skew import identity_like
from .base import Mixer, permute_matrix


@dataclass(frozen=True)
class Harmonized(Mixer):
    """``h_res = I + shrink * scale * Lambda`` with the n*n logits Lambda, row-major, all static.

    scale : 0.05 in the released code.
    shrink : s of ``I + s (H - I)``. The released code moves s while training, by a factor
        ``(target / EMA of the composite gain)**k`` with target 5.0, EMA 0.95 and s kept within
        0.05..1; the exponent k is not known. That state belongs to a trainer, not to the map: here
        s is a setting, 1 as at the start. Since h_res is linear in Lambda, multiplying the static
        logits by a factor does what multiplying s by it would.

    The released code reduces the streams by their mean. Nothing bounds h_res. Lambda starts at 0
    (its initial value is not known): the identity.
    """

    name = "harmonized"
    paper = "Harmonized Hyper-Connections, its released code"
    invariants = frozenset({"negative_entries"})

    scale: float = 0.05
    shrink: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.shrink <= 1.0:
            raise ValueError(f"mixer 'harmonized': shrink must be in (0, 1], got {self.shrink}")

    def logit_count(self, n: int) -> int:
        return n * n

    def static_logit_count(self, n: int) -> int:
        return n * n

    def initial_logits(self, n: int) -> Tensor:
        return torch.zeros(n * n)

    def permute_logits(self, logits: Tensor, permutation: Sequence[int], n: int) -> Tensor:
        return permute_matrix(logits, permutation, n)

    def map(self, logits: Tensor, n: int) -> Tensor:
        m = logits.unflatten(-1, (n, n))
        return identity_like(m) + self.shrink * self.scale * m
