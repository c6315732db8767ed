"""The crosscoder: one sparse code for the states of several sites."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .activation import keep_above, keep_batch_top_k, keep_top_k
from .config import CrosscoderConfig


class Crosscoder(nn.Module):
    """``f = act(sum_i x_i W_enc[i] + b_enc)``, ``x_i' = f W_dec[:, i] + b_dec[i]``.

    x are activations ``a [N, I, d]`` of I sites, normalised: ``x_i = scale_i (a_i - shift_i)``.
    Public methods take and return activations as they are in the model; the scale is inside.

    Parameters (float32): ``encoder [I, d, m]``, ``encoder_bias [m]``, ``decoder [m, I, d]``,
    ``decoder_bias [I, d]``. Buffers: ``scale [I]``, ``shift [I, d]``, ``threshold [1]`` (batch
    top-k only). Start: decoder rows in random directions of norm ``config.decoder_norm`` at every
    site, the encoder its transpose, biases 0. With one site this is a sparse autoencoder.

    After Lindsey et al. 2024 (L1) and Minder et al. 2025 (batch top-k).
    """

    scale: Tensor
    shift: Tensor
    threshold: Tensor

    def __init__(
        self,
        config: CrosscoderConfig,
        *,
        n_sites: int,
        width: int,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("n_sites", n_sites), ("width", width)):
            if value < 1:
                raise ValueError(f"Crosscoder: {name}: expected at least 1, got {value}")
        self.config = config
        m = config.n_latents
        rows = torch.randn(m, n_sites, width, generator=generator)
        rows = rows / rows.norm(dim=-1, keepdim=True) * config.decoder_norm
        self.decoder = nn.Parameter(rows)
        self.encoder = nn.Parameter(rows.detach().permute(1, 2, 0).clone())
        self.encoder_bias = nn.Parameter(torch.zeros(m))
        self.decoder_bias = nn.Parameter(torch.zeros(n_sites, width))
        self.register_buffer("scale", torch.ones(n_sites))
        self.register_buffer("shift", torch.zeros(n_sites, width))
        self.register_buffer("threshold", torch.zeros(1))

    @property
    def n_sites(self) -> int:
        return self.decoder.shape[1]

    @property
    def width(self) -> int:
        return self.decoder.shape[2]

    @torch.no_grad()
    def calibrate(self, sample: Tensor) -> None:
        """Set ``scale`` and ``shift`` from ``sample [N, I, d]``, and ``decoder_bias`` to its mean.

        ``site``: ``scale_i = sqrt(d) / mean_t |a_i|``; ``global``: one such number from the mean
        over all sites; ``none``: 1. With ``centre`` the norms are those of ``a_i - mean a_i``.
        """
        self._check(sample)
        mean = sample.mean(dim=0)
        self.shift.copy_(mean if self.config.centre else torch.zeros_like(mean))
        norms = (sample - self.shift).norm(dim=-1).mean(dim=0)
        if self.config.norm == "global":
            norms = norms.mean().expand_as(norms)
        if self.config.norm == "none":
            self.scale.fill_(1.0)
        elif bool((norms > 0).all()):
            self.scale.copy_(math.sqrt(self.width) / norms)
        else:
            raise ValueError(
                "Crosscoder.calibrate: sample: expected a positive mean norm at every site, "
                f"got {norms.tolist()}"
            )
        self.decoder_bias.copy_(self.normalise(sample).mean(dim=0))

    def normalise(self, a: Tensor) -> Tensor:
        """Activations ``[..., I, d]`` in the coder's units."""
        return (a - self.shift) * self.scale[:, None]

    def denormalise(self, x: Tensor) -> Tensor:
        """The inverse of :meth:`normalise`."""
        return x / self.scale[:, None] + self.shift

    def pre_activations(self, x: Tensor) -> Tensor:
        """``sum_i x_i W_enc[i] + b_enc`` of normalised activations: ``[N, I, d] -> [N, m]``."""
        return torch.addmm(self.encoder_bias, x.flatten(1), self.encoder.flatten(0, 1))

    def score(self, latents: Tensor) -> Tensor:
        """``f_j sum_i |W_dec[j, i]|``: what a latent contributes; no gradient."""
        return latents.detach() * self.decoder.detach().norm(dim=-1).sum(dim=-1)

    def select(self, pre: Tensor) -> tuple[Tensor, Tensor | None]:
        """Latents ``[N, m]`` by the rule of training, and batch top-k's smallest kept score."""
        latents = pre.relu()
        if self.config.activation == "l1":
            return latents, None
        if self.config.activation == "topk":
            return keep_top_k(latents, self.score(latents), self.config.k), None
        return keep_batch_top_k(latents, self.score(latents), self.config.k)

    def encode(self, a: Tensor) -> Tensor:
        """Latents ``[N, m]`` of activations ``[N, I, d]``; batch top-k uses its threshold."""
        self._check(a)
        pre = self.pre_activations(self.normalise(a))
        if self.config.activation != "batch_topk":
            return self.select(pre)[0]
        latents = pre.relu()
        return keep_above(latents, self.score(latents), self.threshold)

    def decode_normalised(self, latents: Tensor) -> Tensor:
        """``f W_dec + b_dec`` in the coder's units: ``[N, m] -> [N, I, d]``."""
        flat = torch.addmm(self.decoder_bias.flatten(), latents, self.decoder.flatten(1))
        return flat.view(-1, self.n_sites, self.width)

    def decode(self, latents: Tensor) -> Tensor:
        """Activations ``[N, I, d]`` as in the model."""
        return self.denormalise(self.decode_normalised(latents))

    def forward(self, a: Tensor) -> Tensor:
        """The reconstruction of ``a [N, I, d]``."""
        return self.decode(self.encode(a))

    def decoder_norms(self, *, raw: bool = False) -> Tensor:
        """``|W_dec[j, i]|``: ``[m, I]``; ``raw`` undoes the normalisation of the sites."""
        norms = self.decoder.detach().norm(dim=-1)
        return norms / self.scale if raw else norms

    def _check(self, a: Tensor) -> None:
        if a.ndim != 3 or a.shape[1:] != self.decoder.shape[1:]:
            raise ValueError(
                f"Crosscoder: a: expected shape [N, {self.n_sites}, {self.width}], "
                f"got {list(a.shape)}"
            )
