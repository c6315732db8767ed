"""Controls: what shares would be if streams did not matter, and whether exclusive features are.

The transforms take and return activations ``[N, I, d]`` whose sites are ordered layer, then stream.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .shares import stream_share


def shuffle_streams(a: Tensor, n_streams: int, *, generator: torch.Generator) -> Tensor:
    """Permute the streams of every token independently, the same way at all its layers.

    Nothing tells the streams apart afterwards, so a coder trained on this must give every stream
    the same share on average over features. Single features may well stray from 1/n, because a
    coder can spend latents on arrangements of unlike streams: how far they do is what exclusive
    features have to exceed.
    """
    tokens, sites, width = a.shape
    order = torch.rand(tokens, n_streams, generator=generator).argsort(dim=1).to(a.device)
    index = order[:, None, :, None].expand(-1, sites // n_streams, -1, width)
    return a.view(tokens, -1, n_streams, width).gather(2, index).reshape(a.shape)


def replicate_streams(a: Tensor, n_streams: int) -> Tensor:
    """Every stream replaced by the mean of the streams at its layer: shares must be 1/n."""
    grouped = a.view(a.shape[0], -1, n_streams, a.shape[2])
    return grouped.mean(dim=2, keepdim=True).expand_as(grouped).reshape(a.shape)


def latent_scaling(decoder: Tensor, moment: Tensor, square: Tensor, n_streams: int) -> Tensor:
    """How much of a latent's own direction is in every stream when it fires, own stream = 1.

    ``beta[j, s] = sum_l <D_l, E[f_j x_(l, s)]> / (sum_l |D_l|^2 E[f_j^2])``, the least-squares size
    of ``f_j D`` in stream s, with D the decoder of latent j in its own stream (largest share of
    decoder norm) over all layers; divided by the own stream's beta.

    decoder ``[m, I, d]``; moment ``E[f_j (x_i - b_dec_i)]`` ``[m, I, d]``; square ``E[f_j^2]``
    ``[m]``; returns ``[m, n]``. A ratio near 1 in another stream says that the feature is present
    there too, and that calling it exclusive is an artefact of the coder; identical streams give 1.
    Latents that fire together count for each other. nan where a latent never fires or is not in
    its own stream. After Minder et al. 2025 (latent scaling between models, here between streams).
    """
    shape = (decoder.shape[0], -1, n_streams, decoder.shape[2])
    grouped = decoder.detach().view(shape).double()
    own = stream_share(grouped.norm(dim=-1)).argmax(dim=-1)
    index = own[:, None, None, None].expand(-1, grouped.shape[1], 1, shape[3])
    direction = grouped.gather(2, index)
    beta = (direction * moment.view(shape).double()).sum(dim=(1, 3))
    beta = beta / (direction.square().sum(dim=(1, 2, 3)) * square.double())[:, None]
    ratio = beta / beta.gather(1, own[:, None])
    return torch.where(ratio.isfinite(), ratio, torch.nan)


def strongest_elsewhere(ratio: Tensor) -> Tensor:
    """The largest ratio of :func:`latent_scaling` in another stream: ``[m, n] -> [m]``.

    nan where it is undefined, and for one stream.
    """
    if ratio.shape[-1] < 2:
        return ratio.new_full(ratio.shape[:1], torch.nan)
    # The own stream is exactly 1: without one of the ones, the largest of the others is left.
    others = ratio.scatter(1, (ratio == 1.0).double().argmax(dim=1, keepdim=True), -torch.inf)
    return others.amax(dim=-1)
