"""Outputs and all gradients against numbers that the released code gave (docs/interop.md)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hyperstreams import ops
from hyperstreams.interop import load_foreign
from hyperstreams.interop.checkpoint import Checkpoint
from hyperstreams.interop.modules import read_site
from hyperstreams.interop.report import ForeignReport
from hyperstreams.interop.sources import SOURCES
from safetensors.torch import load_file
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"

# Peer: its source, its settings, the largest difference allowed, relative to the largest entry of
# each tensor and at least absolute.
PEERS = {
    "hc": ("hyper_connections", {}, 1e-5),
    "mhc": ("hyper_connections", {}, 1e-5),
    "mhc_lite": ("hyper_connections", {}, 1e-5),
    "kromhc": ("hyper_connections", {}, 1e-5),
    "lucidrains_mhc": ("hyper_connections", {}, 1e-5),
    "lucidrains_mhc_log": ("hyper_connections", {}, 1e-5),
    "tokenbender": ("hyper_connections", {}, 1e-5),
    "deepseek_v4": ("deepseek_v4", {}, 1e-5),
    "megatron": ("megatron", {}, 1e-5),
    "liger": ("liger", {}, 1e-5),
    "transformer_engine": ("transformer_engine", {}, 1e-5),
}
PREFIXES = {
    "deepseek_v4": "model.layers.0.attn_hc.",
    "megatron": "decoder.layers.0.mlp_hyper_connection.",
}


def cases() -> list[tuple[str, str]]:
    found = []
    for peer in PEERS:
        names = load_file(GOLDEN / f"{peer}.safetensors")
        found += [(peer, case) for case in sorted({name.partition(":")[0] for name in names})]
    return found


def load(peer: str, case: str) -> dict[str, Tensor]:
    data = load_file(GOLDEN / f"{peer}.safetensors")
    prefix = f"{case}:"
    return {n.removeprefix(prefix): v for n, v in data.items() if n.startswith(prefix)}


def gap(actual: Tensor | None, expected: Tensor) -> float:
    assert actual is not None
    assert actual.shape == expected.shape
    return ((actual - expected).abs().max() / expected.abs().max().clamp_min(1)).item()


@pytest.mark.parametrize(("peer", "case"), cases())
def test_site(peer: str, case: str) -> None:
    source, settings, bound = PEERS[peer]
    data = load(peer, case)
    prefix = PREFIXES.get(peer, "")
    # Gradients flow through the conversion, so that they are those of the foreign tensors.
    foreign = {
        name.removeprefix("param/"): value.requires_grad_()
        for name, value in data.items()
        if name.startswith("param/")
    }
    site = read_site(
        SOURCES[source],
        prefix,
        {name: prefix + name for name in foreign},
        Checkpoint({prefix + name: (lambda value=value: value) for name, value in foreign.items()}),
        settings,
        strict=True,
        report=ForeignReport(source),
    )
    modules, report = load_foreign({prefix + n: v.detach() for n, v in foreign.items()})
    assert set(report.mapped) == {prefix + name for name in foreign}
    (connection,) = modules.children()
    x = data["x"].requires_grad_()
    branch = data["branch"].requires_grad_()
    _, u, _, h_post, h_res = torch.func.functional_call(connection, site.state, (x,))
    out = ops.mix_write(x, torch.tanh(u @ branch.T), h_res, h_post)
    assert gap(out, data["out"]) <= bound
    (out * data["cotangent"]).sum().backward()
    leaves = {"x": x, "branch": branch, **foreign}
    gaps = {name: gap(leaf.grad, data[f"grad/{name}"]) for name, leaf in leaves.items()}
    assert max(gaps.values()) <= bound, gaps
