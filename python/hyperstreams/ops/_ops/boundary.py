"""boundary on the raw kernels `_boundary` and `_boundary_backward`.

What is absent (no write, no controller) is an empty tensor among the raw results.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import reference
from .._batching import Coefficient, PerToken
from .._coefficient_settings import CoefficientSettings
from .._register import differentiable, register
from .coefficients import IDENTITY, by_reference
from .project import EPS_POSITIONS


def _boundary_fake(
    x: Tensor,
    y: Tensor | None,
    h_res: Tensor | None,
    h_post: Tensor | None,
    write_bias: Tensor | None,
    phi: Tensor | None,
    norm_weight: Tensor | None,
    alpha: Tensor | None,
    bias: Tensor | None,
    read_weights: Tensor | None,
    eps: float,
    eps_position: int,
    map: int,
    settings: list[int],
    constants: list[float],
) -> tuple[Tensor, ...]:
    tokens, n, width = x.shape[:-2], x.shape[-2], x.shape[-1]
    x_out = x.new_empty((0,) if y is None else x.shape)
    u = x.new_empty((*tokens, width))
    if phi is None:
        empty = x.new_empty((0,), dtype=reference.accumulate_dtype(x))
        return (x_out, u, *[torch.empty_like(empty) for _ in range(5)])
    axes = (*tokens, n) if settings[0] else tokens
    return (
        x_out,
        u,
        phi.new_empty((*tokens, n)),
        phi.new_empty((*tokens, n)),
        phi.new_empty((0,) if map == IDENTITY else (*tokens, n, n)),
        phi.new_empty((*axes, phi.shape[0])),
        phi.new_empty(axes),
    )


def _boundary_backward_fake(
    grad_x_out: Tensor,
    grad_u: Tensor,
    grad_h_pre: Tensor,
    grad_h_post: Tensor,
    grad_h_res: Tensor,
    x: Tensor,
    y: Tensor | None,
    h_res: Tensor | None,
    h_post: Tensor | None,
    write_bias: Tensor | None,
    phi: Tensor | None,
    norm_weight: Tensor | None,
    alpha: Tensor | None,
    bias: Tensor | None,
    read_weights: Tensor | None,
    *saved: Any,
) -> tuple[Tensor, ...]:
    dtype = reference.accumulate_dtype(x)
    inputs = (y, h_res, h_post, write_bias, phi, norm_weight, alpha, bias, read_weights)
    return (
        x.new_empty(x.shape),
        *[x.new_empty((0,), dtype=dtype) if v is None else v.new_empty(v.shape) for v in inputs],
    )


_boundary = register(
    "_boundary",
    fake=_boundary_fake,
    fold=(
        PerToken(2),
        PerToken(1),
        Coefficient(2),
        Coefficient(1),
        *[None] * 5,
        Coefficient(1),
        *[None] * 5,
    ),
)
_boundary_backward = register("_boundary_backward", fake=_boundary_backward_fake)

_NO_CONTROLLER: tuple[int, tuple[int, ...], tuple[float, ...]] = (0, (), ())


def _raw_settings(
    eps: float, eps_position: int, encoded: CoefficientSettings | None
) -> tuple[Any, ...]:
    map_settings = _NO_CONTROLLER if encoded is None else encoded[1:]
    return (eps, eps_position, *map_settings)


def _forward(*arguments: Any) -> tuple[Tensor, ...]:
    tensors, (eps, eps_position, encoded) = arguments[:10], arguments[10:13]
    return _boundary(*tensors, *_raw_settings(eps, eps_position, encoded))


def _gradient(grads: tuple[Tensor, ...], *arguments: Any) -> tuple[Tensor | None, ...]:
    tensors, (eps, eps_position, encoded) = arguments[:10], arguments[10:13]
    h_pre, logits, inv_rms = arguments[-3:]
    found = _boundary_backward(
        *grads, *tensors, logits, inv_rms, h_pre, *_raw_settings(eps, eps_position, encoded)
    )
    return tuple(None if t is None else g for t, g in zip(tensors, found, strict=True))


def _reference(
    x: Tensor,
    y: Tensor | None,
    h_res: Tensor | None,
    h_post: Tensor | None,
    write_bias: Tensor | None,
    phi: Tensor | None,
    norm_weight: Tensor | None,
    alpha: Tensor | None,
    bias: Tensor | None,
    read_weights: Tensor | None,
    eps: float,
    eps_position: int,
    encoded: CoefficientSettings | None,
    settings: tuple[Any, ...],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As the kernel has it."""
    x_out = x.new_empty(0)
    if y is not None:
        assert h_post is not None
        x = x_out = reference.mix_write(x, y, h_res, h_post, write_bias)
    empty = x.new_empty(0, dtype=reference.accumulate_dtype(x))
    h_pre, next_post, next_res = empty, empty.clone(), empty.clone()
    if phi is not None:
        assert alpha is not None
        assert bias is not None
        per_stream = settings[-1]
        logits, inv_rms = reference.project(
            x.unsqueeze(-2) if per_stream else x,
            phi,
            norm_weight,
            eps=eps,
            eps_position=EPS_POSITIONS[eps_position],
        )
        h_pre, next_post, mix = by_reference(logits, inv_rms, alpha, bias, *settings)
        next_res = next_res if mix is None else mix
    u = reference.read(x, h_pre if read_weights is None else read_weights)
    return x_out, u, h_pre, next_post, next_res


boundary = differentiable(
    "Boundary",
    tensors=10,
    forward=_forward,
    gradient=_gradient,
    reference=_reference,
    saved_outputs=(2, 5, 6),
    auxiliary=2,
)
"""``boundary(x, y, h_res, h_post, write_bias, phi, norm_weight, alpha, bias, read_weights, eps,
eps_position, encoded, settings)``, the settings being those of ``coefficients``. Without phi they
are None and (), and read_weights is given."""
