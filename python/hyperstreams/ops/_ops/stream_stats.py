"""stream_stats: sums by the raw kernel `_stream_stats`, ranges by PyTorch. It has no gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from .._register import register
from ..reference_stats import coefficient_ranges, stream_sums_size


def _stream_stats_fake(
    x: Tensor, y: Tensor | None, h_pre: Tensor | None, h_post: Tensor | None, h_res: Tensor | None
) -> Tensor:
    return x.new_empty(stream_sums_size(x.shape[-2]), dtype=torch.float64)


_stream_stats = register("_stream_stats", fake=_stream_stats_fake)


def stream_stats(
    x: Tensor, y: Tensor | None, h_pre: Tensor | None, h_post: Tensor | None, h_res: Tensor | None
) -> Tensor:
    sums = _stream_stats(*[None if t is None else t.detach() for t in (x, y, h_pre, h_post, h_res)])
    return torch.cat([sums, coefficient_ranges(x, h_pre, h_post, h_res)])
