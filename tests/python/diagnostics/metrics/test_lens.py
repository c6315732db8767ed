"""Readout parts add up to the readout, whatever it is, and the lens at the end is the model."""

from __future__ import annotations

import math

import pytest
import torch
from hyperstreams.diagnostics import lens
from torch import Tensor, nn

N, C, V = 3, 8, 20


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def norms() -> dict[str, nn.Module | None]:
    made: dict[str, nn.Module | None] = {
        "none": None,
        "layer": nn.LayerNorm(C, dtype=torch.float64),
        "layer_plain": nn.LayerNorm(C, elementwise_affine=False),
        "rms": nn.RMSNorm(C, eps=1e-5, dtype=torch.float64),
        "rms_default_eps": nn.RMSNorm(C, dtype=torch.float64),
    }
    with torch.no_grad():
        for module in made.values():
            if module is not None:
                for seed, parameter in enumerate(module.parameters()):
                    parameter.copy_(randn(C, seed=seed + 5))
    return made


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("position", ["before", "after"])
@pytest.mark.parametrize("name", ["none", "layer", "layer_plain", "rms", "rms_default_eps"])
@torch.no_grad()
def test_parts_sum_to_the_readout(name: str, position: lens.Position, weighted: bool) -> None:
    norm, streams = norms()[name], randn(4, 6, N, C)
    weights = randn(4, 6, N, seed=3) if weighted else None
    scale = 1.0 if weights is None else weights.unsqueeze(-1)
    parts = lens.readout_parts(streams, norm, position=position, weights=weights)
    if norm is None:
        expected = (streams * scale).sum(-2)
    elif position == "before":
        expected = (norm(streams) * scale).sum(-2)
    else:
        expected = norm((streams * scale).sum(-2))
    assert torch.allclose(parts.sum(-2), expected)
    share = lens.readout_share(parts)
    assert torch.allclose(share.sum(-1), torch.ones(4, 6).double())
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    moved = None if weights is None else weights[..., order]
    permuted = lens.readout_parts(streams[..., order, :], norm, position=position, weights=moved)
    assert torch.allclose(lens.readout_share(permuted), share[..., order])


def test_identical_streams_share_equally() -> None:
    streams = randn(4, 1, C).expand(4, N, C)
    for norm in norms().values():
        for position in ("before", "after"):
            parts = lens.readout_parts(streams, norm, position=position)  # type: ignore[arg-type]
            share = lens.readout_share(parts)
            assert torch.allclose(share, torch.full((4, N), 1 / N).double())


def test_norm_before_the_sum_hides_the_norm_of_a_stream() -> None:
    streams = torch.eye(N, C, dtype=torch.float64).unsqueeze(0).clone()
    streams[:, 0] *= 100
    before = lens.readout_share(lens.readout_parts(streams, nn.RMSNorm(C, eps=0.0).double()))
    assert torch.allclose(before, torch.full((1, N), 1 / N).double())
    after = lens.readout_share(
        lens.readout_parts(streams, nn.RMSNorm(C, eps=0.0).double(), position="after")
    )
    assert after[0, 0] > 0.99


@torch.no_grad()
def test_subsets() -> None:
    assert lens.subsets(2) == [(0,), (1,), (0, 1)]
    parts, unembedding = randn(4, N, C), randn(V, C, seed=1)
    logits = lens.subset_logits(parts, unembedding)
    assert logits.shape == (7, 4, V)
    assert torch.allclose(logits[-1], parts.sum(-2) @ unembedding.T)
    assert torch.allclose(logits[4], (parts[:, 0] + parts[:, 2]) @ unembedding.T)
    vocabulary = lens.readout_share(parts @ unembedding.T)
    assert torch.allclose(vocabulary.sum(-1), torch.ones(4).double())


def test_scores() -> None:
    final = randn(5, V)
    same = lens.lens_scores(final, final, torch.arange(5))
    assert same.kl.abs().max() < 1e-12
    assert same.agreement.all()
    assert same.log_prob is not None
    expected = nn.functional.cross_entropy(final, torch.arange(5), reduction="none")
    assert torch.allclose(same.log_prob, -expected)
    uniform = lens.lens_scores(torch.zeros(3, 5, V), final)
    assert torch.allclose(uniform.entropy, torch.full((3, 5), math.log(V)).double())
    assert torch.allclose(uniform.kl, math.log(V) - same.entropy.expand(3, 5))
    assert uniform.log_prob is None
    shifted = lens.lens_scores(final + 3.0, final)
    assert shifted.kl.abs().max() < 1e-12


def test_wrong_arguments_are_worded() -> None:
    with pytest.raises(ValueError, match="readout_parts: position: expected 'before'"):
        lens.readout_parts(randn(1, N, C), None, position="inside")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"readout_parts: norm: expected nn\.LayerNorm"):
        lens.readout_parts(randn(1, N, C), nn.Identity(), position="after")
