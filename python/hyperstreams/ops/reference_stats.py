"""Definition of ``stream_stats``: per-site sums over tokens from which diagnostics are made."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def stream_stats_fields(n: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the packed statistics, in order: sums over tokens, then ranges.

    count: tokens. h_pre, h_post, h_res, h_res_square: the coefficients (and ``h_res**2``).
    read_share, write_share: ``|h| / sum |h|`` of h_pre and h_post; read_entropy, write_entropy:
    their entropies per token, in nats. read_signal_share: ``|h_pre[i]| |x_i|`` normalised over i;
    write_signal_share: ``h_post**2`` normalised. gram: products of the rows of ``[x; y]``;
    norm: their L2 norms. cosine: between streams. differential_energy:
    ``1 - n |mean_i x_i|^2 / sum_i |x_i|^2``. curvature: angle in radians between successive
    differences along the token axis (the one before n), summed over the triples counted
    in curvature_count (zero steps are skipped).
    position_curvature: angle between the states of successive tokens themselves, summed over the
    pairs counted in position_curvature_count (zero states are skipped).
    A normalised quantity with a zero denominator counts as 0.

    Ranges of ``h_pre``, ``h_post`` and ``h_res`` over tokens: ``_m2``, the sum of squared
    deviations from the token mean (exactly 0 for a static coefficient); ``_min`` and ``_max``
    (``inf`` and ``-inf`` without tokens).
    """
    ranges = {"h_pre": (n,), "h_post": (n,), "h_res": (n, n)}
    return _sum_fields(n) | {
        f"{name}_{part}": shape for part in ("m2", "min", "max") for name, shape in ranges.items()
    }


def _sum_fields(n: int) -> dict[str, tuple[int, ...]]:
    return {
        "count": (),
        "h_pre": (n,),
        "h_post": (n,),
        "h_res": (n, n),
        "h_res_square": (n, n),
        "read_share": (n,),
        "write_share": (n,),
        "read_entropy": (),
        "write_entropy": (),
        "read_signal_share": (n,),
        "write_signal_share": (n,),
        "gram": (n + 1, n + 1),
        "norm": (n + 1,),
        "cosine": (n, n),
        "differential_energy": (),
        "curvature": (n,),
        "curvature_count": (n,),
        "position_curvature": (n,),
        "position_curvature_count": (n,),
    }


def stream_stats_size(n: int) -> int:
    """Number of packed values for ``n`` streams."""
    return sum(math.prod(shape) for shape in stream_stats_fields(n).values())


def stream_sums_size(n: int) -> int:
    """Number of those that are sums: what the kernel gives."""
    return sum(math.prod(shape) for shape in _sum_fields(n).values())


def unpack_stream_stats(stats: Tensor, n: int) -> dict[str, Tensor]:
    """``[..., stream_stats_size(n)]`` to ``{field: [..., *shape]}`` views."""
    fields = stream_stats_fields(n)
    parts = stats.split([math.prod(shape) for shape in fields.values()], dim=-1)
    return {
        name: part.reshape(part.shape[:-1] + shape)
        for (name, shape), part in zip(fields.items(), parts, strict=True)
    }


def merge_stream_stats(stats: Tensor, n: int) -> Tensor:
    """Statistics ``[batches, ..., stream_stats_size(n)]`` of all batches together, ``[..., size]``.

    Sums are added, ranges joined, and squared deviations merged as by Chan et al. (1979):
    ``m2 = sum_b m2_b + count_b (mean_b - mean)**2``.
    """
    size = 2 * n + n * n
    sums, m2, low, high = stats.split([stats.shape[-1] - 3 * size, size, size, size], dim=-1)
    total = sums.sum(dim=0)
    count = sums[..., :1]
    gap = sums[..., 1 : 1 + size] / count - total[..., 1 : 1 + size] / total[..., :1]
    m2 = (m2 + torch.where(count == 0, 0.0, count * gap.square())).sum(dim=0)
    return torch.cat([total, m2, low.amin(dim=0), high.amax(dim=0)], dim=-1)


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    safe = torch.where(denominator == 0, 1.0, denominator)
    return torch.where(denominator == 0, 0.0, numerator / safe)


def _share(h: Tensor) -> Tensor:
    return _ratio(h, h.sum(dim=-1, keepdim=True))


def _entropy(share: Tensor) -> Tensor:
    return -torch.special.xlogy(share, share).sum(dim=-1)


