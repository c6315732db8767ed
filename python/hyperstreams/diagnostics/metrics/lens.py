"""Reading streams out early and one by one: logit lens, readout parts, subsets of streams.

A readout norms each stream and sums (``position="before"``, the published model), or sums with
weights and norms the result (``"after"``). Either way the model's hidden state is a sum of one part
per stream, and its logits one of the parts' logits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

Position = Literal["before", "after"]


class LensScores(NamedTuple):
    """What :func:`lens_scores` gives, each of the shape of the tokens."""

    kl: Tensor
    agreement: Tensor
    entropy: Tensor
    log_prob: Tensor | None


def readout_parts(
    streams: Tensor,
    norm: nn.Module | None,
    *,
    position: Position = "before",
    weights: Tensor | None = None,
) -> Tensor:
    """Additive parts ``z_s`` of the readout (D19): ``[..., n, C] -> [..., n, C]``.

    ``before``: ``z_s = w_s norm(x_s)``. ``after``: the norm of ``sum_s w_s x_s``, whose one common
    scale applies to each ``w_s x_s``, for ``nn.LayerNorm`` and ``nn.RMSNorm``; a bias is shared
    equally. ``weights [..., n]``: None is 1. The parts sum to the model's final hidden state;
    permuting streams permutes them; identical streams have identical parts.
    """
    if position not in ("before", "after"):
        raise ValueError(f"readout_parts: position: expected 'before' or 'after', got {position!r}")
    scale = 1.0 if weights is None else weights.unsqueeze(-1).to(streams)
    if norm is None:
        return streams * scale
    if position == "before":
        normed: Tensor = norm(streams)
        return normed * scale
    parts = streams * scale
    total = parts.sum(dim=-2, keepdim=True)
    if isinstance(norm, nn.LayerNorm):
        parts = parts - parts.mean(dim=-1, keepdim=True)
        power = total.var(dim=-1, keepdim=True, correction=0)
    elif isinstance(norm, nn.RMSNorm):
        power = total.square().mean(dim=-1, keepdim=True)
    else:
        raise TypeError(
            "readout_parts: norm: expected nn.LayerNorm or nn.RMSNorm after the sum, "
            f"got {type(norm).__name__}"
        )
    eps = torch.finfo(streams.dtype).eps if norm.eps is None else norm.eps
    parts = parts * (power + eps).rsqrt()
    if norm.weight is not None:
        parts = parts * norm.weight
    bias = getattr(norm, "bias", None)
    return parts if bias is None else parts + bias / streams.shape[-2]


def readout_share(parts: Tensor) -> Tensor:
    """``<z_s, z> / |z|^2`` with ``z = sum_s z_s`` (D19): ``[..., n, C] -> [..., n]``.

    Signed; sums to 1; 1/n for identical streams; permuting streams permutes it. Of
    :func:`readout_parts`, or of their logits (``parts @ unembedding.T``), which weighs directions
    by what the vocabulary sees of them. Under norm before sum every stream enters with the same
    RMS, so a long stream need not dominate here. Initial value: 1/n under replication; null: none.
    """
    total = parts.sum(dim=-2, keepdim=True)
    inner = (parts * total).sum(dim=-1)
    return inner / inner.sum(dim=-1, keepdim=True)


def subsets(n: int) -> list[tuple[int, ...]]:
    """All ``2**n - 1`` non-empty sets of streams, in the order of their bit masks; last: all."""
    return [tuple(s for s in range(n) if mask >> s & 1) for mask in range(1, 1 << n)]


def subset_logits(parts: Tensor, unembedding: Tensor) -> Tensor:
    """Logits of every subset of streams (D19): ``[..., n, C], [V, C] -> [2**n - 1, ..., V]``.

    Sum of the subset's parts through the unembedding, in the order of :func:`subsets`; the last
    entry is the model's logits to rounding. Memory: ``(2**n - 1) V`` numbers a token, so take a few
    hundred tokens.
    """
    single = parts @ unembedding.T
    return torch.stack([single[..., list(s), :].sum(dim=-2) for s in subsets(parts.shape[-2])])


def logit_lens(streams: Tensor, readout: Callable[[Tensor], Tensor], unembedding: Tensor) -> Tensor:
    """Logits if the network stopped at each state (D19): ``[K + 1, ..., n, C] -> [K + 1, ..., V]``.

    ``readout`` maps streams to hidden states: the model's own ``reduce``, for any readout. At the
    last state this computes the model's logits exactly, by the same operations.
    """
    return torch.stack([nn.functional.linear(readout(state), unembedding) for state in streams])


def lens_scores(logits: Tensor, final: Tensor, targets: Tensor | None = None) -> LensScores:
    """How far lens logits are from the model's (D19), per token: ``[..., V], [..., V]``.

    ``kl``: ``KL(final || lens)`` in nats; ``agreement``: whether both have the same most likely
    token; ``entropy`` of the lens in nats; ``log_prob`` of ``targets [...]``. For the final logits
    themselves kl is 0 and agreement 1. ``final`` broadcasts over leading axes such as states and
    subsets. Null: a uniform lens has entropy log V and kl ``log V - H(final)``.
    Source: logit lens; the KL direction of the tuned lens (2303.08112).
    """
    lens_log = logits.double().log_softmax(dim=-1)
    final_log = final.double().log_softmax(dim=-1)
    kl = (final_log.exp() * (final_log - lens_log)).sum(dim=-1)
    agreement = lens_log.argmax(dim=-1) == final_log.argmax(dim=-1)
    entropy = -(lens_log.exp() * lens_log).sum(dim=-1)
    log_prob = None
    if targets is not None:
        index = targets.expand(lens_log.shape[:-1]).unsqueeze(-1)
        log_prob = lens_log.gather(-1, index).squeeze(-1)
    return LensScores(kl, agreement, entropy, log_prob)
