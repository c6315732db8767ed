"""Sanity properties of norms, cosines and curvature; the Gram chain of a stack of sites."""

from __future__ import annotations

import math

import pytest
import torch
from hyperstreams.diagnostics import geometry
from hyperstreams.ops import mix_write
from torch import Tensor


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def degrees(x: Tensor, **options: int) -> list[float]:
    return torch.rad2deg(geometry.token_curvature(x, **options)[0]).tolist()


def test_gram_chain_over_sites() -> None:
    x = randn(3, 7, 4, 16)
    for site in range(6):
        y, r, q = (
            randn(3, 7, 16, seed=site),
            randn(3, 7, 4, 4, seed=site + 50),
            randn(3, 7, 4, seed=site + 99),
        )
        predicted = geometry.next_gram(geometry.extended_gram(x, y), r, q)
        x = mix_write(x, y, r, q)
        actual = x @ x.mT
        assert (predicted - actual).abs().max() <= 1e-10 * actual.abs().max()


def test_norms() -> None:
    x, y = randn(5, 4, 9), randn(5, 9, seed=1)
    gram = geometry.extended_gram(x, y)
    norm = geometry.stream_norm(gram)
    assert torch.allclose(norm[:, :4], x.norm(dim=-1))
    assert torch.allclose(norm[:, 4], y.norm(dim=-1))
    assert torch.allclose(geometry.stream_norm(9 * gram), 3 * norm)
    assert torch.allclose(geometry.norm_share(torch.full((4,), 7.0)), torch.full((4,), 0.25))
    assert torch.equal(geometry.norm_share(torch.zeros(4)), torch.zeros(4))


def test_cosine() -> None:
    replicated = randn(6, 1, 8).expand(6, 4, 8)
    gram = replicated @ replicated.mT
    assert torch.allclose(geometry.stream_cosine(gram), torch.ones(6, 4, 4).double())
    orthogonal = torch.diag(torch.tensor([1.0, 4.0, 9.0]))
    assert torch.equal(geometry.stream_cosine(orthogonal), torch.eye(3))
    x = randn(10, 3, 5)
    order = torch.tensor([2, 0, 1])
    cosine = geometry.stream_cosine(x @ x.mT)
    moved = geometry.stream_cosine(x[:, order] @ x[:, order].mT)
    assert torch.allclose(moved, cosine[:, order][:, :, order])
    assert torch.equal(geometry.stream_cosine(torch.zeros(2, 2)), torch.zeros(2, 2))


def test_cosine_of_learned_stream_scaling_at_start() -> None:
    n, width = 4, 768
    bound = math.sqrt(6 / (n + width))
    rows = 0.6 + bound * (2 * torch.rand(n, width, generator=torch.Generator().manual_seed(0)) - 1)
    x = (randn(200, 1, width) * rows).double()
    gram = x @ x.mT
    cosine = geometry.stream_cosine(gram).mean(0)
    off = cosine[~torch.eye(n, dtype=torch.bool)]
    assert off.mean().item() == pytest.approx(0.9929, abs=1e-3)
    assert geometry.differential_energy(gram[:, :2, :2]).mean().item() < 0.01


def test_centred_cosine_ignores_a_common_vector() -> None:
    x = randn(4000, 2, 6)
    shifted = x + 50 * torch.ones(6, dtype=torch.float64)
    centred = geometry.centred_cosine(shifted)
    assert torch.allclose(centred, geometry.centred_cosine(x))
    assert abs(centred[0, 1].item()) < 0.03
    raw = geometry.stream_cosine(shifted @ shifted.mT).mean(0)
    assert raw[0, 1].item() > 0.99


def test_differential_energy() -> None:
    copies = randn(3, 1, 8).expand(3, 4, 8)
    energy = geometry.differential_energy(copies @ copies.mT)
    assert torch.allclose(energy, torch.zeros(3).double(), atol=1e-12)
    x = randn(3, 1, 8)
    opposite = torch.cat([x, -x], dim=1)
    assert geometry.differential_energy(opposite @ opposite.mT).tolist() == pytest.approx([1.0] * 3)
    assert geometry.differential_energy(torch.eye(4)).item() == pytest.approx(0.75)
    assert geometry.differential_energy(torch.zeros(4, 4)).item() == 0


def test_curvature_of_a_straight_line_is_zero() -> None:
    line = torch.arange(20.0).double()[:, None, None] * randn(3, 8) + randn(3, 8, seed=1)
    assert degrees(line) == pytest.approx([0.0] * 3, abs=1e-4)


def test_curvature_of_known_processes() -> None:
    noise = randn(20, 500, 2, 64)
    assert degrees(noise) == pytest.approx([120.0] * 2, abs=0.5)
    assert degrees(noise.cumsum(dim=1)) == pytest.approx([90.0] * 2, abs=0.5)
    assert degrees(noise, step=2) == pytest.approx([120.0] * 2, abs=0.5)
    angle, count = geometry.position_curvature(noise)
    assert torch.rad2deg(angle).tolist() == pytest.approx([90.0] * 2, abs=0.5)
    assert count.tolist() == [20 * 499] * 2


@pytest.mark.parametrize("rho", [-0.5, 0.3, 0.8])
def test_curvature_of_an_autoregression(rho: float) -> None:
    noise = randn(20, 600, 1, 64)
    x = [noise[:, 0] / math.sqrt(1 - rho**2)]
    for t in range(1, noise.shape[1]):
        x.append(rho * x[-1] + noise[:, t])
    expected = math.degrees(math.acos(-(1 - rho) / 2))
    assert degrees(torch.stack(x, dim=1)) == pytest.approx([expected], abs=0.5)


def test_curvature_invariances() -> None:
    x = randn(2, 30, 3, 12)
    rotation = torch.linalg.qr(randn(12, 12, seed=3)).Q
    base = degrees(x)
    assert degrees(4 * x) == pytest.approx(base)
    assert degrees(x + randn(12, seed=4)) == pytest.approx(base)
    assert degrees(x @ rotation) == pytest.approx(base)
    assert degrees(x[:, :, [2, 0, 1]]) == pytest.approx([base[i] for i in (2, 0, 1)])
    position = geometry.position_curvature(x + 100)[0]
    assert (position < 0.3 * geometry.position_curvature(x)[0]).all()


def test_zero_steps_are_skipped_and_counted() -> None:
    x = randn(10, 1, 4)
    x[4] = x[3]
    angle, count = geometry.token_curvature(x)
    assert count.item() == 8 - 2
    keep = [t for t in range(8) if t not in (2, 3)]
    v = x.diff(dim=0)[:, 0]
    expected = torch.stack([torch.arccos(torch.cosine_similarity(v[t], v[t + 1], 0)) for t in keep])
    assert angle.item() == pytest.approx(expected.mean().item())
    assert geometry.token_curvature(torch.zeros(5, 1, 4))[0].isnan().all()
    with pytest.raises(ValueError, match="token_curvature: step"):
        geometry.token_curvature(x, step=0)
