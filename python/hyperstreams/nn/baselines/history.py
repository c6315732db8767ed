"""Sums over the history of a token's hidden states."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def weighted_sum(values: Sequence[Tensor], weights: Tensor) -> Tensor:
    """``sum_i weights[..., i] values[i]``; values ``[..., C]``, weights ``[m]`` or ``[..., m]``.

    The history is never stacked: that would copy it, and autograd would keep the copy, once per
    site. Here autograd keeps the values themselves. Accumulated in the weights' dtype.

    Cost per value and token: reads of value and sum, write of the sum, 3 C numbers (C where
    ``torch.compile`` fuses the sums). Measured, a chain of 32 static averages over all before them,
    2048 x 384 float32, one thread, forward and backward: 1.4 s and 99 MiB kept for the backward;
    stacked 4.0 s and 1776 MiB. At 8 averages 0.11 s and 27 MiB; 0.13 s and 156 MiB.
    """
    columns = weights.unsqueeze(-1).unbind(-2)
    total = columns[0] * values[0]
    for column, value in zip(columns[1:], values[1:], strict=True):
        total = torch.addcmul(total, column, value)
    return total.to(values[0].dtype)
