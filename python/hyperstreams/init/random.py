"""Random values from a generator, in float32 on its device."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def normal(
    shape: tuple[int, ...], std: float, *, generator: torch.Generator | None = None
) -> Tensor:
    """Independent normal values of mean 0 and standard deviation ``std``, float32."""
    device = torch.device("cpu") if generator is None else generator.device
    return torch.empty(shape, device=device).normal_(0.0, std, generator=generator)


def xavier_uniform(shape: tuple[int, int], *, generator: torch.Generator | None = None) -> Tensor:
    """Independent values of ``U(-b, b)`` with ``b = sqrt(6 / (rows + columns))``, float32."""
    bound = math.sqrt(6.0 / sum(shape))
    device = torch.device("cpu") if generator is None else generator.device
    return torch.empty(shape, device=device).uniform_(-bound, bound, generator=generator)
