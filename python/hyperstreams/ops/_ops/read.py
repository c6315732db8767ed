"""read and reduce on the raw kernels `_read` and `_read_backward`."""

from __future__ import annotations

from torch import Tensor

from .. import reference
from .._batching import Coefficient, PerToken
from .._register import differentiable, register


def _read_fake(x: Tensor, h_pre: Tensor) -> Tensor:
    return x.new_empty(x.shape[:-2] + x.shape[-1:])


def _read_backward_fake(grad_u: Tensor, x: Tensor, h_pre: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), h_pre.new_empty(h_pre.shape)


_read = register("_read", fake=_read_fake, fold=(PerToken(2), Coefficient(1)))
_read_backward = register("_read_backward", fake=_read_backward_fake)

read = differentiable(
    "Read",
    tensors=2,
    forward=_read,
    gradient=lambda grads, x, h_pre: _read_backward(grads[0], x, h_pre),
    reference=reference.read,
)
