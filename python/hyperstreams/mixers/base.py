"""What a mixer is: a named map from logits to the residual mixing matrix H_res."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

INVARIANTS: dict[str, str] = {
    "identity": "h_res = I",
    "nonnegative": "every entry is >= 0",
    "negative_entries": "for n >= 3 some logits give a negative entry",
    "unit_row_sums": "sum_i h_res[j, i] = 1 for every destination j",
    "unit_column_sums": "sum_j h_res[j, i] = 1 for every source i",
    "row_stochastic": "nonnegative with unit row sums",
    "column_stochastic": "nonnegative with unit column sums",
    "doubly_stochastic": "nonnegative with unit row and column sums",
    "orthogonal": "h_res h_res^T = I",
    "spectral_norm_one": "the largest singular value is 1",
    "spectral_norm_at_most_one": "no singular value exceeds 1",
    "symmetric": "h_res = h_res^T",
    "commuting": "the matrices of any two logit vectors commute",
}
"""The words a mixer states its invariants with. All but ``negative_entries`` hold for every finite
logits and every supported ``n``, to rounding."""


class Mixer(ABC):
    """Map from mixer logits ``[..., logit_count(n)]`` to ``h_res [..., n, n]``.

    Orientation: ``h_res[j, i]`` is the weight from source stream ``i`` to destination stream ``j``.

    A mixer is immutable data: equal settings give equal mixers, so that it can be part of a
    compiled graph's key. Subclasses are frozen dataclasses whose fields are the settings.

    Class attributes
    ----------------
    name : key in the registry.
    paper : the source of the formula.
    invariants : what holds for ``h_res``, in the words of :data:`INVARIANTS`, from which tests are
        generated. Stronger words need not be accompanied by the weaker ones that they imply.
    fused_map : name of the kernel map that computes the same function, or None when only PyTorch
        knows this mixer (``read``, ``mix_write`` and ``project`` are fused all the same). A mixer
        that has one for some ``n`` only overrides :meth:`fused_map_for`.
    max_streams : largest supported ``n``.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    invariants: ClassVar[frozenset[str]] = frozenset()
    fused_map: ClassVar[str | None] = None
    max_streams: ClassVar[int] = 16

    @abstractmethod
    def logit_count(self, n: int) -> int:
        """Number of mixer logits per token for ``n`` streams."""

    @abstractmethod
    def initial_logits(self, n: int) -> Tensor:
        """Published initial bias of the mixer logits, ``[logit_count(n)]`` float32."""

    @abstractmethod
    def map(self, logits: Tensor, n: int) -> Tensor | None:
        """``[..., logit_count(n)] -> [..., n, n]`` in logits' dtype; None is the identity."""

    def static_logit_count(self, n: int) -> int:
        """How many of the logits, the last ones, are static: the same for every token.

        They come from the bias alone: the controller has no rows for them and no ``alpha``.
        """
        return 0

    def group_sizes(self, n: int) -> tuple[int, ...]:
        """Sizes of the logit groups that have an ``alpha`` of their own, in logit order.

        They add up to ``logit_count(n) - static_logit_count(n)``.
        """
        count = self.logit_count(n) - self.static_logit_count(n)
        return (count,) if count else ()

    def stated_invariants(self) -> frozenset[str]:
        """``invariants``, and what holds with these settings only."""
        return self.invariants

    def fused_map_for(self, n: int) -> str | None:
        """``fused_map``, or None where the kernels do not compute it for ``n`` streams."""
        return self.fused_map

    def fused_settings(self, n: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Integers and floats that ``fused_map`` is configured with."""
        return (), ()

    def permute_logits(self, logits: Tensor, permutation: Sequence[int], n: int) -> Tensor | None:
        """``logits [..., K]`` such that streams are permuted: with ``p = permutation``,
        ``map(result)[j, i] = map(logits)[p[j], p[i]]``.

        Linear, and dynamic and static logits stay apart. None: this family is not closed under
        permutations of the streams, or not by a linear map of the logits.
        """
        return None

    def check(self, n: int) -> None:
        """Raise ValueError when this mixer does not exist for ``n`` streams."""
        if not 1 <= n <= self.max_streams:
            raise ValueError(
                f"mixer {self.name!r}: n_streams must be in 1..{self.max_streams}, got {n}"
            )


def permute_matrix(logits: Tensor, permutation: Sequence[int], n: int) -> Tensor:
    """``permute_logits`` of mixers whose logits are a matrix that they treat alike everywhere."""
    index = torch.tensor(permutation, device=logits.device)
    return logits.unflatten(-1, (n, n))[..., index, :][..., index].flatten(-2)
