"""The terms of a crosscoder's loss, on normalised activations."""

from __future__ import annotations

import torch
from torch import Tensor

from ..._errors import check_choice
from .config import Weighting


def reconstruction_loss(target: Tensor, reconstruction: Tensor) -> Tensor:
    """``mean_t sum_i |a_i - a_i'|^2`` for ``[N, I, d]``."""
    return (target - reconstruction).square().sum(dim=(-2, -1)).mean()


def decoder_weight(decoder: Tensor, weighting: Weighting) -> Tensor:
    """``w_j`` of the L1 penalty for a decoder ``[m, I, d] -> [m]``.

    ``sum_of_norms``: ``sum_i |W[j, i]|_2`` (Lindsey et al. 2024). ``concatenated_norm``:
    ``|W[j]|_2`` over all sites, smaller by up to ``sqrt(I)`` the more evenly a latent is spread.
    They agree for a latent at one site.
    """
    check_choice("decoder_weight", "weighting", weighting, ("sum_of_norms", "concatenated_norm"))
    if weighting == "sum_of_norms":
        return decoder.norm(dim=-1).sum(dim=-1)
    return decoder.flatten(1).norm(dim=-1)


def weighted_l1(latents: Tensor, decoder: Tensor, weighting: Weighting) -> Tensor:
    """``mean_t sum_j f_j w_j``, differentiated through the latents and through the decoder."""
    return (latents * decoder_weight(decoder, weighting)).sum(dim=-1).mean()


def auxiliary_loss(residual: Tensor, pre: Tensor, decoder: Tensor, dead: Tensor, k: int) -> Tensor:
    """``|e - e'|^2 / |e - mean e|^2``: dead latents rebuild the residual ``e = a - a'``.

    residual ``[N, I, d]`` (no gradient flows into it), pre-activations ``[N, m]``, decoder
    ``[m, I, d]``, dead ``[m]`` bool. The k strongest dead latents of each token are used. 0 where
    no latent is dead or nothing is left over. After Gao et al. 2024.
    """
    number = int(dead.sum())
    residual = residual.detach()
    variance = (residual - residual.mean(dim=0)).square().sum()
    if number == 0 or variance == 0:
        return pre.new_zeros(())
    candidates = torch.where(dead, pre, -torch.inf)
    top = candidates.topk(min(k, number), dim=-1, sorted=False)
    latents = torch.zeros_like(pre).scatter(-1, top.indices, top.values.relu())
    rebuilt = (latents @ decoder.flatten(1)).view_as(residual)
    return (residual - rebuilt).square().sum() / variance
