"""Export of a one-site crosscoder to SAELens: ``cfg.json`` and ``sae_weights.safetensors``.

SAELens 6 reads ``W_enc [d_in, d_sae]``, ``W_dec [d_sae, d_in]``, ``b_enc``, ``b_dec`` and, for
``jumprelu``, ``threshold [d_sae]``; what a config does not name takes its default.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from .model import Crosscoder
from .storage import require_safetensors

ARCHITECTURES = {"l1": "standard", "topk": "topk", "batch_topk": "jumprelu"}
"""Batch top-k with its threshold is a JumpReLU with one threshold at inference."""

FORMAT = "6.0.0"
"""The version whose format is written. SAELens takes a config without one for older and drops its
metadata."""


@torch.no_grad()
def export_saelens(
    coder: Crosscoder, folder: str | Path, *, metadata: dict[str, Any] | None = None
) -> Path:
    """Write ``coder`` (one site) so that ``SAE.load_from_disk(folder)`` gives the same outputs.

    Normalisation is folded into the weights: the exported coder takes activations as they are in
    the model. Decoder rows are made unit vectors with their norm in the encoder, so that ranking by
    pre-activation is the ranking by ``f_j |W_dec[j]|`` that this package trains with. Its latents
    are ``f_j |W_dec[j]| / scale`` of ``coder.encode``'s ``f_j``; reconstructions are equal.
    """
    if coder.n_sites != 1:
        raise ValueError(
            f"export_saelens: coder: expected one site, got {coder.n_sites}; SAELens has no "
            "crosscoder"
        )
    scale, shift = coder.scale[0], coder.shift[0]
    norm = coder.decoder[:, 0].norm(dim=-1)
    encoder = coder.encoder[0] * norm
    weights = {
        "W_enc": encoder,
        "b_enc": coder.encoder_bias * norm / scale - shift @ encoder,
        # A latent without a decoder writes nothing whatever it does; it must not divide by zero.
        "W_dec": coder.decoder[:, 0] / torch.where(norm > 0, norm, 1.0)[:, None],
        "b_dec": coder.decoder_bias[0] / scale + shift,
    }
    config: dict[str, Any] = {
        "architecture": ARCHITECTURES[coder.config.activation],
        "d_in": coder.width,
        "d_sae": coder.config.n_latents,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": FORMAT} | (metadata or {}),
    }
    if coder.config.activation == "topk":
        config["k"] = coder.config.k
    if coder.config.activation == "batch_topk":
        weights["threshold"] = coder.threshold.expand(coder.config.n_latents) / scale
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.float().contiguous().cpu() for name, value in weights.items()}
    require_safetensors().save_file(tensors, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    return folder
