"""Doubly stochastic H_res by finitely many Sinkhorn rounds (mHC, 2512.24880)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .base import Mixer, permute_matrix


@dataclass(frozen=True)
class Sinkhorn(Mixer):
    """Alternating normalisation of a positive matrix M [n, n], ``iterations`` times each way.

    The logits are the stored matrix S, row-major. One round normalises both axes of M.

    start : how M begins.
        ``"exp"``      M = exp(S). Evaluated stably: equal to the log-domain iteration.
        ``"softmax"``  M = softmax(S, over its last axis) + eps, which counts as the first
                       normalisation of that axis (DeepSeek-V4's form).
    order : which axis a round normalises first: ``"columns_first"`` (over S's axis -2, then -1) or
        ``"rows_first"`` (over S's axis -1, then -2). With ``start="softmax"`` the order must be
        ``"rows_first"``: the softmax is the first row step.
    eps : added to every divisor (and to the softmax). 0 with ``start="exp"`` in the paper.
    orientation : ``"destination_rows"``: h_res = M. ``"source_rows"``: h_res = M transposed, for
        code bases that store S[source, destination].
    temperature : S is divided by it first.
    initial : initial logits ``(diagonal, off the diagonal)``.

    The sums of the axis normalised last are exact with eps = 0, those of the other are approximate:
    at finite iterations this is a function of its own, whose gradient is that of these steps.
    """

    name = "sinkhorn"
    paper = "mHC, 2512.24880, eq. 9 and 19"
    invariants = frozenset({"nonnegative"})
    fused_map = "sinkhorn"

    iterations: int = 20
    start: Literal["exp", "softmax"] = "exp"
    order: Literal["columns_first", "rows_first"] = "columns_first"
    eps: float = 0.0
    orientation: Literal["destination_rows", "source_rows"] = "destination_rows"
    temperature: float = 1.0
    initial: tuple[float, float] = (0.0, -8.0)

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ValueError(f"mixer 'sinkhorn': iterations must be >= 1, got {self.iterations}")
        if self.start not in ("exp", "softmax"):
            raise ValueError(
                f"mixer 'sinkhorn': start must be 'exp' or 'softmax', got {self.start!r}"
            )
        if self.order not in ("columns_first", "rows_first"):
            raise ValueError(
                "mixer 'sinkhorn': order must be 'columns_first' or 'rows_first', "
                f"got {self.order!r}"
            )
        if self.start == "softmax" and self.order != "rows_first":
            raise ValueError(
                "mixer 'sinkhorn': start='softmax' is itself a row step and needs "
                "order='rows_first', got 'columns_first'"
            )
        if self.orientation not in ("destination_rows", "source_rows"):
            raise ValueError(
                "mixer 'sinkhorn': orientation must be 'destination_rows' or 'source_rows', "
                f"got {self.orientation!r}"
            )
        if not self.eps >= 0.0:
            raise ValueError(f"mixer 'sinkhorn': eps must be >= 0, got {self.eps}")
        if not self.temperature > 0.0:
            raise ValueError(f"mixer 'sinkhorn': temperature must be > 0, got {self.temperature}")

    def stated_invariants(self) -> frozenset[str]:
        # An eps in the divisor spoils the sums; in the linear domain without one a sum may be 0.
        if self.eps > 0.0 or self.start == "softmax":
            return self.invariants
        rows_last = self.order == "columns_first"
        if self.orientation == "source_rows":
            rows_last = not rows_last
        return self.invariants | {"row_stochastic" if rows_last else "column_stochastic"}

    def logit_count(self, n: int) -> int:
        return n * n

    def initial_logits(self, n: int) -> Tensor:
        diagonal, off_diagonal = self.initial
        return torch.full((n, n), off_diagonal).fill_diagonal_(diagonal).flatten()

    def permute_logits(self, logits: Tensor, permutation: Sequence[int], n: int) -> Tensor:
        return permute_matrix(logits, permutation, n)

    def map(self, logits: Tensor, n: int) -> Tensor:
        s = logits.unflatten(-1, (n, n)) / self.temperature
        axes = [-2, -1] if self.order == "columns_first" else [-1, -2]
        steps = axes * self.iterations
        if self.start == "softmax":
            m = torch.softmax(s, dim=-1) + self.eps
            for axis in steps[1:]:
                m = m / (m.sum(dim=axis, keepdim=True) + self.eps)
        elif self.eps == 0.0:
            for axis in steps:
                s = s - torch.logsumexp(s, dim=axis, keepdim=True)
            m = s.exp()
        else:
            m = s.exp()
            for axis in steps:
                m = m / (m.sum(dim=axis, keepdim=True) + self.eps)
        return m.transpose(-1, -2) if self.orientation == "source_rows" else m

    def fused_settings(self, n: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
        return (
            self.iterations,
            int(self.start == "softmax"),
            int(self.order == "rows_first"),
            int(self.orientation == "source_rows"),
        ), (self.eps, self.temperature)
