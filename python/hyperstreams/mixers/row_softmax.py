"""Rows that sum to 1, columns as they come: the one-sided variant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Mixer, permute_matrix


@dataclass(frozen=True)
class RowSoftmax(Mixer):
    """``h_res[j, :] = softmax(S[j, :] / temperature)`` with the logits S row-major.

    Every destination is a weighted mean of the sources. Column sums are free, so a source may
    vanish or be copied to all; products of such matrices have row sums 1 and a spectral norm that
    only sqrt(n) bounds.
    """

    name = "row_softmax"
    paper = "the one-sided (single-marginal) variant of mHC, 2512.24880"
    invariants = frozenset({"row_stochastic", "nonnegative"})

    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0.0:
            raise ValueError(
                f"mixer 'row_softmax': temperature must be > 0, got {self.temperature}"
            )

    def logit_count(self, n: int) -> int:
        return n * n

    def initial_logits(self, n: int) -> Tensor:
        return torch.full((n, n), -8.0).fill_diagonal_(0.0).flatten()

    def permute_logits(self, logits: Tensor, permutation: Sequence[int], n: int) -> Tensor:
        return permute_matrix(logits, permutation, n)

    def map(self, logits: Tensor, n: int) -> Tensor:
        return torch.softmax(logits.unflatten(-1, (n, n)) / self.temperature, dim=-1)
