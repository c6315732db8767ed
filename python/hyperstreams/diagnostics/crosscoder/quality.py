"""How good a crosscoder is, on held-out activations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .model import Crosscoder


@dataclass(frozen=True)
class Quality:
    """Sums over held-out tokens, reduced; float64.

    explained_variance : ``[I]`` ``1 - sum |a - a'|^2 / sum |a - mean a|^2`` of each site: a ratio
        of sums over all tokens, never a mean of ratios. nan at a site that does not vary.
    explained_variance_total : the same over all sites, in the coder's units (the scale that the
        loss saw); ``_raw``: in the model's units, where sites of large norm weigh most.
    l0 : mean number of active latents of a token. density : ``[m]`` fraction of tokens a latent is
        active on. dead_fraction : latents that no token activates.
    mean_latent, square_latent : ``[m]`` ``E[f_j]``, ``E[f_j^2]``.
    moment : ``[m, I, d]`` ``E[f_j (x_i - b_dec_i)]`` in the coder's units, for
        :func:`~hyperstreams.diagnostics.crosscoder.controls.latent_scaling`.
    """

    tokens: int
    explained_variance: Tensor
    explained_variance_total: float
    explained_variance_total_raw: float
    l0: float
    density: Tensor
    mean_latent: Tensor
    square_latent: Tensor
    moment: Tensor

    @property
    def dead_fraction(self) -> float:
        return float((self.density == 0).double().mean())

    @property
    def alive(self) -> Tensor:
        """``[m]`` bool: active on at least one held-out token."""
        return self.density > 0

    def summary(self) -> dict[str, Any]:
        """The scalars, the variances per site and a histogram of densities, as JSON values."""
        edges = [10.0**e for e in range(-6, 1)]
        counts = torch.histogram(
            self.density[self.alive].clamp(1e-6, 1.0), torch.tensor(edges, dtype=torch.float64)
        ).hist
        return {
            "tokens": self.tokens,
            "explained_variance_per_site": self.explained_variance.tolist(),
            "explained_variance_total": self.explained_variance_total,
            "explained_variance_total_raw": self.explained_variance_total_raw,
            "l0": self.l0,
            "dead_fraction": self.dead_fraction,
            "alive": int(self.alive.sum()),
            "density_histogram": {"edges": edges, "counts": counts.int().tolist()},
        }


@torch.no_grad()
def evaluate(coder: Crosscoder, batches: Iterable[Tensor]) -> Quality:
    """Run ``coder`` over ``batches`` of ``[N, I, d]`` by its inference rule and take the sums."""
    sites, width = coder.n_sites, coder.width
    m, device = coder.config.n_latents, coder.decoder.device

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float64, device=device)

    tokens = 0
    total, squares, errors = zeros(sites, width), zeros(sites), zeros(sites)
    active, first, second = zeros(m), zeros(m), zeros(m)
    moment = zeros(m, sites, width)
    for batch in batches:
        latents = coder.encode(batch)
        # Centred on what calibration saw: sums of squares then lose no digits to the mean.
        x = coder.normalise(batch) - coder.decoder_bias
        error = x - (coder.decode_normalised(latents) - coder.decoder_bias)
        tokens += batch.shape[0]
        total += x.double().sum(dim=0)
        squares += x.double().square().sum(dim=(0, 2))
        errors += error.double().square().sum(dim=(0, 2))
        active += (latents > 0).double().sum(dim=0)
        first += latents.double().sum(dim=0)
        second += latents.double().square().sum(dim=0)
        moment += (latents.T @ x.flatten(1)).view(moment.shape)
    if tokens == 0:
        raise ValueError("evaluate: batches: expected at least one token, got none")
    variance = squares - total.square().sum(dim=1) / tokens
    raw = coder.scale.double().square()
    return Quality(
        tokens=tokens,
        explained_variance=(1 - errors / torch.where(variance > 0, variance, torch.nan)).cpu(),
        explained_variance_total=float(1 - errors.sum() / variance.sum()),
        explained_variance_total_raw=float(1 - (errors / raw).sum() / (variance / raw).sum()),
        l0=float(active.sum() / tokens),
        density=(active / tokens).cpu(),
        mean_latent=(first / tokens).cpu(),
        square_latent=(second / tokens).cpu(),
        moment=(moment / tokens).cpu(),
    )


def decoder_cosine(decoder: Tensor, alive: Tensor) -> Tensor:
    """Mean cosine of a latent's decoders at two sites: ``[m, I, d], alive [m] -> [I, I]``.

    The mean is over alive latents. 1 on the diagonal; 1 everywhere for latents that are the same
    vector at every site. A latent whose decoder is zero at a site counts as cosine 0 there.
    """
    rows = decoder.detach()[alive].double()
    rows = torch.nn.functional.normalize(rows, dim=-1)
    return torch.einsum("jid,jkd->ik", rows, rows) / max(rows.shape[0], 1)


def max_cosine(reference: Tensor, decoder: Tensor) -> Tensor:
    """For each reference feature the largest cosine with a latent: ``[r, I, d], [m, I, d] -> [r]``.

    Decoders of all sites count as one vector. The mean over a planted dictionary is the usual
    measure of its recovery; over another seed's decoder, of stability.
    """
    left, right = (
        torch.nn.functional.normalize(rows.detach().flatten(1).double(), dim=-1)
        for rows in (reference, decoder)
    )
    return (left @ right.T).amax(dim=1)
