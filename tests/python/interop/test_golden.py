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
BOUND = 1e-5

# Peer: its source. The first of the six tokens is a hundred times smaller than the others, where
# the eps of the norms matters.
PEERS = {
    "hc": "hyper_connections",
    "mhc": "hyper_connections",
    "mhc_lite": "hyper_connections",
    "kromhc": "hyper_connections",
    "lucidrains_mhc": "hyper_connections",
    "lucidrains_mhc_log": "hyper_connections",
    "tokenbender": "hyper_connections",
    "deepseek_v4": "deepseek_v4",
    "megatron": "megatron",
    "liger": "liger",
    "transformer_engine": "transformer_engine",
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


def gap(actual: Tensor | None, expected: Tensor, *, per_token: bool) -> float:
    """Largest difference, relative to the largest entry (of the token) where that exceeds 1."""
    assert actual is not None
    assert actual.shape == expected.shape
    size = expected.abs().amax((-2, -1), keepdim=True) if per_token else expected.abs().max()
    return ((actual - expected).abs() / size.clamp_min(1)).max().item()


@pytest.mark.parametrize(("peer", "case"), cases())
def test_site(peer: str, case: str) -> None:
    source = PEERS[peer]
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
        {},
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
    assert gap(out, data["out"], per_token=True) <= BOUND
    (out * data["cotangent"]).sum().backward()
    leaves = {"x": x, "branch": branch, **foreign}
    gaps = {
        name: gap(leaf.grad, data[f"grad/{name}"], per_token=name == "x")
        for name, leaf in leaves.items()
    }
    assert max(gaps.values()) <= BOUND, gaps
