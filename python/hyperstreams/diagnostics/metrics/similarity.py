"""How alike streams, sites and runs are: effective rank, CKA, prediction, neighbouring sites.

Samples come first: ``[N, C]`` are N tokens. Random choices take a ``torch.Generator``.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .geometry import stream_cosine
from .usage import EffectiveKind, effective_streams

CkaDefinition = Literal["unbiased", "biased"]
Scaling = Literal["stream", "channel"]


def effective_rank(
    gram: Tensor, *, kind: EffectiveKind = "entropy", unit_norm: bool = False
) -> Tensor:
    """Effective number of directions among a token's streams (D17): ``[..., n, n] -> [...]``.

    :func:`~hyperstreams.diagnostics.metrics.effective_streams` of ``kind`` of the eigenvalues of
    the streams' Gram matrix over their sum. ``unit_norm``: streams have norm 1 first, so that a
    long stream does not count for all. 1 for copies, n for orthogonal streams of equal norm;
    unchanged by permutations and rotations. All streams zero: 0. Initial value: 1 under
    replication; null: near n for independent random streams with C >> n.
    Source: stream effective rank of DepthBench (2609.32534).
    """
    gram = gram.double()
    if unit_norm:
        gram = stream_cosine(gram)
    values = torch.linalg.eigvalsh(gram).clamp_min(0.0)
    total = values.sum(dim=-1, keepdim=True)
    share = values / torch.where(total == 0, 1.0, total)
    count = effective_streams(torch.where(total == 0, 1.0, share), kind=kind)
    return torch.where(total.squeeze(-1) == 0, 0.0, count)


def random_projection(x: Tensor, dims: int = 64, *, generator: torch.Generator) -> Tensor:
    """``x G / sqrt(dims)`` with G standard normal: ``[..., C] -> [..., dims]``.

    Keeps inner products in expectation; makes CKA and probes of wide streams cheap. The noise of
    few dimensions lowers the CKA of streams that are alike (0.88 to 0.73 at 64 in a test case), so
    compare projected values with projected values only.
    """
    g = torch.randn(x.shape[-1], dims, generator=generator, device=generator.device)
    return x @ g.to(x) / dims**0.5


def _hsic(k: Tensor, m: Tensor) -> Tensor:
    """Unbiased HSIC of two Gram matrices ``[N, N]`` (Song et al. 2012), N >= 4."""
    count = k.shape[0]
    k = k - torch.diag(k.diagonal())
    m = m - torch.diag(m.diagonal())
    trace = (k * m).sum()
    sums = k.sum() * m.sum() / ((count - 1) * (count - 2))
    cross = 2 * (k.sum(dim=0) @ m.sum(dim=0)) / (count - 2)
    return (trace + sums - cross) / (count * (count - 3))


def cka(
    a: Tensor, b: Tensor, *, definition: CkaDefinition = "unbiased", batch: int = 512
) -> Tensor:
    """Linear centred kernel alignment of two sets of vectors (D18): ``[N, C], [N, D] -> []``.

    ``biased``: ``|A'B|_F^2 / (|A'A|_F |B'B|_F)``, columns centred. ``unbiased``: the same ratio of
    unbiased HSIC estimates, each averaged over batches of ``batch`` tokens. 1 for A = B and for
    rotated, shifted or isotropically scaled A; independent sets give about 0 (unbiased, possibly
    below) or a value that grows with C / N (biased). Null: 0 (unbiased). Initial value: 1 between
    replicated streams. A constant set gives nan.
    Source: Kornblith et al. (1905.00414); minibatch form of Nguyen et al. (2010.15327).
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[0]:
        raise ValueError(
            f"cka: b: expected shape [{a.shape[0]}, D] for a {list(a.shape)}, got {list(b.shape)}"
        )
    a, b = a.double() - a.double().mean(dim=0), b.double() - b.double().mean(dim=0)
    if definition == "biased":
        cross = (a.T @ b).square().sum()
        return cross / ((a.T @ a).norm() * (b.T @ b).norm())
    if definition != "unbiased":
        raise ValueError(f"cka: definition: expected 'unbiased' or 'biased', got {definition!r}")
    batch = min(batch, a.shape[0])
    if batch < 4:
        raise ValueError(f"cka: batch: expected at least 4 tokens, got {batch}")
    parts = []
    for first in range(0, a.shape[0] - batch + 1, batch):
        x, y = a[first : first + batch], b[first : first + batch]
        k, m = x @ x.T, y @ y.T
        parts.append(torch.stack([_hsic(k, m), _hsic(k, k), _hsic(m, m)]))
    cross, own, other = torch.stack(parts).mean(dim=0)
    return cross / (own * other).sqrt()


