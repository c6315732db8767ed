"""Against the installed packages themselves: ``pip install hyperstreams[peers]``.

The same numbers as in ``test_golden.py``, made now: whatever version is installed.
"""

from __future__ import annotations

import importlib
import os
import warnings
from types import ModuleType
from typing import Any

import hyperstreams as hs
import pytest
import torch
from hyperstreams.interop.lucidrains import (
    get_init_and_expand_reduce_stream_functions,
    mc_get_init_and_expand_reduce_stream_functions,
)
from torch import Tensor, nn

BOUND = 1e-5


def installed(name: str) -> ModuleType:
    """The module, or a skip that says what to install."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what other packages say when imported
        try:
            return importlib.import_module(name)
        except ImportError as error:
            package = name.partition(".")[0].replace("_", "-")
            pytest.skip(f"{package} is not installed ({error}): pip install hyperstreams[peers]")


def randomise(module: nn.Module, spread: float, seed: int) -> None:
    """Normal values; the static mixing logits get the spread, the dynamic ones stay near 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            value = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1 and "static" not in name:
                value /= max(parameter.shape) ** 0.5
            elif name == "static_alpha" and spread:
                value[:, 1:] *= spread
            elif name == "base":
                n = int((len(value) + 1) ** 0.5) - 1
                value[2 * n :] *= spread
            parameter.copy_(value)


def close(actual: Tensor | None, expected: Tensor | None) -> None:
    assert actual is not None
    assert expected is not None
    scale = max(1.0, expected.abs().max().item())
    torch.testing.assert_close(actual, expected, atol=BOUND * scale, rtol=0)


def tensors(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.named_parameters()}


@pytest.mark.parametrize("n", [2, 3, 4, 8])
@pytest.mark.parametrize("spread", [4.0, 8.0])
def test_deepseek_v4(n: int, spread: float) -> None:
    """Transformers' module: coefficients, collapsed input, and all gradients through both."""
    name = "transformers.models.deepseek_v4"
    modeling = installed(f"{name}.modeling_deepseek_v4")
    config = installed(f"{name}.configuration_deepseek_v4").DeepseekV4Config()
    config.hc_mult, config.hidden_size = n, 6
    theirs = modeling.DeepseekV4HyperConnection(config)
    randomise(theirs, spread, n)
    prefix = "model.layers.0.attn_hc."
    settings = {
        key: getattr(config, key) for key in ("hc_eps", "hc_sinkhorn_iters", "rms_norm_eps")
    }
    foreign = {prefix + key: value for key, value in tensors(theirs).items()}
    modules, report = hs.load_foreign(foreign, config=settings)
    assert report.assumed == []
    ours = modules["L0a"]
    generator = torch.Generator().manual_seed(n)
    x = torch.randn(2, 5, n, 6, generator=generator)
    first, second = x.clone().requires_grad_(), x.clone().requires_grad_()
    post, comb, collapsed = theirs(first)
    _, u, _, h_post, h_res = ours(second)
    for actual, expected in ((u, collapsed), (h_post, post), (h_res, comb.transpose(-1, -2))):
        close(actual, expected)
    weights = [torch.randn(t.shape, generator=generator) for t in (u, h_post, h_res)]
    for parts in ((collapsed, post, comb.transpose(-1, -2)), (u, h_post, h_res)):
        sum((part * w).sum() for part, w in zip(parts, weights, strict=True)).backward()
    close(second.grad, first.grad)
    for key, parameter in (("fn", ours.phi), ("base", ours.bias), ("scale", ours.alpha)):
        close(parameter.grad, getattr(theirs, key).grad)


@pytest.mark.parametrize("n", [2, 3, 4, 8])
def test_deepseek_v4_head(n: int) -> None:
    name = "transformers.models.deepseek_v4"
    modeling = installed(f"{name}.modeling_deepseek_v4")
    config = installed(f"{name}.configuration_deepseek_v4").DeepseekV4Config()
    config.hc_mult, config.hidden_size = n, 6
    theirs = modeling.DeepseekV4HyperHead(config)
    randomise(theirs, 1.0, n)
    foreign = {f"model.hc_head.{key}": value for key, value in tensors(theirs).items()}
    modules, _ = hs.load_foreign(foreign)
    x = torch.randn(2, 5, n, 6, generator=torch.Generator().manual_seed(n))
    first, second = x.clone().requires_grad_(), x.clone().requires_grad_()
    expected, actual = theirs(first), modules["head"](second)
    close(actual, expected)
    expected.square().sum().backward()
    actual.square().sum().backward()
    close(second.grad, first.grad)
    head = modules["head"]
    for key, parameter in (("hc_fn", head.phi), ("hc_base", head.bias), ("hc_scale", head.alpha)):
        close(parameter.grad, getattr(theirs, key).grad)


@pytest.mark.parametrize("n", [2, 3, 4, 8])
@pytest.mark.parametrize(("constrained", "spread"), [(False, 1.0), (True, 4.0), (True, 8.0)])
def test_hyper_connections(constrained: bool, n: int, spread: float) -> None:
    """The package's factory and ours, two sites deep: residuals, outputs and all gradients."""
    package = installed("hyper_connections")
    width = 6
    peer: Any = package.get_init_and_expand_reduce_stream_functions
    own: Any = get_init_and_expand_reduce_stream_functions
    if constrained:
        peer = package.mc_get_init_and_expand_reduce_stream_functions
        own = mc_get_init_and_expand_reduce_stream_functions
    generator = torch.Generator().manual_seed(n)
    branches = [nn.Sequential(nn.Linear(width, width), nn.Tanh()) for _ in range(2)]
    for k, branch in enumerate(branches):
        randomise(branch, 0.0, k)
    x = torch.randn(2, 5, width, generator=generator)
    results = []
    init, expand, reduce = peer(n)
    sites = [init(dim=width, branch=None) for _ in branches]
    for k, site in enumerate(sites):
        randomise(site, spread, 10 * n + k)
    foreign = [tensors(site) for site in sites]
    own_init, own_expand, own_reduce = own(n)
    own_sites = []
    for state in foreign:
        site = own_init(dim=width)
        modules, report = hs.load_foreign(state)
        assert report.dropped == []
        site.connection.load_state_dict(modules["site"].state_dict())
        own_sites.append(site)
    for parts in ((sites, expand, reduce), (own_sites, own_expand, own_reduce)):
        leaf = x.clone().requires_grad_()
        h = parts[1](leaf)
        for site, branch in zip(parts[0], branches, strict=True):
            u, add_residual = site(h)
            h = add_residual(branch(u))
        out = parts[2](h)
        out.square().mean().backward()
        results.append((h, out, leaf.grad))
    for expected, actual in zip(*results, strict=True):
        close(actual, expected)
    for theirs, site in zip(sites, own_sites, strict=True):
        connection = site.connection
        close(connection.norm_weight.grad, theirs.norm.gamma.grad)
        close(connection.bias.grad[:n], theirs.static_alpha.grad[:, 0])
        close(connection.bias.grad[2 * n :].view(n, n), theirs.static_alpha.grad[:, 1:].T)
        close(connection.bias.grad[n : 2 * n], theirs.static_beta.grad)
        alpha = theirs.dynamic_alpha_fn.grad.reshape(width, n + 1)
        close(connection.phi.grad[0], alpha[:, 0])
        close(connection.phi.grad[2:], alpha[:, 1:].T)
        close(connection.phi.grad[1], theirs.dynamic_beta_fn.grad)
