"""Initial values: designated streams, static coefficients, expansion. Pure functions.

Random values come from the given ``torch.Generator`` (None is PyTorch's default generator) and are
drawn in float32 on the generator's device, so that one CPU generator gives the same model on every
device and in every dtype.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ._errors import check_choice

DESIGNATION_SCHEMES = ("random", "fixed", "round_robin", "none")
"""How a site picks the stream that its initial read and write weights favour."""

EXPANSION_SCHEMES = ("replicate", "learned_scale", "embedding", "noise")
"""How an embedding becomes streams."""


def designated_stream(
    scheme: str,
    n_streams: int,
    *,
    site_index: int | None = None,
    generator: torch.Generator | None = None,
) -> int:
    """The stream a site favours at initialisation, or -1 for none.

    ``"random"``: drawn from the generator, as released for mHC and mHC-lite (there from an unseeded
    generator). ``"fixed"``: stream 0. ``"round_robin"``: ``site_index mod n_streams``, counted over
    attention and MLP sites alike (HC, 2409.19606). ``"none"``: all streams start alike.
    """
    check_choice("designated_stream", "scheme", scheme, DESIGNATION_SCHEMES)
    if scheme == "none":
        return -1
    if scheme == "fixed":
        return 0
    if scheme == "round_robin":
        if site_index is None:
            raise ValueError(
                "designated_stream: site_index: expected an int with scheme 'round_robin', got None"
            )
        return site_index % n_streams
    device = torch.device("cpu") if generator is None else generator.device
    return int(torch.randint(n_streams, (1,), generator=generator, device=device).item())


def stream_bias(n_streams: int, *, others: float, designated: float, stream: int) -> Tensor:
    """``[n]``: ``designated`` at index ``stream`` (-1: nowhere), ``others`` elsewhere."""
    bias = torch.full((n_streams,), others)
    if stream >= 0:
        bias[stream] = designated
    return bias


def normal(
    shape: tuple[int, ...], std: float, *, generator: torch.Generator | None = None
) -> Tensor:
    """Independent normal values of mean 0 and standard deviation ``std``, float32."""
    device = torch.device("cpu") if generator is None else generator.device
    return torch.empty(shape, device=device).normal_(0.0, std, generator=generator)


def xavier_uniform(shape: tuple[int, int], *, generator: torch.Generator | None = None) -> Tensor:
    """Independent values of ``U(-b, b)`` with ``b = sqrt(6 / (rows + columns))``, float32."""
    bound = math.sqrt(6.0 / sum(shape))
    device = torch.device("cpu") if generator is None else generator.device
    return torch.empty(shape, device=device).uniform_(-bound, bound, generator=generator)


def learned_stream_scale(
    n_streams: int,
    width: int,
    *,
    base: float = 0.6,
    noise: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Initial Learned Stream Scaling ``[n, C]``: ``base + noise U(-b, b)``, ``b = sqrt(6/(n+C))``.

    The noise is Xavier-uniform over the ``(n, C)`` matrix, so at small widths it is larger than in
    the published models (``b`` = 0.088 at C = 768 and n = 4, 0.245 at C = 96). Source: 2606.03483.
    """
    bound = noise * math.sqrt(6.0 / (n_streams + width))
    device = torch.device("cpu") if generator is None else generator.device
    scale = torch.empty(n_streams, width, device=device)
    return scale.uniform_(-bound, bound, generator=generator).add_(base)
