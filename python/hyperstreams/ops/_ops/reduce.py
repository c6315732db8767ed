"""The sum over streams: read's kernel with ones; its adjoint is expand's kernel."""

from __future__ import annotations

from torch import Tensor

from .. import reference
from .._register import differentiable, stand_in
from .expand import _expand
from .read import _read


def _sum_streams(x: Tensor) -> Tensor:
    return _read(x, x.new_ones(x.shape[-2], dtype=reference.accumulate_dtype(x)))


sum_streams = differentiable(
    "SumStreams",
    tensors=1,
    forward=_sum_streams,
    gradient=lambda grads, x: (_expand(grads[0], x.shape[-2], None, None),),
    reference=reference.reduce,
    forget=lambda x: (stand_in(x),),
)