def _angles(v: Tensor) -> tuple[Tensor, Tensor]:
    """Angles between successive vectors of ``v [..., T, n, C]``: sums and counts, each ``[n]``."""
    unit = functional.normalize(v, dim=-1, eps=0.0).nan_to_num(0.0)
    cosine = (unit[..., :-1, :, :] * unit[..., 1:, :, :]).sum(dim=-1).clamp(-1.0, 1.0)
    nonzero = (unit != 0).any(dim=-1)
    counted = (nonzero[..., :-1, :] & nonzero[..., 1:, :]).double()
    n = v.shape[-2]
    return (cosine.acos() * counted).reshape(-1, n).sum(0), counted.reshape(-1, n).sum(0)


def stream_stats(
    x: Tensor,
    y: Tensor | None,
    h_pre: Tensor | None,
    h_post: Tensor | None,
    h_res: Tensor | None,
) -> Tensor:
    """Packed float64 ``[stream_stats_size(n)]`` of one site; see :func:`stream_stats_fields`.

    ``x [..., n, C]``; its axis before n is the sequence. What is None contributes zeros, except
    that ``h_res=None`` beside a given ``h_post`` is the identity. Not differentiable.
    """
    n, width = x.shape[-2:]
    x = x.detach().double()
    sequence = x if x.ndim >= 3 else x.unsqueeze(0)
    tokens = sequence.reshape(-1, n, width)
    count = tokens.shape[0]

    def per_token(h: Tensor | None, *shape: int) -> Tensor:
        if h is None:
            return tokens.new_zeros(count, *shape)
        return h.detach().double().expand(*x.shape[:-2], *shape).reshape(count, *shape)

    if h_res is None and h_post is not None:
        h_res = torch.eye(n, dtype=torch.float64, device=x.device)
    p, q, r = per_token(h_pre, n), per_token(h_post, n), per_token(h_res, n, n)
    rows = torch.cat([tokens, per_token(y, width).unsqueeze(-2)], dim=-2)
    gram = rows @ rows.transpose(-1, -2)
    norm = gram.diagonal(dim1=-2, dim2=-1).sqrt()
    stream_gram, stream_norm = gram[:, :n, :n], norm[:, :n]
    read_share, write_share = _share(p.abs()), _share(q.abs())
    energy = stream_norm.square().sum(dim=-1)
    curvature, curvature_count = _angles(sequence.diff(dim=-3))
    position_curvature, position_count = _angles(sequence)
    sums = [
        tokens.new_tensor(float(count)),
        p.sum(0),
        q.sum(0),
        r.sum(0),
        r.square().sum(0),
        read_share.sum(0),
        write_share.sum(0),
        _entropy(read_share).sum(),
        _entropy(write_share).sum(),
        _share(p.abs() * stream_norm).sum(0),
        _share(q.square()).sum(0),
        gram.sum(0),
        norm.sum(0),
        _ratio(stream_gram, stream_norm.unsqueeze(-1) * stream_norm.unsqueeze(-2)).sum(0),
        _ratio(energy - stream_gram.sum(dim=(-2, -1)) / n, energy).sum(),
        curvature,
        curvature_count,
        position_curvature,
        position_count,
    ]
    ranges = coefficient_ranges(x, h_pre, h_post, h_res)
    return torch.cat([*(value.reshape(-1) for value in sums), ranges])


def coefficient_ranges(
    x: Tensor, h_pre: Tensor | None, h_post: Tensor | None, h_res: Tensor | None
) -> Tensor:
    """The packed ranges over tokens, the last part of :func:`stream_stats`. Reads no streams."""
    lead, n = x.shape[:-2], x.shape[-2]
    if h_res is None and h_post is not None:
        h_res = torch.eye(n, dtype=torch.float64, device=x.device)

    def per_token(h: Tensor | None, *shape: int) -> Tensor:
        if h is None:
            return x.new_zeros((), dtype=torch.float64).expand(math.prod(lead), math.prod(shape))
        return h.detach().double().expand(*lead, *shape).reshape(-1, math.prod(shape))

    h = torch.cat([per_token(h_pre, n), per_token(h_post, n), per_token(h_res, n, n)], dim=-1)
    if h.shape[0] == 0:
        low = h.new_full(h.shape[1:], math.inf)
        return torch.cat([torch.zeros_like(low), low, -low])
    # From the first token: what does not vary deviates by exactly nothing.
    away = h - h[:1]
    m2 = (away - away.mean(dim=0)).square().sum(dim=0)
    return torch.cat([m2, h.amin(dim=0), h.amax(dim=0)])
