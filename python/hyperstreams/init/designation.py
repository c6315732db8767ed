"""Which stream a site favours at first."""

from __future__ import annotations

import torch
from torch import Tensor

from .._errors import check_choice

DESIGNATION_SCHEMES = ("random", "fixed", "round_robin", "none")
"""How a site picks the stream that its initial read and write weights favour."""


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
