"""mix_write on the raw kernels `_mix_write` and `_mix_write_backward`."""

from __future__ import annotations

from torch import Tensor

from .. import reference
from .._batching import Coefficient, PerToken
from .._register import differentiable, register, stand_in


def _mix_write_fake(
    x: Tensor, y: Tensor, h_res: Tensor | None, h_post: Tensor, bias: Tensor | None
) -> Tensor:
    return x.new_empty(x.shape)


def _mix_write_backward_fake(
    grad_out: Tensor,
    x: Tensor,
    y: Tensor,
    h_res: Tensor | None,
    h_post: Tensor,
    bias: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return (
        x.new_empty(x.shape),
        y.new_empty(y.shape),
        h_post.new_empty((0,) if h_res is None else h_res.shape),
        h_post.new_empty(h_post.shape),
        h_post.new_empty((0,) if bias is None else bias.shape),
    )


_mix_write = register(
    "_mix_write",
    fake=_mix_write_fake,
    fold=(PerToken(2), PerToken(1), Coefficient(2), Coefficient(1), None),
)
_mix_write_backward = register("_mix_write_backward", fake=_mix_write_backward_fake)


def _gradient(
    grads: tuple[Tensor],
    x: Tensor,
    y: Tensor,
    h_res: Tensor | None,
    h_post: Tensor,
    bias: Tensor | None,
) -> tuple[Tensor | None, ...]:
    grad_x, grad_y, grad_h_res, grad_h_post, grad_bias = _mix_write_backward(
        grads[0], x, y, h_res, h_post, bias
    )
    return (
        grad_x,
        grad_y,
        None if h_res is None else grad_h_res,
        grad_h_post,
        None if bias is None else grad_bias,
    )


def _forget(
    x: Tensor, y: Tensor, h_res: Tensor | None, h_post: Tensor, bias: Tensor | None
) -> tuple[Tensor | None, ...]:
    return stand_in(x) if h_res is None else x, y, h_res, h_post, bias


mix_write = differentiable(
    "MixWrite",
    tensors=5,
    forward=_mix_write,
    gradient=_gradient,
    reference=reference.mix_write,
    forget=_forget,
)
