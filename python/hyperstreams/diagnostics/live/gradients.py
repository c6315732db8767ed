"""Gradients of the loss per stream and per coefficient, from a model (D24)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...nn import HyperConnection
from .hooks import hooks, tap_modules


class LogitGradients(NamedTuple):
    """Norm of the loss's gradient by the static logits of each site, ``[K]`` each."""

    read: Tensor
    write: Tensor
    mix: Tensor


def stream_gradients(model: nn.Module, tokens: Tensor, targets: Tensor) -> Tensor:
    """Gradient of the mean loss by the state before each site, then before the readout (D24).

    ``-> [K + 1, B, T, n, C]``. The model computes it itself: a zero is added to each state and the
    loss differentiated by it. Parameters keep their gradients, the model its mode; run it in
    evaluation mode for a deterministic answer. Streams that are read and mixed alike everywhere
    have equal gradients. :func:`~hyperstreams.diagnostics.activations.gradient_norm` summarises.
    """
    leaves: list[Tensor] = []

    def add_zero(value: Tensor, _: str) -> Tensor:
        leaves.append(torch.zeros_like(value, requires_grad=True))
        return value + leaves[-1]

    with hooks(model, {"*.hook_streams_in": add_zero}):
        loss = model(tokens, targets)[1]
    return torch.stack(torch.autograd.grad(loss, leaves))


def logit_gradients(model: nn.Module, tokens: Tensor, targets: Tensor) -> LogitGradients:
    """Norm of the mean loss's gradient by each site's static logits (D24).

    The gradient by a static logit is the sum over tokens of the gradients by the token's logits. 0
    for coefficients that are not trained, and for the mixer of the first site under replication
    with destination sums of exactly 1 (mHC-lite, KromHC): ``R X = X`` whatever R is, so that it
    cannot learn. After a finite Sinkhorn iteration (mHC) the sums still depend on the logits, and
    that is all this gradient sees.
    """
    sites = [m.connection for m in tap_modules(model).values() if isinstance(m, HyperConnection)]
    trained = [site.bias for site in sites if site.bias.requires_grad]
    loss = model(tokens, targets)[1]
    found = iter(torch.autograd.grad(loss, trained, allow_unused=True) if trained else ())
    rows = []
    for site in sites:
        gradient = next(found) if site.bias.requires_grad else None
        gradient = torch.zeros_like(site.bias) if gradient is None else gradient
        n = site.n_streams
        read, write = (
            activation.logit_count(n)
            for activation in (site.config.read_activation, site.config.write_activation)
        )
        parts = gradient.split([read, write, gradient.numel() - read - write])
        rows.append(torch.stack([part.norm() for part in parts]))
    return LogitGradients(*torch.stack(rows, dim=1))
