"""The streams as vectors, in pure functions: norms, cosines, differential energy, curvature.

Most follow from the extended Gram matrix ``G = V V'``, ``V = [x_0 .. x_{n-1}; y]``, of one token,
so that a capture needs no second pass over the width.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _single(x: Tensor) -> Tensor:
    """At least single precision: differences and products of half precision mean little."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def extended_gram(x: Tensor, y: Tensor) -> Tensor:
    """Inner products of streams and branch output: ``[..., n, C], [..., C] -> [..., n+1, n+1]``."""
    rows = _single(torch.cat([x, y.unsqueeze(-2)], dim=-2))
    return rows @ rows.transpose(-1, -2)


def next_gram(gram: Tensor, h_res: Tensor, h_post: Tensor) -> Tensor:
    """Gram matrix of the streams after a site: ``[R|q] G [R|q]'`` (the Gram chain), exact.

    ``gram [..., n+1, n+1], h_res [..., n, n], h_post [..., n] -> [..., n, n]``. Compare it with the
    Gram matrix that the next site sees to test a whole capture chain.
    """
    map_ = torch.cat([h_res, h_post.unsqueeze(-1)], dim=-1)
    return map_ @ gram @ map_.transpose(-1, -2)


def stream_norm(gram: Tensor) -> Tensor:
    """L2 norm of each row (D14): square roots of the diagonal, ``[..., m, m] -> [..., m]``."""
    return gram.diagonal(dim1=-2, dim2=-1).sqrt()


def norm_share(norm: Tensor) -> Tensor:
    """``|x_i| / sum_r |x_r|`` (D14) over the last axis; 1/n for copies. All zero: zeros.

    Initial value before the first site: 1/n under replication. Null: 1/n.
    """
    total = norm.sum(dim=-1, keepdim=True)
    return torch.where(total == 0, 0.0, norm / torch.where(total == 0, 1.0, total))


def stream_cosine(gram: Tensor) -> Tensor:
    """``cos(x_i, x_r)`` of one token (D16): ``[..., m, m] -> [..., m, m]``.

    1 for replicated streams (site L0a without stream scaling), 0 for orthogonal ones. Learned
    Stream Scaling starts at 0.993 (n = 4, C = 768). Pairs with a zero stream give 0.
    """
    norm = stream_norm(gram)
    scale = norm.unsqueeze(-1) * norm.unsqueeze(-2)
    return torch.where(scale == 0, 0.0, gram / torch.where(scale == 0, 1.0, scale))


def centred_cosine(x: Tensor) -> Tensor:
    """Cosine between streams after subtracting each stream's token mean (D16).

    ``x [tokens..., n, C] -> [n, n]``, averaged over tokens. Unlike :func:`stream_cosine` it does
    not see a vector that all tokens share.
    """
    tokens = x.reshape(-1, *x.shape[-2:])
    centred = tokens - tokens.mean(dim=0)
    return stream_cosine(centred @ centred.transpose(-1, -2)).mean(dim=0)


def differential_energy(gram: Tensor) -> Tensor:
    """``1 - n |mean_i x_i|**2 / sum_i |x_i|**2`` of one token (D16): ``[..., n, n] -> [...]``.

    The part of the state's energy in which streams differ: 0 for copies, 1 for streams that sum to
    zero, ``1 - 1/n`` for orthogonal streams of equal norm, which is also the null of independent
    ones. Initial value before the first site: 0 under replication. An all-zero state gives 0.
    """
    n = gram.shape[-1]
    energy = gram.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    common = gram.sum(dim=(-2, -1)) / n
    return torch.where(energy == 0, 0.0, 1 - common / torch.where(energy == 0, 1.0, energy))


def _mean_angle(v: Tensor) -> tuple[Tensor, Tensor]:
    """Mean angle between ``v[..., t, :, :]`` and its successor per stream; pairs counted."""
    norm = v.norm(dim=-1)
    scale = norm[..., :-1, :] * norm[..., 1:, :]
    counted = scale > 0
    inner = (v[..., :-1, :, :] * v[..., 1:, :, :]).sum(dim=-1)
    cosine = (inner / torch.where(counted, scale, 1.0)).clamp(-1.0, 1.0)
    axes = tuple(range(scale.ndim - 1))
    count = counted.sum(dim=axes)
    return torch.where(counted, cosine.acos(), 0.0).sum(dim=axes) / count, count


def token_curvature(x: Tensor, *, step: int = 1) -> tuple[Tensor, Tensor]:
    """Mean angle in radians between successive differences along the tokens (D15).

    ``v_t = x_{t+step} - x_t``; angle of ``v_t`` and ``v_{t+step}``. ``x [..., T, n, C] -> [n]``
    and the number of angles counted; zero-length steps are skipped, not called 90 degrees.
    Invariant to scale, shift and rotation. Straight line 0; independent tokens 120 degrees; random
    walk 90; AR(1) with coefficient rho ``arccos(-(1 - rho) / 2)``. No count: nan.
    Source: Hosseini and Fedorenko (2311.04930), as cited by 2606.03483.
    """
    if step < 1:
        raise ValueError(f"token_curvature: step: expected at least 1, got {step}")
    x = _single(x)
    if step == 1:
        return _mean_angle(x.diff(dim=-3))
    parts = [_mean_angle(x[..., start::step, :, :].diff(dim=-3)) for start in range(step)]
    counts = torch.stack([count for _, count in parts])
    angles = torch.stack([angle for angle, _ in parts])
    total = torch.where(counts > 0, angles, 0.0) * counts
    return total.sum(dim=0) / counts.sum(dim=0), counts.sum(dim=0)


def position_curvature(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean angle in radians between the states of successive tokens (D15p), and the pairs counted.

    ``x [..., T, n, C] -> [n]``. Not shift invariant: a vector that all tokens share shrinks it.
    Independent tokens 90 degrees. Source: released code of *Layer by Layer* (2502.02013).
    """
    return _mean_angle(_single(x))
