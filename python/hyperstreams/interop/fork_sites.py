"""One site's parameters in the forks of hyper-connections, and in that package itself.

Here: the package of lucidrains; the modules that mHC-lite, KromHC and hc-stream-collapse released;
tokenbender's. They store the mixing matrix [source, destination] beside the read weights.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..nn import Connection, ConnectionConfig, get_connection
from .layout import Site, SiteLayout, Tensors, expect


def _gamma(site: Connection) -> Tensor:
    assert site.phi is not None
    if site.norm_weight is None:
        return torch.zeros_like(site.phi[0])
    return site.norm_weight.detach() - 1


_FORK_NAMES = {
    "norm.gamma": "norm_weight",
    "static_alpha": "bias",
    "static_beta": "bias",
    "dynamic_alpha_fn": "phi",
    "dynamic_beta_fn": "phi",
}
_HC_NAMES = _FORK_NAMES | {"dynamic_alpha_scale": "alpha", "dynamic_beta_scale": "alpha"}
_MHC_NAMES = _FORK_NAMES | {
    "pre_branch_scale": "alpha",
    "residual_scale": "alpha",
    "h_post_scale": "alpha",
}
_STORED = "static_alpha and dynamic_alpha_fn: [source, destination] to [destination, source]"


def _fork_shape(tensors: Tensors, *, matrix: bool) -> tuple[int, int]:
    """(n, size of the normalised vector), refusing fractions and several input views."""
    n = tensors["static_beta"].numel()
    if matrix and tuple(tensors["static_alpha"].shape) != (n, n + 1):
        raise ValueError(
            f"load_foreign: static_alpha: expected shape {[n, n + 1]} (one fraction, one input "
            f"view), got {list(tensors['static_alpha'].shape)}"
        )
    return n, tensors["norm.gamma"].numel()


def _load_hc(tensors: Tensors, config: ConnectionConfig) -> Site:
    n, width = _fork_shape(tensors, matrix=True)
    alpha, beta = tensors["dynamic_alpha_fn"], tensors["dynamic_beta_fn"]
    expect("dynamic_alpha_fn", alpha, width, n + 1)
    expect("dynamic_beta_fn", beta, width)
    static = tensors["static_alpha"]
    state = {
        "norm_weight": tensors["norm.gamma"] + 1,
        "phi": torch.cat([alpha[:, :1].T, beta.unsqueeze(0), alpha[:, 1:].T]),
        "bias": torch.cat([static[:, 0], tensors["static_beta"], static[:, 1:].T.flatten()]),
        "alpha": torch.stack(
            [tensors["dynamic_alpha_scale"].reshape(()), tensors["dynamic_beta_scale"].reshape(())]
        ),
    }
    return Site(config, n, width, state, (_STORED,))


def _save_hc(site: Connection) -> dict[str, Tensor]:
    assert site.phi is not None
    n = site.n_streams
    phi, alpha = site.phi.detach(), site.alpha.detach()
    read, write, mix = site.bias.detach().split([n, n, n * n])
    return {
        "norm.gamma": _gamma(site),
        "static_alpha": torch.cat([read.unsqueeze(1), mix.view(n, n).T], dim=1),
        "static_beta": write.clone(),
        "dynamic_alpha_fn": torch.cat([phi[:1], phi[2:]]).T.contiguous(),
        "dynamic_beta_fn": phi[1].clone(),
        "dynamic_alpha_scale": alpha[0].clone(),
        "dynamic_beta_scale": alpha[1].clone(),
    }


def _mhc_scales(tensors: Tensors) -> Tensor:
    names = ("pre_branch_scale", "h_post_scale", "residual_scale")
    return torch.cat([tensors[name].reshape(1) for name in names])


def _saved_mhc_scales(site: Connection) -> dict[str, Tensor]:
    alpha = site.alpha.detach()
    return {
        "pre_branch_scale": alpha[:1].clone(),
        "h_post_scale": alpha[1].clone(),
        "residual_scale": alpha[2:3].clone(),
    }


def _load_lucidrains_mhc(tensors: Tensors, config: ConnectionConfig) -> Site:
    n, width = _fork_shape(tensors, matrix=True)
    alpha = tensors["dynamic_alpha_fn"]
    if alpha.ndim == 2:  # releases before "dynamic alpha proposals"
        alpha = alpha.unsqueeze(0)
    alpha = expect("dynamic_alpha_fn", alpha, 1, width, n + 1)[0]
    beta = expect("dynamic_beta_fn", tensors["dynamic_beta_fn"], width)
    static = tensors["static_alpha"]
    state = {
        "norm_weight": tensors["norm.gamma"] + 1,
        "phi": torch.cat([alpha[:, :1].T, beta.unsqueeze(0), alpha[:, 1:].T]),
        "bias": torch.cat([static[:, 0], tensors["static_beta"], static[:, 1:].T.flatten()]),
        "alpha": _mhc_scales(tensors),
    }
    return Site(config, n, width, state, (_STORED,))


def _save_lucidrains_mhc(site: Connection) -> dict[str, Tensor]:
    assert site.phi is not None
    n, phi = site.n_streams, site.phi.detach()
    read, write, mix = site.bias.detach().split([n, n, n * n])
    return {
        "norm.gamma": _gamma(site),
        "static_alpha": torch.cat([read.unsqueeze(1), mix.view(n, n).T], dim=1),
        "static_beta": write.clone(),
        "dynamic_alpha_fn": torch.cat([phi[:1], phi[2:]]).T.unsqueeze(0).contiguous(),
        "dynamic_beta_fn": phi[1].clone(),
        **_saved_mhc_scales(site),
    }


_INTERLEAVED = (
    "dynamic_alpha_fn: [n C, n (1 + n)], per source its read and its destinations, to phi [K, n C]"
)


def _load_mhc(tensors: Tensors, config: ConnectionConfig) -> Site:
    n, size = _fork_shape(tensors, matrix=True)
    alpha = expect("dynamic_alpha_fn", tensors["dynamic_alpha_fn"], size, n * (n + 1))
    beta = expect("dynamic_beta_fn", tensors["dynamic_beta_fn"], size, n)
    per_source = alpha.unflatten(1, (n, n + 1))
    static = tensors["static_alpha"]
    state = {
        "norm_weight": tensors["norm.gamma"] + 1,
        "phi": torch.cat([per_source[..., 0].T, beta.T, per_source[..., 1:].flatten(1).T]),
        "bias": torch.cat([static[:, 0], tensors["static_beta"], static[:, 1:].flatten()]),
        "alpha": _mhc_scales(tensors),
    }
    return Site(config, n, size // n, state, (_INTERLEAVED,))


def _save_mhc(site: Connection) -> dict[str, Tensor]:
    assert site.phi is not None
    n = site.n_streams
    read, write, mix = site.bias.detach().split([n, n, n * n])
    phi_read, phi_write, phi_mix = site.phi.detach().split([n, n, n * n])
    per_source = torch.cat([phi_read.unsqueeze(1), phi_mix.unflatten(0, (n, n))], dim=1)
    return {
        "norm.gamma": _gamma(site),
        "static_alpha": torch.cat([read.unsqueeze(1), mix.view(n, n)], dim=1),
        "static_beta": write.clone(),
        "dynamic_alpha_fn": per_source.flatten(0, 1).T.contiguous(),
        "dynamic_beta_fn": phi_write.T.contiguous(),
        **_saved_mhc_scales(site),
    }


_VECTOR = "dynamic_alpha_fn and dynamic_beta_fn: [n C, outputs] to phi [K, n C]"


def _load_vector(tensors: Tensors, config: ConnectionConfig) -> Site:
    """mHC-lite and KromHC: the static logits are one vector, reads first."""
    n, size = _fork_shape(tensors, matrix=False)
    count = n + config.mixer.logit_count(n)
    alpha = expect("dynamic_alpha_fn", tensors["dynamic_alpha_fn"], size, count)
    beta = expect("dynamic_beta_fn", tensors["dynamic_beta_fn"], size, n)
    static = expect("static_alpha", tensors["static_alpha"], count)
    state = {
        "norm_weight": tensors["norm.gamma"] + 1,
        "phi": torch.cat([alpha[:, :n].T, beta.T, alpha[:, n:].T]),
        "bias": torch.cat([static[:n], tensors["static_beta"], static[n:]]),
        "alpha": _mhc_scales(tensors),
    }
    return Site(config, n, size // n, state, (_VECTOR,))


def _save_vector(site: Connection) -> dict[str, Tensor]:
    assert site.phi is not None
    n, phi, bias = site.n_streams, site.phi.detach(), site.bias.detach()
    return {
        "norm.gamma": _gamma(site),
        "static_alpha": torch.cat([bias[:n], bias[2 * n :]]),
        "static_beta": bias[n : 2 * n].clone(),
        "dynamic_alpha_fn": torch.cat([phi[:n], phi[2 * n :]]).T.contiguous(),
        "dynamic_beta_fn": phi[n : 2 * n].T.contiguous(),
        **_saved_mhc_scales(site),
    }


def _is_vector_of(connection: str) -> Callable[[Tensors], bool]:
    def accepts(tensors: Tensors) -> bool:
        static, n = tensors["static_alpha"], tensors["static_beta"].numel()
        mixer = get_connection(connection).mixer
        if static.ndim != 1 or n > mixer.max_streams:
            return False
        return static.numel() == n + mixer.logit_count(n)

    return accepts


def _matrix_of(columns: Callable[[int], int]) -> Callable[[Tensors], bool]:
    def accepts(tensors: Tensors) -> bool:
        n = tensors["static_beta"].numel()
        alpha = tensors["dynamic_alpha_fn"]
        return tensors["static_alpha"].ndim == 2 and alpha.shape[-1] == columns(n)

    return accepts


def _load_tokenbender(tensors: Tensors, config: ConnectionConfig) -> Site:
    n = tensors["H_res_logits"].shape[0]
    parts = [tensors["H_pre_logits"], tensors["H_post_logits"], tensors["H_res_logits"]]
    expect("H_res_logits", parts[2], n, n)
    # Only the unused controller tells the width, on which no parameter here depends.
    width = tensors["norm.gamma"].numel() if "norm.gamma" in tensors else 1
    return Site(config, n, width, {"bias": torch.cat([part.reshape(-1) for part in parts])})


def _save_tokenbender(site: Connection) -> dict[str, Tensor]:
    n = site.n_streams
    read, write, mix = site.bias.detach().split([n, n, n * n])
    return {
        "H_pre_logits": read.clone(),
        "H_post_logits": write.clone(),
        "H_res_logits": mix.view(n, n).clone(),
    }


FORK_LAYOUTS = (
    # First: its modules also hold an unused controller of HC.
    SiteLayout(
        "tokenbender",
        "tokenbender",
        {"H_pre_logits": "bias", "H_post_logits": "bias", "H_res_logits": "bias"},
        _load_tokenbender,
        _save_tokenbender,
        ignored=frozenset(_HC_NAMES),
        settings={
            "sinkhorn_iters": ("mixer.iterations",),
            "sinkhorn_tau": ("mixer.temperature",),
        },
    ),
    SiteLayout(
        "hc",
        "lucidrains_hc",
        _HC_NAMES,
        _load_hc,
        _save_hc,
        settings={"tanh": ("read_activation.kind", "write_activation.kind", "mix_activation.kind")},
    ),
    SiteLayout(
        "mhc", "mhc", _MHC_NAMES, _load_mhc, _save_mhc, accepts=_matrix_of(lambda n: n * (n + 1))
    ),
    SiteLayout(
        "lucidrains_mhc",
        "lucidrains_mhc",
        _MHC_NAMES,
        _load_lucidrains_mhc,
        _save_lucidrains_mhc,
        settings={"sinkhorn_iters": ("mixer.iterations",)},
        accepts=_matrix_of(lambda n: n + 1),
    ),
    *(
        SiteLayout(
            connection,
            connection,
            _MHC_NAMES,
            _load_vector,
            _save_vector,
            accepts=_is_vector_of(connection),
        )
        for connection in ("mhc_lite", "kromhc")
    ),
)
"""Told apart by their tensors' names and shapes, in this order.

With n = 2 the last two have the same shapes, and compute the same: the setting ``hyper_conn_type``
tells them apart.
"""
