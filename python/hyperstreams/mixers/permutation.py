"""Exactly doubly stochastic H_res as a mixture of all n! permutations (mHC-lite, 2601.05732)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from math import factorial
from typing import Literal

import torch
from torch import Tensor

from .base import Mixer


def permutation_table(n: int) -> tuple[tuple[int, ...], ...]:
    """All permutations of 0..n-1 in lexicographic order; the identity is first."""
    return tuple(permutations(range(n)))


@dataclass(frozen=True)
class Permutation(Mixer):
    """``M = sum_k softmax(logits)_k P_k`` with ``P_k[r, c] = 1 iff c = permutation_k(r)``.

    orientation : ``"destination_rows"``: h_res = M. ``"source_rows"``: h_res = M transposed, as the
        released code applies it (a weight then acts through the inverse permutation).
    """

    name = "permutation"
    paper = "mHC-lite, 2601.05732"
    invariants = frozenset({"doubly_stochastic", "nonnegative"})
    fused_map = "permutation"
    max_streams = 5

    orientation: Literal["destination_rows", "source_rows"] = "destination_rows"

    def __post_init__(self) -> None:
        if self.orientation not in ("destination_rows", "source_rows"):
            raise ValueError(
                "mixer 'permutation': orientation must be 'destination_rows' or 'source_rows', "
                f"got {self.orientation!r}"
            )

    def logit_count(self, n: int) -> int:
        return factorial(n)

    def initial_logits(self, n: int) -> Tensor:
        logits = torch.full((factorial(n),), -8.0)
        logits[0] = 0.0
        return logits

    def check(self, n: int) -> None:
        if n > self.max_streams:
            raise ValueError(
                f"mixer 'permutation': n_streams must be in 1..{self.max_streams}, got {n}: it has "
                "one logit per permutation, n! of them. Mixers for more streams: 'kronecker', "
                "'circulant', 'spectral', 'transport', 'sinkhorn'"
            )
        super().check(n)

    def permute_logits(self, logits: Tensor, permutation: Sequence[int], n: int) -> Tensor:
        # P_k becomes the permutation matrix of p^-1 o permutation_k o p.
        table = permutation_table(n)
        inverse = sorted(range(n), key=permutation.__getitem__)
        place = {tuple(inverse[q[r]] for r in permutation): k for k, q in enumerate(table)}
        return logits[..., torch.tensor([place[q] for q in table], device=logits.device)]

    def map(self, logits: Tensor, n: int) -> Tensor:
        weights = torch.softmax(logits, dim=-1)
        table = torch.tensor(permutation_table(n), device=logits.device)
        matrices = torch.nn.functional.one_hot(table, n).to(weights.dtype)
        m = torch.einsum("...k,krc->...rc", weights, matrices)
        return m.transpose(-1, -2) if self.orientation == "source_rows" else m

    def fused_settings(self, n: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
        return (int(self.orientation == "source_rows"),), ()
