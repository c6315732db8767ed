"""Sums over the history of a token's hidden states."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def weighted_sum(values: Sequence[Tensor], weights: Tensor) -> Tensor:
    """``sum_i weights[..., i] values[i]``; values ``[..., C]``, weights ``[m]`` or ``[..., m]``.

    The history is never stacked: that would copy it, and autograd would keep the copy, once per
    site. Here autograd keeps the values themselves. Accumulated in the weights' dtype.
    """
    columns = weights.unsqueeze(-1).unbind(-2)
    total = columns[0] * values[0]
    for column, value in zip(columns[1:], values[1:], strict=True):
        total = torch.addcmul(total, column, value)
    return total.to(values[0].dtype)
