"""project on the raw kernels `_project` and `_project_backward`."""

from __future__ import annotations

from typing import get_args

from torch import Tensor

from .. import reference
from .._batching import PerToken
from .._register import differentiable, register
from ..settings import EpsPosition

EPS_POSITIONS: tuple[str, ...] = get_args(EpsPosition)
"""The kernels' eps_position is the index in this list."""


def _project_fake(
    x: Tensor, phi: Tensor, norm_weight: Tensor | None, eps: float, eps_position: int
) -> tuple[Tensor, Tensor]:
    return phi.new_empty(x.shape[:-2] + phi.shape[:1]), phi.new_empty(x.shape[:-2])


def _project_backward_fake(
    grad_logits: Tensor,
    grad_inv_rms: Tensor,
    x: Tensor,
    phi: Tensor,
    norm_weight: Tensor | None,
    inv_rms: Tensor,
    eps: float,
    eps_position: int,
) -> tuple[Tensor, Tensor, Tensor]:
    grad_norm_weight = phi.new_empty(norm_weight.shape if norm_weight is not None else (0,))
    return x.new_empty(x.shape), phi.new_empty(phi.shape), grad_norm_weight


_project = register("_project", fake=_project_fake, fold=(PerToken(2), None, None, None, None))
_project_backward = register("_project_backward", fake=_project_backward_fake)


def _gradient(
    grads: tuple[Tensor, Tensor],
    x: Tensor,
    phi: Tensor,
    norm_weight: Tensor | None,
    eps: float,
    eps_position: int,
    inv_rms: Tensor,
) -> tuple[Tensor | None, ...]:
    grad_x, grad_phi, grad_norm_weight = _project_backward(
        *grads, x, phi, norm_weight, inv_rms, eps, eps_position
    )
    return grad_x, grad_phi, None if norm_weight is None else grad_norm_weight


def _reference(
    x: Tensor, phi: Tensor, norm_weight: Tensor | None, eps: float, eps_position: int
) -> tuple[Tensor, Tensor]:
    position = EPS_POSITIONS[eps_position]
    return reference.project(x, phi, norm_weight, eps=eps, eps_position=position)


project = differentiable(
    "Project",
    tensors=3,
    forward=_project,
    gradient=_gradient,
    reference=_reference,
    saved_outputs=(1,),
)
