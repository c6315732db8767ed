"""Orthogonal H_res by the Cayley transform, iterated or exact (JPmHC, 2602.18308)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ._skew import identity_like
from .base import Mixer, permute_matrix


@dataclass(frozen=True)
class Cayley(Mixer):
    """Steps towards ``(I - alpha/2 W)^{-1} (I + alpha/2 W)``, which is orthogonal.

    ``W = S - S^T`` of the logits S [n, n], row-major; one step is ``Y = I + alpha/2 W (I + Y)``.

    iterations : steps from ``Y = I + alpha W``. The paper takes 2 and the result is orthogonal only
        for small logits: for standard normal ones max |Y^T Y - I| is 2e-3 at the median, for four
        times larger ones 0.3, and the iteration begins to diverge.
    alpha : step size.
    exact : solve for the fixed point instead. Another function than 2 iterations.

    Row sums of an orthogonal matrix are not 1. Starts at S = 0, the identity.
    """

    name = "cayley"
    paper = "JPmHC, 2602.18308"
    invariants = frozenset({"negative_entries"})

    iterations: int = 2
    alpha: float = 0.1
    exact: bool = False

    def __post_init__(self) -> None:
        if self.iterations < 0:
            raise ValueError(f"mixer 'cayley': iterations must be >= 0, got {self.iterations}")

    def stated_invariants(self) -> frozenset[str]:
        return self.invariants | {"orthogonal"} if self.exact else self.invariants

    def logit_count(self, n: int) -> int:
        return n * n

    def initial_logits(self, n: int) -> Tensor:
        return torch.zeros(n * n)

    def permute_logits(self, logits: Tensor, permutation: Sequence[int], n: int) -> Tensor:
        return permute_matrix(logits, permutation, n)

    def map(self, logits: Tensor, n: int) -> Tensor:
        s = logits.unflatten(-1, (n, n))
        w = self.alpha * (s - s.mT)
        eye = identity_like(w)
        if self.exact:
            return torch.linalg.solve_ex(eye - w / 2, eye + w / 2).result
        y = eye + w
        for _ in range(self.iterations):
            y = eye + torch.matmul(w, eye + y) / 2
        return y
