"""How an embedding becomes streams: ``x[i] = h * scale[i] + bias[i]``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .random import normal


def learned_stream_scale(
    n_streams: int,
    width: int,
    *,
    base: float = 0.6,
    noise: float = 1.0,
    reference_width: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Initial Learned Stream Scaling ``[n, C]``: ``base + noise U(-b, b)``, ``b = sqrt(6/(n+C))``.

    The noise is Xavier-uniform over the ``(n, C)`` matrix, so at small widths it is larger than in
    the published models (``b`` = 0.088 at C = 768 and n = 4, 0.245 at C = 96). ``reference_width``
    takes the bound of that width instead: 768 gives a small model the published spread. ``noise=0``
    is the control that only scales. Source: 2606.03483.
    """
    bound = noise * math.sqrt(6.0 / (n_streams + (reference_width or width)))
    device = torch.device("cpu") if generator is None else generator.device
    scale = torch.empty(n_streams, width, device=device)
    return scale.uniform_(-bound, bound, generator=generator).add_(base)


def random_sign_scale(
    n_streams: int, width: int, *, base: float = 1.0, generator: torch.Generator | None = None
) -> Tensor:
    """``base`` times independent random signs ``[n, C]``: streams of equal norm, apart from 0."""
    device = torch.device("cpu") if generator is None else generator.device
    bits = torch.randint(2, (n_streams, width), generator=generator, device=device)
    return base * (2.0 * bits - 1.0)


def orthogonal_scale(
    n_streams: int, width: int, *, base: float = 1.0, generator: torch.Generator | None = None
) -> Tensor:
    """Rows ``[n, C]`` orthogonal to each other, each of root mean square ``base``; needs n <= C.

    Random: the orthogonal factor of a normal matrix. Streams of an embedding whose channels are
    alike are then uncorrelated.
    """
    if n_streams > width:
        raise ValueError(
            f"orthogonal_scale: n_streams: expected at most width={width}, got {n_streams}"
        )
    q, r = torch.linalg.qr(normal((width, n_streams), 1.0, generator=generator))
    # The sign convention of QR differs between libraries.
    return (base * math.sqrt(width)) * (q * r.diagonal().sign()).T.contiguous()


@dataclass(frozen=True)
class ExpansionScheme:
    """One way to make streams of an embedding.

    summary : one line.
    target : what of ``h * scale + bias`` the scheme sets; None: neither, n copies.
    initial : ``initial(n_streams, width, base=, noise=, reference_width=, generator=)``, the values
        ``[n, C]``; it is given the options below that are not None.
    base, noise : default options; None: the scheme has no use for it.
    has_reference_width : the scheme takes ``reference_width``.
    learned : whether the values are trained unless said otherwise.
    """

    summary: str
    target: Literal["scale", "bias"] | None = None
    initial: Callable[..., Tensor] | None = None
    base: float | None = None
    noise: float | None = None
    has_reference_width: bool = False
    learned: bool = True


def _constant(n_streams: int, width: int, *, base: float, generator: object = None) -> Tensor:
    return torch.full((n_streams, width), base)


def _normal(
    n_streams: int, width: int, *, noise: float, generator: torch.Generator | None = None
) -> Tensor:
    return normal((n_streams, width), noise, generator=generator)


EXPANSION_SCHEMES: dict[str, ExpansionScheme] = {
    "replicate": ExpansionScheme("n copies: the streams start equal"),
    "learned_scale": ExpansionScheme(
        "Learned Stream Scaling (2606.03483): scale = base + Xavier-uniform times noise",
        "scale",
        learned_stream_scale,
        base=0.6,
        noise=1.0,
        has_reference_width=True,
    ),
    "unit_scale": ExpansionScheme(
        "Learned Stream Scaling around 1: breaks the symmetry, keeps the embedding's scale",
        "scale",
        learned_stream_scale,
        base=1.0,
        noise=1.0,
        has_reference_width=True,
    ),
    "constant_scale": ExpansionScheme(
        "scale = base everywhere: Learned Stream Scaling's change of scale without its symmetry",
        "scale",
        _constant,
        base=0.6,
    ),
    "random_sign": ExpansionScheme(
        "scale = base times a random sign per stream and channel",
        "scale",
        random_sign_scale,
        base=1.0,
    ),
    "orthogonal": ExpansionScheme(
        "scale with random rows orthogonal to each other, of root mean square base",
        "scale",
        orthogonal_scale,
        base=1.0,
    ),
    "embedding": ExpansionScheme(
        "copies plus a learned bias per stream, normal of deviation noise (0: equal at first)",
        "bias",
        _normal,
        noise=0.0,
    ),
    "noise": ExpansionScheme(
        "copies plus a constant bias per stream, normal of deviation noise",
        "bias",
        _normal,
        noise=0.01,
        learned=False,
    ),
}
"""Schemes by name. Those beside ``replicate`` and ``learned_scale`` are controls of the latter,
which changes symmetry and scale at once."""
