"""Sizes of streams over depth, outliers, gradients per stream, and the first token by itself."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

KurtosisDefinition = Literal["token", "pooled"]


def norm_growth(norm: Tensor) -> Tensor:
    """``log(norm[k + 1] / norm[k])`` of each stream (D14): ``[K + 1, ...] -> [K, ...]``.

    0 for a stream that a site leaves as it is. Sums over sites to the log of the whole growth.
    """
    return norm.log().diff(dim=0)


def change_from(values: Tensor, row: int = 0) -> Tensor:
    """``values - values[row]`` over sites: curvature from its value at the first state (D15).

    The form in which curvature is published (2311.04930): 0 at the reference row.
    """
    return values - values[row]


def split_first_token(values: Tensor, *, axis: int) -> tuple[Tensor, Tensor]:
    """Position 0 and the other positions of ``axis``: sinks live at the first token.

    ``[..., T, ...] -> [..., ...], [..., T - 1, ...]``. Norms, shares and probes should be reported
    for both.
    """
    if values.shape[axis] < 2:
        raise ValueError(
            f"split_first_token: axis: expected at least 2 positions, got {values.shape[axis]}"
        )
    return values.select(axis, 0), values.narrow(axis, 1, values.shape[axis] - 1)


def first_token_share(norm: Tensor) -> Tensor:
    """Share of a stream's norm that sits on the first token (D29): ``[..., T, n] -> [n]``.

    Mean over sequences of ``norm[0] / sum_t norm[t]``. Null: 1/T for tokens of equal norm; 1 when
    all other tokens are zero. Permuting streams permutes it. Initial value: about 1/T.
    """
    total = norm.sum(dim=-2)
    share = torch.where(total == 0, 0.0, norm[..., 0, :] / torch.where(total == 0, 1.0, total))
    return share.flatten(0, -2).mean(dim=0) if share.ndim > 1 else share


def max_to_median(x: Tensor) -> Tensor:
    """``max |x| / median |x|`` per stream, over tokens and channels (D29): ``[..., n, C] -> [n]``.

    Massive activations show as values in the hundreds. Unchanged when a stream is scaled; null:
    :func:`gaussian_max_to_median`. Initial value: that of the embedding.
    Source: Massive Activations (2402.17762).
    """
    values = x.movedim(-2, 0).flatten(1).abs()
    return values.amax(dim=1) / values.median(dim=1).values


def gaussian_max_to_median(count: int) -> float:
    """Median of :func:`max_to_median` over ``count`` independent normal numbers, its null.

    ``(2 Phi(x) - 1) ** count = 1/2`` for the maximum x, over the median 0.6745 of ``|z|``.
    """
    tail = torch.tensor(0.5, dtype=torch.float64).pow(1 / count)
    quarter = torch.tensor(0.75, dtype=torch.float64)
    largest = torch.special.ndtri((1 + tail) / 2)
    return float(largest / torch.special.ndtri(quarter))


def kurtosis(x: Tensor, *, definition: KurtosisDefinition = "token") -> Tensor:
    """``E (x - mean)^4 / (E (x - mean)^2)^2`` of each stream (D29): ``[..., n, C] -> [n]``.

    ``token``: over the channels of one token, then averaged, so that sizes of tokens do not enter;
    ``pooled``: over all tokens and channels at once. Gaussian: 3, which is the null; two values
    +-a: 1; one outlier among C channels: about C. Unchanged by scale and shift; permuting streams
    permutes it. Initial value: that of the embedding, about 3. A constant stream: nan.
    """
    if definition not in ("token", "pooled"):
        raise ValueError(f"kurtosis: definition: expected 'token' or 'pooled', got {definition!r}")
    values = x.movedim(-2, 0).flatten(1, -2).double() if x.ndim > 2 else x.unsqueeze(1).double()
    if definition == "pooled":
        values = values.flatten(1).unsqueeze(1)
    centred = values - values.mean(dim=-1, keepdim=True)
    second = centred.square().mean(dim=-1)
    return (centred.pow(4).mean(dim=-1) / second.square()).mean(dim=1)


def gradient_norm(gradient: Tensor) -> Tensor:
    """L2 norm of a loss's gradient by each stream (D24): ``[K, ..., n, C] -> [K, n]``.

    ``gradient`` as :func:`~hyperstreams.diagnostics.gradients.stream_gradients` gives it. Its share
    is :func:`~hyperstreams.diagnostics.geometry.norm_share`, its effective count that of the share.
    Streams that are consumed identically have equal norms; permuting streams permutes it.
    """
    squares = gradient.square().sum(dim=-1)
    return (squares.flatten(1, -2).sum(dim=1) if squares.ndim > 2 else squares).sqrt()