def cka_matrix(x: Tensor, *, definition: CkaDefinition = "unbiased", batch: int = 512) -> Tensor:
    """:func:`cka` of every pair (D18): ``[M, N, C] -> [M, M]``; M streams, sites or runs."""
    count = x.shape[0]
    table = torch.ones(count, count, dtype=torch.float64, device=x.device)
    for i in range(count):
        for j in range(i):
            table[i, j] = table[j, i] = cka(x[i], x[j], definition=definition, batch=batch)
    return table


def linear_predictability(
    source: Tensor,
    target: Tensor,
    *,
    generator: torch.Generator,
    ridge: float = 1e-3,
    held_out: float = 0.25,
    scaling: Scaling = "stream",
) -> Tensor:
    """Held-out R^2 of a ridge map from one stream to another (D18r): ``[N, C], [N, D] -> []``.

    Both are centred and scaled by their standard deviation over training tokens, one number per
    stream or (``scaling="channel"``, where few large channels would decide) per channel. The
    penalty is ``ridge`` times the mean eigenvalue of the source's covariance. Held-out tokens are
    drawn at random from all, never the tail. 1 for a linear copy, about 0 (or below) for
    independent streams, which is the null; unchanged when either stream is scaled or shifted.
    Initial value: 1 under replication. A constant target gives nan.
    Source: the stream-to-stream maps of mhc-interp, made scale-free.
    """
    if scaling not in ("stream", "channel"):
        raise ValueError(
            f"linear_predictability: scaling: expected 'stream' or 'channel', got {scaling!r}"
        )
    count = source.shape[0]
    tested = round(count * held_out)
    if not 0 < tested < count:
        raise ValueError(
            f"linear_predictability: held_out: expected a share that leaves tokens on both sides "
            f"of {count}, got {held_out}"
        )
    order = torch.randperm(count, generator=generator, device=generator.device).to(source.device)
    fit, test = order[tested:], order[:tested]

    def standardised(x: Tensor) -> Tensor:
        x = x.double() - x[fit].double().mean(dim=0)
        variance = x[fit].square().mean(dim=0)
        if scaling == "stream":
            variance = variance.sum()
        return x / torch.where(variance == 0, 1.0, variance).sqrt()

    a, b = standardised(source), standardised(target)
    covariance = a[fit].T @ a[fit]
    penalty = ridge * covariance.diagonal().mean().clamp_min(1e-300)
    eye = torch.eye(a.shape[1], dtype=a.dtype, device=a.device)
    weights = torch.linalg.solve(covariance + penalty * eye, a[fit].T @ b[fit])
    error = (b[test] - a[test] @ weights).square().sum()
    return 1 - error / b[test].square().sum()


def predictability_matrix(
    streams: Tensor,
    *,
    generator: torch.Generator,
    ridge: float = 1e-3,
    held_out: float = 0.25,
    scaling: Scaling = "stream",
) -> Tensor:
    """:func:`linear_predictability` of every pair (D18r): ``[N, n, C] -> [n, n]``.

    Entry ``[source, target]``; the same held-out tokens for all pairs.
    """
    n = streams.shape[-2]
    state = generator.get_state()
    table = streams.new_zeros(n, n, dtype=torch.float64)
    for i in range(n):
        for j in range(n):
            generator.set_state(state)
            table[i, j] = linear_predictability(
                streams[:, i],
                streams[:, j],
                generator=generator,
                ridge=ridge,
                held_out=held_out,
                scaling=scaling,
            )
    return table


def adjacent_cosine(x: Tensor) -> Tensor:
    """Cosine between one site's vector and the next site's, per token (D20).

    ``[K, ..., C] -> [K - 1, ...]``: ``x`` the inputs of the sites (``branch_in``), as the published
    figure has it, or all states ``[K, ..., n, C]`` for each stream by itself.
    :func:`~hyperstreams.diagnostics.composite.token_quantiles` gives its median and 5 to 95 % band.
    1 where nothing is written and the mixer is the identity; unchanged when a vector is scaled.
    A zero vector gives 0. Initial value: that of the initial model; null: 0 for unrelated inputs.
    Source: 2409.19606 (HC), cosine between inputs of adjacent layers.
    """
    if x.shape[0] < 2:
        raise ValueError(f"adjacent_cosine: x: expected at least 2 sites, got {x.shape[0]}")
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    inner = (x[:-1] * x[1:]).sum(dim=-1)
    scale = x[:-1].norm(dim=-1) * x[1:].norm(dim=-1)
    return torch.where(scale == 0, 0.0, inner / torch.where(scale == 0, 1.0, scale))
