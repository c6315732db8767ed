"""Where features live: shares of decoder norm over streams, and the assignment made from them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..metrics import share


def layer_stream_share(norms: Tensor) -> Tensor:
    """``nu[j, l, s] / sum_r nu[j, l, r]`` (D26): decoder norms ``[m, L, n] -> [m, L, n]``.

    Sums to 1 over streams; 1/n for a latent equally strong in all; one-hot for a latent with one
    site; zeros where a latent has no decoder at a layer.
    """
    return share(norms)


def stream_share(norms: Tensor) -> Tensor:
    """``sum_l nu[j, l, s] / sum_(l, r) nu[j, l, r]`` (D26): ``[m, L, n] -> [m, n]``."""
    return share(norms.sum(dim=-2))


def assign(pi: Tensor, *, threshold: float = 0.5) -> Tensor:
    """The stream of largest share if that share reaches ``threshold``, else -1 for "shared".

    ``pi [..., n] -> [...]`` int64. A threshold of at most 1/n assigns everything. What it says
    depends on the threshold: look at :func:`assignment_sweep`.
    """
    top = pi.max(dim=-1)
    return torch.where(top.values >= threshold, top.indices, -1)


def assignment_sweep(
    pi: Tensor, thresholds: tuple[float, ...] = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
) -> dict[float, float]:
    """Fraction of the features ``pi [m, n]`` that are assigned at each threshold; never rises."""
    return {t: float((assign(pi, threshold=t) >= 0).double().mean()) for t in thresholds}


def leading_stream_counts(norms: Tensor, weight: Tensor | None = None) -> Tensor:
    """Features whose decoder norm at a layer is largest in each stream: ``[m, L, n] -> [L, n]``.

    ``weight [m]`` or ``[m, L]`` counts features by it (density, activation mass) instead of
    equally; every row sums to the total weight. Features without any decoder at a layer are left
    out. Equal norms go to the first stream, so identical streams all land in stream 0: read the
    counts beside the shares.
    """
    present = norms.amax(dim=-1) > 0
    if weight is None:
        weight = torch.ones(norms.shape[0], dtype=torch.float64, device=norms.device)
    if weight.ndim == 1:
        weight = weight[:, None].expand(norms.shape[:2])
    counts = torch.zeros(norms.shape[1:], dtype=torch.float64, device=norms.device)
    counts.scatter_add_(1, norms.argmax(dim=-1).T, (weight * present).T.to(counts.dtype))
    return counts


def activation_mass(mean_latent: Tensor, norms: Tensor) -> Tensor:
    """``E[f_j] nu[j, l, s]``: how much of what is written into a site comes from a feature."""
    return mean_latent[:, None, None] * norms
