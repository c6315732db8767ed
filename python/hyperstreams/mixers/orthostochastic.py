"""Exactly doubly stochastic H_res from the squares of an orthogonal matrix (go-mHC, 2604.02309)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ._skew import cayley, permute_skew, skew, skew_count
from .base import Mixer


@dataclass(frozen=True)
class Orthostochastic(Mixer):
    """``h_res[j, i] = (1/s) sum_{k, l < s} Q[j s + k, i s + l]**2`` with an orthogonal Q [ns, ns].

    ``Q = (I + A)^{-1} (I - A)``; the logits are the strict upper triangle of the skew-symmetric A,
    row by row. Rows and columns sum to 1 exactly, because those of ``Q**2`` do.

    s : size of the blocks. 1 gives the orthostochastic matrices, a part of the doubly stochastic
        ones; a larger s reaches more of them. 2 is the paper's recommendation.
    initial_skew : initial value of every logit. At 0 H_res is I and **every first derivative is
        exactly 0**: an off-diagonal entry is a sum of squares of numbers that vanish there, and
        ``1 - Q[k, k]**2`` is quadratic as well. A zero bias beside zero controller weights, which
        the released code's description amounts to, therefore never trains. The default, our
        choice, starts close to I (off-diagonal ``~ 4 s initial_skew**2``) with a gradient.
    """

    name = "orthostochastic"
    paper = "go-mHC, 2604.02309"
    invariants = frozenset({"doubly_stochastic", "nonnegative"})

    s: int = 2
    initial_skew: float = 2.0**-6

    def __post_init__(self) -> None:
        if self.s < 1:
            raise ValueError(f"mixer 'orthostochastic': s must be >= 1, got {self.s}")

    def logit_count(self, n: int) -> int:
        return skew_count(n * self.s)

    def initial_logits(self, n: int) -> Tensor:
        return torch.full((self.logit_count(n),), self.initial_skew)

    def permute_logits(self, logits: Tensor, permutation: Sequence[int], n: int) -> Tensor:
        blocks = [i * self.s + k for i in permutation for k in range(self.s)]
        return permute_skew(logits, blocks)

    def map(self, logits: Tensor, n: int) -> Tensor:
        q = cayley(skew(logits, n * self.s))
        blocks = q.square().unflatten(-1, (n, self.s)).unflatten(-3, (n, self.s))
        return blocks.sum(dim=(-3, -1)) / self.s
