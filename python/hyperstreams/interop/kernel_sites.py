"""One site's parameters in DeepSeek-V4, Megatron-LM, Liger and TransformerEngine.

All four store ``n`` read, ``n`` write and ``n n`` mixing logits in this order, as here. What
differs is the shape of the projection, and whether the mixing matrix is stored [source,
destination], which the orientation of the connection's mixer records.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..nn import Connection, ConnectionConfig
from .layout import Site, SiteLayout, Tensors, expect


def streams_of(logits: int) -> int:
    """n of ``n (n + 2)`` logits; ValueError when there is none."""
    n = int((logits + 1) ** 0.5 + 0.5) - 1
    if n < 1 or n * (n + 2) != logits:
        raise ValueError(f"load_foreign: biases: expected n (n + 2) of them, got {logits}")
    return n


def _folded(site: Connection) -> Tensor:
    """``phi`` with the norm weight, if any, multiplied into it: the peer has none."""
    assert site.phi is not None
    phi = site.phi.detach()
    return phi.clone() if site.norm_weight is None else phi * site.norm_weight.detach()


_SOURCE_ROWS = (
    "the mixing matrix: stored [source, destination]; the mixer's orientation transposes it"
)


def _load_deepseek(tensors: Tensors, config: ConnectionConfig) -> Site:
    n = streams_of(tensors["base"].numel())
    phi = expect("fn", tensors["fn"], n * (n + 2), tensors["fn"].shape[-1])
    state = {"phi": phi, "bias": tensors["base"], "alpha": expect("scale", tensors["scale"], 3)}
    return Site(config, n, phi.shape[1] // n, state, (_SOURCE_ROWS,))


def _save_deepseek(site: Connection) -> dict[str, Tensor]:
    bias, alpha = site.bias.detach(), site.alpha.detach()
    return {"fn": _folded(site), "base": bias.clone(), "scale": alpha.clone()}


def _three(tensors: Tensors) -> Tensor:
    return torch.cat([tensors[f"alpha_{part}"].reshape(1) for part in ("pre", "post", "res")])


def _load_megatron(tensors: Tensors, config: ConnectionConfig) -> Site:
    n = streams_of(tensors["bias"].numel())
    weight = tensors["mapping_proj.weight"]
    phi = expect("mapping_proj.weight", weight, n * (n + 2), weight.shape[-1])
    state = {"phi": phi, "bias": tensors["bias"], "alpha": _three(tensors)}
    return Site(config, n, phi.shape[1] // n, state, (_SOURCE_ROWS,))


def _save_megatron(site: Connection) -> dict[str, Tensor]:
    alpha = site.alpha.detach()
    return {
        "mapping_proj.weight": _folded(site),
        "bias": site.bias.detach().clone(),
        "alpha_pre": alpha[:1].clone(),
        "alpha_post": alpha[1:2].clone(),
        "alpha_res": alpha[2:].clone(),
    }


def _load_liger(tensors: Tensors, config: ConnectionConfig) -> Site:
    n = streams_of(tensors["b"].numel())
    phi = expect("phi", tensors["phi"], tensors["phi"].shape[0], n * (n + 2))
    state = {"phi": phi.T, "bias": tensors["b"], "alpha": _three(tensors)}
    return Site(config, n, phi.shape[0] // n, state, ("phi: [n C, K] to [K, n C]",))


def _save_liger(site: Connection) -> dict[str, Tensor]:
    alpha = site.alpha.detach()
    return {
        "phi": _folded(site).T.contiguous(),
        "b": site.bias.detach().clone(),
        "alpha_pre": alpha[0].clone(),
        "alpha_post": alpha[1].clone(),
        "alpha_res": alpha[2].clone(),
    }


_CHANNEL_MAJOR = "phi (and norm_weight): columns [C, n], as its streams [..., C, n], to [n, C]"


def _load_transformer_engine(tensors: Tensors, config: ConnectionConfig) -> Site:
    n = streams_of(tensors["beta"].numel())
    count = n * (n + 2)
    # Megatron may pad phi to 32 rows, of which the kernels use the first ones.
    phi = expect("phi", tensors["phi"][:count], count, tensors["phi"].shape[-1])
    width = phi.shape[1] // n
    state = {
        "phi": phi.unflatten(1, (width, n)).transpose(1, 2).flatten(1),
        "bias": tensors["beta"].reshape(count),
        "alpha": expect("alpha", tensors["alpha"], 3),
    }
    if "norm_weight" in tensors:
        weight = expect("norm_weight", tensors["norm_weight"], n * width)
        state["norm_weight"] = weight.unflatten(0, (width, n)).T.flatten()
    return Site(config, n, width, state, (_CHANNEL_MAJOR, _SOURCE_ROWS))


def _save_transformer_engine(site: Connection) -> dict[str, Tensor]:
    n, width = site.n_streams, site.width
    return {
        "phi": _folded(site).unflatten(1, (n, width)).transpose(1, 2).flatten(1),
        "alpha": site.alpha.detach().clone(),
        "beta": site.bias.detach().unsqueeze(0).clone(),
    }


_THREE = {"alpha_pre": "alpha", "alpha_post": "alpha", "alpha_res": "alpha"}

DEEPSEEK = SiteLayout(
    "deepseek_v4",
    "deepseek_v4",
    {"fn": "phi", "base": "bias", "scale": "alpha"},
    _load_deepseek,
    _save_deepseek,
    settings={
        "hc_sinkhorn_iters": ("mixer.iterations",),
        "hc_eps": ("mixer.eps", "read_activation.offset"),
        "rms_norm_eps": ("eps",),
    },
)
MEGATRON = SiteLayout(
    "megatron",
    "megatron",
    {"mapping_proj.weight": "phi", "bias": "bias", **_THREE},
    _load_megatron,
    _save_megatron,
    settings={"mhc_sinkhorn_iterations": ("mixer.iterations",)},
)
LIGER = SiteLayout(
    "liger",
    "liger",
    {"phi": "phi", "b": "bias", **_THREE},
    _load_liger,
    _save_liger,
    settings={
        "tmax": ("mixer.iterations",),
        "rms_eps": ("eps",),
        "pre_eps": ("read_activation.offset",),
        "sinkhorn_eps": ("mixer.eps",),
        "post_mult": ("write_activation.factor",),
    },
)
TRANSFORMER_ENGINE = SiteLayout(
    "transformer_engine",
    "transformer_engine",
    {"phi": "phi", "alpha": "alpha", "beta": "bias"},
    _load_transformer_engine,
    _save_transformer_engine,
    optional={"norm_weight": "norm_weight"},
)
