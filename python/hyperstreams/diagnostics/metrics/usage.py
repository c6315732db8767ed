"""Stream usage and mixing as pure functions of the coefficients: shares, effective streams, mixers.

Every function works on plain tensors (any leading axes unless said otherwise), changes nothing and
imports torch only. "Initial" in a docstring is the published initialisation: static read and write
logits of +1 for the designated stream and -1 for the others (2606.03483's released model).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from .alignment import assign

Average = Literal["mean_of_ratios", "ratio_of_means"]
EffectiveKind = Literal["entropy", "participation"]


def share(h: Tensor) -> Tensor:
    """``|h[i]| / sum_r |h[r]|`` over the last axis (D1, one token): ``[..., n] -> [..., n]``.

    Absolute values make it defined for signed coefficients (HC). A row of zeros gives zeros.
    Sums to 1; one-hot stays one-hot; uniform gives 1/n; permuting streams permutes it.
    """
    magnitude = h.abs()
    total = magnitude.sum(dim=-1, keepdim=True)
    return torch.where(total == 0, 0.0, magnitude / torch.where(total == 0, 1.0, total))


def mean_share(h: Tensor, *, average: Average = "mean_of_ratios") -> Tensor:
    """Share of each stream in ``h [tokens..., n]`` averaged over tokens (D1): ``-> [n]``.

    ``mean_of_ratios``: ``mean_t(|h[i]| / sum_r |h[r]|)``, the definition of figures 2 and 6 here.
    ``ratio_of_means``: ``mean_t |h[i]| / sum_r mean_t |h[r]|``. Equal when h does not depend on the
    token. Initial value, n = 2 / 4 / 8 / 16: largest share 0.731 / 0.475 / 0.280 / 0.153, for reads
    and for writes.
    """
    tokens = h.reshape(-1, h.shape[-1])
    if average == "mean_of_ratios":
        return share(tokens).mean(dim=0)
    if average == "ratio_of_means":
        return share(tokens.abs().mean(dim=0))
    raise ValueError(
        f"mean_share: average: expected 'mean_of_ratios' or 'ratio_of_means', got {average!r}"
    )


def read_signal_share(h_pre: Tensor, norm: Tensor) -> Tensor:
    """``|h_pre[i]| |x_i| / sum`` per token (D2a): how much *signal* a read takes from each stream.

    ``h_pre, norm [..., n]``; norm is the L2 norm of each stream. Unchanged when a stream is scaled
    by ``a`` and its read weight by ``1/a``, which the weight share is not. Initial value: the
    weight share, where streams start as copies. Null: 1/n.
    """
    return share(h_pre * norm)


def read_covariance_share(h_pre: Tensor, gram: Tensor) -> Tensor:
    """``p[i] (G p)[i] / (p' G p)`` per token (D2b): signed share of the read vector's energy.

    ``h_pre [..., n]``, ``gram [..., n, n]`` the inner products of the streams. Sums to 1 exactly;
    proportional to ``p**2`` for orthogonal streams of equal norm; equals the weight share for
    identical streams and non-negative p; may be negative where streams cancel. Unchanged by a
    rescaling as above. Initial value: the weight share, where streams start as copies. Null: 1/n.
    """
    contribution = h_pre * torch.matmul(gram, h_pre.unsqueeze(-1)).squeeze(-1)
    return contribution / contribution.sum(dim=-1, keepdim=True)


def write_signal_share(h_post: Tensor) -> Tensor:
    """``q[i]**2 / sum_r q[r]**2`` per token (D2w): share of the energy written, ``[..., n]``.

    One-hot stays one-hot; ``|y|`` cancels. Initial value at n = 4: largest 0.711. Null: 1/n.
    """
    return share(h_post.square())


def relative_update(h_post: Tensor, branch_norm: Tensor, norm: Tensor) -> Tensor:
    """``|q[i]| |y| / |x_i|`` (D2w): size of a write beside what the stream held, ``[..., n]``.

    ``branch_norm [...]`` is the norm of y. 0 for a stream that is not written. No null.
    """
    return h_post.abs() * branch_norm.unsqueeze(-1) / norm


def entropy(pi: Tensor) -> Tensor:
    """``-sum_i pi[i] log pi[i]`` in nats over the last axis; 0 log 0 is 0."""
    return -torch.special.xlogy(pi, pi).sum(dim=-1)


def effective_streams(pi: Tensor, *, kind: EffectiveKind = "entropy") -> Tensor:
    """Effective number of streams of a share ``pi [..., n] -> [...]`` (D3).

    ``entropy``: ``exp(-sum pi log pi)``. ``participation``: ``1 / sum pi**2``, never larger.
    n for uniform, 1 for one-hot, k for uniform over k; the value of an averaged share is at least
    the average over tokens (concavity), so that equality separates collapse from routing.
    Initial value (entropy), n = 2 / 4 / 8 / 16: 1.79 / 3.55 / 7.35 / 15.2.
    """
    if kind == "entropy":
        return entropy(pi).exp()
    if kind == "participation":
        return pi.square().sum(dim=-1).reciprocal()
    raise ValueError(
        f"effective_streams: kind: expected 'entropy' or 'participation', got {kind!r}"
    )


def dominance(pi: Tensor) -> Tensor:
    """``(n max_i pi[i] - 1) / (n - 1)`` (D4): 0 uniform, 1 one-hot; ``[..., n] -> [...]``.

    Grows from uniform towards one-hot. Initial value at n = 4: 0.300. Null: 0. For n = 1 there is
    nothing to dominate: 0.
    """
    n = pi.shape[-1]
    if n == 1:
        return torch.zeros_like(pi[..., 0])
    return (n * pi.amax(dim=-1) - 1) / (n - 1)


def dominance_gap(pi: Tensor) -> Tensor:
    """Largest minus second largest share (D4): ``[..., n] -> [...]``, n >= 2.

    0 uniform, 1 one-hot. Initial value at n = 4: 0.300. Null: 0.
    """
    if pi.shape[-1] < 2:
        raise ValueError(f"dominance_gap: pi: expected at least 2 streams, got {pi.shape[-1]}")
    top = pi.topk(2, dim=-1).values
    return top[..., 0] - top[..., 1]


def persistence(pi: Tensor) -> Tensor:
    """Fraction of sites whose largest stream is the most frequent one (D5): ``[K, n] -> []``.

    1 when one stream leads everywhere. Independent uniform leaders do not give 1/n but
    :func:`persistence_null`'s mean, which is the line to compare with.
    """
    leaders = pi.argmax(dim=-1)
    return torch.bincount(leaders, minlength=pi.shape[-1]).max() / leaders.numel()


def persistence_null(n: int, sites: int) -> Tensor:
    """Exact distribution of :func:`persistence` when each site's leader is drawn at random.

    Returns ``[sites + 1]`` float64: entry m is the probability that the most frequent of n equally
    likely leaders leads at exactly m of the sites. From the exponential generating function:
    ``P(max <= m) = sites! [z^sites] (sum_{k<=m} z^k/k!)^n / n^sites``.
    Mean of m / sites at 24 sites, n = 2 / 4 / 8 / 16: 0.58 / 0.36 / 0.24 / 0.17.
    """
    if n < 1 or sites < 1:
        raise ValueError(f"persistence_null: n, sites: expected at least 1, got {n}, {sites}")
    cumulative = [0.0]
    for m in range(1, sites + 1):
        ways = [1] + [0] * sites
        for _ in range(n):
            ways = [
                sum(math.comb(total, k) * ways[total - k] for k in range(min(m, total) + 1))
                for total in range(sites + 1)
            ]
        cumulative.append(ways[sites] / n**sites)
    return torch.tensor(cumulative, dtype=torch.float64).diff(prepend=torch.zeros(1).double())


def site_information(pi: Tensor) -> Tensor:
    """Mutual information between site and stream in nats (D5): ``H(mean pi) - mean H(pi)``.

    ``pi [K, n] -> []``. 0 when all sites use the streams alike (balanced or collapsed);
    log n when every site uses one stream and the sites together use all equally. Null: 0.
    """
    return entropy(pi.mean(dim=0)) - entropy(pi).mean()


def switch_rate(leader: Tensor) -> Tensor:
    """Fraction of neighbouring sites at which a token's leading stream changes (D5).

    ``leader [..., K]`` integer stream indices, K >= 2, averaged over every axis. Null:
    ``1 - 1/n`` for leaders drawn independently. 0 when one stream leads everywhere.
    """
    return (leader[..., 1:] != leader[..., :-1]).double().mean()


def off_diagonal_mass(h_res: Tensor) -> Tensor:
    """``1 - trace(H_res) / n`` (D6): ``[..., n, n] -> [...]``.

    0 for the identity, ``1 - 1/n`` for full averaging. Initial value at n = 4: mHC-lite 0.00599,
    mHC (Sinkhorn) 0.00101.
    """
    return 1 - h_res.diagonal(dim1=-2, dim2=-1).mean(dim=-1)


def off_diagonal_by_destination(h_res: Tensor) -> Tensor:
    """``1 - H_res[j, j]`` of each destination (D6): ``[..., n, n] -> [..., n]``.

    What a stream gives up of itself; its mean is :func:`off_diagonal_mass`. 0 for the identity.
    """
    return 1 - h_res.diagonal(dim1=-2, dim2=-1)


def identity_distance(h_res: Tensor) -> Tensor:
    """``|H_res - I|_F / sqrt(2 n)`` (D6): 0 for I, 1 for a permutation without fixed point.

    ``sqrt((n - 1) / 2n)`` for full averaging. Initial value at n = 4: ``sqrt(2/3)`` times the
    off-diagonal mass for mixers that treat all streams alike.
    """
    n = h_res.shape[-1]
    eye = torch.eye(n, dtype=h_res.dtype, device=h_res.device)
    return (h_res - eye).square().sum(dim=(-2, -1)).sqrt() / math.sqrt(2 * n)


def permutation_distance(h_res: Tensor) -> Tensor:
    """``min_P |H_res - P|_F / sqrt(2 n)`` over permutations P (D6): ``[..., n, n] -> [...]``.

    0 for every permutation matrix: tells relabelling of streams from averaging. The assignment is
    exact (:func:`~hyperstreams.diagnostics.alignment.assign`).
    """
    n = h_res.shape[-1]
    _, negative = assign(-h_res)
    square = h_res.square().sum(dim=(-2, -1)) + n + 2 * negative
    return square.clamp_min(0.0).sqrt() / math.sqrt(2 * n)


def token_variation(mean: Tensor, mean_square: Tensor) -> Tensor:
    """``E|R - Rbar|**2 / E|Rbar - I|**2`` from the moments of ``R = H_res`` (D6t).

    ``mean, mean_square [..., n, n]`` are the token means of R and of R squared elementwise.
    0 for a static mixer; small where the mixing is the same for every token. A mixer that
    is always the identity gives 0, one that varies around it infinity. Initial value: 0 where the
    dynamic part starts at 0. Null: 0.
    """
    eye = torch.eye(mean.shape[-1], dtype=mean.dtype, device=mean.device)
    variance = (mean_square - mean.square()).clamp_min(0.0).sum(dim=(-2, -1))
    distance = (mean - eye).square().sum(dim=(-2, -1))
    return torch.where(variance == 0, 0.0, variance / distance)
