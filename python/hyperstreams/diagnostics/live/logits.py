"""The logits of every site, static and dynamic part, on given streams (D10, D28)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...nn import HyperConnection
from .hooks import tap_modules


class LogitParts(NamedTuple):
    """Logits of one kind of coefficient: ``static [K, m]`` and what tokens add, ``[K, ..., m]``."""

    static: Tensor
    dynamic: Tensor

    @property
    def total(self) -> Tensor:
        """What the activation or mixer receives, ``[K, ..., m]``."""
        lead = (1,) * (self.dynamic.ndim - 2)
        return self.dynamic + self.static.reshape(len(self.static), *lead, -1)


class SiteLogits(NamedTuple):
    """What :func:`site_logits` gives; m is n for read and write, the mixer's own count for mix."""

    read: LogitParts
    write: LogitParts
    mix: LogitParts


@torch.no_grad()
def site_logits(model: nn.Module, streams: Tensor) -> SiteLogits:
    """Logits that each site makes of the state before it (D10, D28).

    ``streams [K or K + 1, ..., n, C]``: ``Trace.streams``. Static is the site's bias, dynamic the
    rest: ``alpha z``, or ``alpha act(z)`` where the activation comes before (HC). For
    :func:`~hyperstreams.diagnostics.composite.logit_range` take ``mix.total``, for
    :func:`~hyperstreams.diagnostics.variation.static_share` the parts. Initial value: dynamic parts
    are 0 where controllers start at zero. Raises ValueError for models without
    ``nn.HyperConnection`` sites, too few states, and coefficients made of n*n logits.
    """
    sites = [m.connection for m in tap_modules(model).values() if isinstance(m, HyperConnection)]
    if len(streams) < len(sites):
        raise ValueError(
            f"site_logits: streams: expected at least {len(sites)} states, got {len(streams)}"
        )
    static: list[list[Tensor]] = [[], [], []]
    dynamic: list[list[Tensor]] = [[], [], []]
    for site, x in zip(sites, streams, strict=False):
        n, found = site.n_streams, site.logits(x)
        biases = site.bias.split([n, n, site.bias.numel() - 2 * n])
        for k, (total, bias) in enumerate(zip(found, biases, strict=True)):
            static[k].append(bias)
            dynamic[k].append((total - bias).expand(*x.shape[:-2], -1))
    return SiteLogits(
        *(
            LogitParts(torch.stack(bias), torch.stack(rest))
            for bias, rest in zip(static, dynamic, strict=True)
        )
    )
