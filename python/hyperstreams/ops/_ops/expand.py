"""expand on the raw kernels `_expand` and `_expand_backward`."""

from __future__ import annotations

from torch import Tensor

from .. import reference
from .._batching import PerToken
from .._register import differentiable, register, stand_in


def _expand_fake(h: Tensor, n_streams: int, scale: Tensor | None, bias: Tensor | None) -> Tensor:
    return h.new_empty((*h.shape[:-1], n_streams, h.shape[-1]))


def _expand_backward_fake(
    grad_x: Tensor, h: Tensor, n_streams: int, scale: Tensor | None, has_bias: bool
) -> tuple[Tensor, Tensor, Tensor]:
    dtype = reference.accumulate_dtype(h)
    return (
        h.new_empty(h.shape),
        h.new_empty((0,) if scale is None else scale.shape, dtype=dtype),
        h.new_empty((n_streams, h.shape[-1]) if has_bias else (0,), dtype=dtype),
    )


_expand = register("_expand", fake=_expand_fake, fold=(PerToken(1), None, None, None))
_expand_backward = register("_expand_backward", fake=_expand_backward_fake)


def _gradient(
    grads: tuple[Tensor], h: Tensor, scale: Tensor | None, bias: Tensor | None, n_streams: int
) -> tuple[Tensor | None, ...]:
    grad_x = grads[0]
    if scale is None:  # only the shape of h matters, and the stand-in would be copied
        h = grad_x.select(-2, 0)
    grad_h, grad_scale, grad_bias = _expand_backward(grad_x, h, n_streams, scale, bias is not None)
    return grad_h, None if scale is None else grad_scale, None if bias is None else grad_bias


def _forget(
    h: Tensor, scale: Tensor | None, bias: Tensor | None, n_streams: int
) -> tuple[Tensor | None, ...]:
    return stand_in(h) if scale is None else h, scale, bias


expand = differentiable(
    "Expand",
    tensors=3,
    forward=lambda h, scale, bias, n_streams: _expand(h, n_streams, scale, bias),
    gradient=_gradient,
    reference=lambda h, scale, bias, n_streams: reference.expand(h, n_streams, scale, bias),
    forget=_forget,
)
