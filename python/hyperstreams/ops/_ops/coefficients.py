"""coefficients on the raw kernels `_coefficients` and `_coefficients_backward`."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...mixers import Mixer
from .. import reference
from .._batching import PerToken
from .._coefficient_settings import MAPS, CoefficientSettings
from .._register import differentiable, register
from ..settings import Activation

IDENTITY = MAPS["identity"]


def _coefficients_fake(
    logits: Tensor,
    inv_rms: Tensor | None,
    alpha: Tensor,
    bias: Tensor,
    n_streams: int,
    map: int,
    settings: list[int],
    constants: list[float],
) -> tuple[Tensor, Tensor, Tensor]:
    per_stream = settings[0]
    tokens, n = logits.shape[: -2 if per_stream else -1], n_streams
    h_res = (0,) if map == IDENTITY else (*tokens, n, n)
    return logits.new_empty((*tokens, n)), logits.new_empty((*tokens, n)), logits.new_empty(h_res)


def _coefficients_backward_fake(
    grad_h_pre: Tensor,
    grad_h_post: Tensor,
    grad_h_res: Tensor | None,
    logits: Tensor,
    inv_rms: Tensor | None,
    alpha: Tensor,
    bias: Tensor,
    h_pre: Tensor | None,
    h_post: Tensor | None,
    n_streams: int,
    map: int,
    settings: list[int],
    constants: list[float],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        logits.new_empty(logits.shape),
        logits.new_empty((0,) if inv_rms is None else inv_rms.shape),
        alpha.new_empty(alpha.shape),
        bias.new_empty(bias.shape),
    )


_coefficients = register(
    "_coefficients", fake=_coefficients_fake, fold=(PerToken(1), PerToken(0), *[None] * 6)
)
_coefficients_backward = register("_coefficients_backward", fake=_coefficients_backward_fake)


def by_reference(
    logits: Tensor,
    inv_rms: Tensor | None,
    alpha: Tensor,
    bias: Tensor,
    mixer: Mixer,
    n_streams: int,
    read_activation: Activation,
    write_activation: Activation,
    mix_activation: Activation,
    per_stream: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The reference with the mixer's own ``map``."""
    return reference.coefficients(
        logits,
        inv_rms,
        alpha,
        bias,
        n_streams=n_streams,
        mixer_map=lambda z: mixer.map(z, n_streams),
        group_sizes=mixer.group_sizes(n_streams),
        read_activation=read_activation,
        write_activation=write_activation,
        mix_activation=mix_activation,
        per_stream=per_stream,
    )


def _forward(
    logits: Tensor,
    inv_rms: Tensor | None,
    alpha: Tensor,
    bias: Tensor,
    encoded: CoefficientSettings,
    settings: tuple[Any, ...],
) -> tuple[Tensor, ...]:
    outputs = _coefficients(logits, inv_rms, alpha, bias, *encoded)
    return outputs[:2] if encoded.map == IDENTITY else outputs


def _gradient(
    grads: tuple[Tensor, ...],
    logits: Tensor,
    inv_rms: Tensor | None,
    alpha: Tensor,
    bias: Tensor,
    encoded: CoefficientSettings,
    settings: tuple[Any, ...],
    h_pre: Tensor,
    h_post: Tensor,
) -> tuple[Tensor | None, ...]:
    grad_h_res = None if encoded.map == IDENTITY else grads[2]
    grad_logits, grad_inv_rms, grad_alpha, grad_bias = _coefficients_backward(
        grads[0], grads[1], grad_h_res, logits, inv_rms, alpha, bias, h_pre, h_post, *encoded
    )
    return grad_logits, None if inv_rms is None else grad_inv_rms, grad_alpha, grad_bias


def _reference(
    logits: Tensor,
    inv_rms: Tensor | None,
    alpha: Tensor,
    bias: Tensor,
    encoded: CoefficientSettings,
    settings: tuple[Any, ...],
) -> tuple[Tensor, ...]:
    h_pre, h_post, h_res = by_reference(logits, inv_rms, alpha, bias, *settings)
    return (h_pre, h_post) if h_res is None else (h_pre, h_post, h_res)


coefficients = differentiable(
    "Coefficients",
    tensors=4,
    forward=_forward,
    gradient=_gradient,
    reference=_reference,
    saved_outputs=(0, 1),
)
"""``coefficients(logits, inv_rms, alpha, bias, encoded, settings)``, the settings being
those of ``coefficient_settings``; without ``h_res`` where the mixer is the identity."""
