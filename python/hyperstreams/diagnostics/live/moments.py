"""Count, mean, variance and range of numbers that arrive in parts."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """Weighted moments of the values seen so far, in double precision; nan values are left out.

    ``count`` is the sum of weights (the number of values where none are given), ``m2`` the weighted
    sum of squared deviations from ``mean``. Parts are merged by Chan's pairwise rule: the result
    does not depend on order or split but for rounding. Immutable.
    """

    count: float = 0.0
    mean: float = 0.0
    m2: float = 0.0
    min: float = math.inf
    max: float = -math.inf

    @staticmethod
    def of(values: Tensor | Iterable[float], weights: Tensor | None = None) -> Moments:
        """Moments of ``values``, any shape; ``weights`` of the same shape, 0 leaves a value out."""
        x = torch.as_tensor(
            values if isinstance(values, Tensor) else list(values), dtype=torch.float64
        )
        x = x.detach().flatten().cpu()
        w = torch.ones_like(x) if weights is None else weights.detach().double().flatten().cpu()
        if w.shape != x.shape:
            raise ValueError(
                f"Moments.of: weights: expected one per value ({x.numel()}), got {w.numel()}"
            )
        keep = ~x.isnan() & (w > 0)
        x, w = x[keep], w[keep]
        if x.numel() == 0:
            return Moments()
        count = w.sum()
        mean = (w * x).sum() / count
        m2 = (w * (x - mean).square()).sum()
        return Moments(*(float(v) for v in (count, mean, m2, x.min(), x.max())))

    def merge(self, other: Moments) -> Moments:
        """Moments of both parts together."""
        count = self.count + other.count
        if count == 0:
            return self
        delta = other.mean - self.mean
        return Moments(
            count,
            self.mean + delta * other.count / count,
            self.m2 + other.m2 + delta * delta * self.count * other.count / count,
            min(self.min, other.min),
            max(self.max, other.max),
        )

    @property
    def variance(self) -> float:
        """``m2 / count``; nan when nothing was counted."""
        return self.m2 / self.count if self.count else math.nan
