"""The coefficients a model started from, whatever it has become: the reference of every number."""

from __future__ import annotations

from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...nn import HyperConnection
from .hooks import tap_modules


class InitialCoefficients(NamedTuple):
    """Every site's static coefficients at the start: ``[K, n]``, ``[K, n]``, ``[K, n, n]``."""

    h_pre: Tensor
    h_post: Tensor
    h_res: Tensor


@torch.no_grad()
def initial_coefficients(model: nn.Module) -> InitialCoefficients:
    """Coefficients that a given, perhaps trained, model had before its first step.

    From each site's settings and the stream that it recorded as designated, with the token's part
    0, as published connections start (HC's and mHC's ``alpha`` or weights begin at or near 0). The
    initial value of any metric of coefficients is the metric of these: shares, effective streams,
    composites, contributions with :func:`~hyperstreams.diagnostics.ledger.ledger`, cut rank. The
    model is left alone. Raises ValueError for models without ``nn.HyperConnection`` sites. For
    metrics of streams trace a model built from the same config and generator instead.
    """
    rows = []
    for module in tap_modules(model).values():
        if not isinstance(module, HyperConnection):
            continue
        site = deepcopy(module.connection)
        stream = int(site.designated_stream)
        # Round robin favours stream site_index mod n, so this repeats the recorded draw.
        site.designate = "none" if stream < 0 else "round_robin"
        site.site_index = max(stream, 0)
        site.reset_parameters(generator=torch.Generator())
        if site.phi is not None:
            site.phi.zero_()
        # Any streams do: without a controller no coefficient depends on them.
        ramp = torch.arange(site.n_streams * site.width).to(site.bias) + 1.0
        h_pre, h_post, h_res = site.coefficients(ramp.reshape(1, site.n_streams, site.width))
        if h_res is None:
            h_res = torch.eye(site.n_streams).to(h_pre).expand(1, -1, -1)
        inner = (h_pre.shape[-1:], h_post.shape[-1:], h_res.shape[-2:])
        rows.append(
            [c.reshape(-1, *s)[0] for c, s in zip((h_pre, h_post, h_res), inner, strict=True)]
        )
    return InitialCoefficients(*(torch.stack(list(column)) for column in zip(*rows, strict=True)))
