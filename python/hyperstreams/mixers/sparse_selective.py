"""A few learned orthogonal matrices, mixed token by token (Sparse Selective HC)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ._skew import cayley, permute_skew, skew, skew_count
from .base import Mixer


@dataclass(frozen=True)
class SparseSelective(Mixer):
    """``h_res = sum_m softmax(a)_m Q_m`` with ``Q_m = (I + A_m)^{-1} (I - A_m)`` orthogonal.

    Logits: the k selections ``a``, then for every m the strict upper triangle of the skew-symmetric
    A_m, which is static: a parameter of the site, the same for every token. The spectral norm of
    h_res is at most 1; row sums are not 1.

    The published form chooses the weights from the input averaged over the whole sequence, which
    lets a token see its future. This is the causal form: every token chooses by itself.

    k : number of matrices.
    initial_scale : standard deviation of the initial skew entries. They must differ between the
        matrices: equal ones give the selection no gradient, and each other the same gradient.
    seed : of that draw, which is the same at every site.
    """

    name = "sparse_selective"
    paper = "Sparse Selective Hyper-Connections, a public implementation; causal form"
    invariants = frozenset({"spectral_norm_at_most_one", "negative_entries"})

    k: int = 2
    initial_scale: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"mixer 'sparse_selective': k must be >= 1, got {self.k}")

    def logit_count(self, n: int) -> int:
        return self.k + self.static_logit_count(n)

    def static_logit_count(self, n: int) -> int:
        return self.k * skew_count(n)

    def initial_logits(self, n: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        entries = torch.randn(self.static_logit_count(n), generator=generator)
        return torch.cat([torch.zeros(self.k), self.initial_scale * entries])

    def permute_logits(self, logits: Tensor, permutation: Sequence[int], n: int) -> Tensor:
        selections, entries = logits[..., : self.k], logits[..., self.k :]
        entries = permute_skew(entries.unflatten(-1, (self.k, -1)), permutation).flatten(-2)
        return torch.cat([selections, entries], dim=-1)

    def map(self, logits: Tensor, n: int) -> Tensor:
        weights = torch.softmax(logits[..., : self.k], dim=-1)
        matrices = cayley(skew(logits[..., self.k :].unflatten(-1, (self.k, -1)), n))
        return torch.einsum("...m,...mji->...ji", weights, matrices)
