"""Which latents stay: top-k of a token, top-k of a batch, or a threshold."""

from __future__ import annotations

from torch import Tensor


def keep_top_k(latents: Tensor, score: Tensor, k: int) -> Tensor:
    """The k latents of largest ``score`` of every token, the rest zero; all ``[N, m]``.

    Exactly k per token are kept (of equal scores any), so exactly k are non-zero where at least k
    latents are positive.
    """
    chosen = score.topk(k, dim=-1, sorted=False).indices
    return latents * latents.new_zeros(latents.shape).scatter_(-1, chosen, 1.0)


def keep_batch_top_k(latents: Tensor, score: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ``N k`` latents of largest ``score`` of the whole batch, and the smallest kept score.

    ``[N, m] -> ([N, m], [])``. Tokens share the budget: a token that needs more latents takes more.
    """
    top = score.flatten().topk(k * score.shape[0], sorted=False)
    mask = latents.new_zeros(latents.numel()).scatter_(0, top.indices, 1.0)
    return latents * mask.view_as(latents), top.values.min()


def keep_above(latents: Tensor, score: Tensor, threshold: Tensor) -> Tensor:
    """The latents whose ``score`` exceeds ``threshold``: what batch top-k becomes at inference,
    where a token's latents must not depend on its neighbours in the batch."""
    return latents * (score > threshold)
