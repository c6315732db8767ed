"""What a mixer is: a named map from logits to the residual mixing matrix H_res."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor


class Mixer(ABC):
    """Map from mixer logits ``[..., logit_count(n)]`` to ``h_res [..., n, n]``.

    Orientation: ``h_res[j, i]`` is the weight from source stream ``i`` to destination stream ``j``.

    A mixer is immutable data: equal settings give equal mixers, so that it can be part of a
    compiled graph's key. Subclasses are frozen dataclasses whose fields are the settings.

    Class attributes
    ----------------
    name : key in the registry.
    paper : the source of the formula.
    invariants : properties of every ``h_res``, from which tests are generated. Known words:
        ``"identity"``, ``"row_stochastic"`` (destination sums are 1), ``"column_stochastic"``
        (source sums are 1), ``"doubly_stochastic"``, ``"nonnegative"``.
    fused_map : name of the kernel map that computes the same function, or None when only PyTorch
        knows this mixer (``read``, ``mix_write`` and ``project`` are fused all the same).
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

    def group_sizes(self, n: int) -> tuple[int, ...]:
        """Sizes of the logit groups that have an ``alpha`` of their own, in logit order."""
        count = self.logit_count(n)
        return (count,) if count else ()

    def fused_settings(self, n: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Integers and floats that ``fused_map`` is configured with."""
        return (), ()

    def check(self, n: int) -> None:
        """Raise ValueError when this mixer does not exist for ``n`` streams."""
        if not 1 <= n <= self.max_streams:
            raise ValueError(
                f"mixer {self.name!r}: n_streams must be in 1..{self.max_streams}, got {n}"
            )
