"""Effective rank, CKA, linear prediction and neighbouring sites on planted cases."""

from __future__ import annotations

import pytest
import torch
from hyperstreams.diagnostics import composite, geometry, metrics, similarity
from torch import Tensor


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def rotation(size: int, seed: int = 3) -> Tensor:
    q: Tensor = torch.linalg.qr(randn(size, size, seed=seed))[0]
    return q


def gram(x: Tensor) -> Tensor:
    return x @ x.mT


@pytest.mark.parametrize("kind", ["entropy", "participation"])
def test_effective_rank(kind: metrics.EffectiveKind) -> None:
    copies = randn(6, 1, 8).expand(6, 4, 8)
    one = torch.ones(6, dtype=torch.float64)
    assert torch.allclose(similarity.effective_rank(gram(copies), kind=kind), one)
    eye = torch.eye(4, dtype=torch.float64)
    assert similarity.effective_rank(eye, kind=kind).item() == pytest.approx(4)
    assert similarity.effective_rank(torch.zeros(3, 3), kind=kind).item() == 0
    x = randn(20, 4, 8)
    rank = similarity.effective_rank(gram(x), kind=kind)
    assert (rank > 1).all()
    assert (rank <= 4).all()
    order = torch.randperm(4, generator=generator(5))
    assert torch.allclose(similarity.effective_rank(gram(x[:, order]), kind=kind), rank)
    assert torch.allclose(similarity.effective_rank(gram(x @ rotation(8)), kind=kind), rank)


def test_unit_norm_counts_long_and_short_streams_alike() -> None:
    long = torch.diag(torch.tensor([1e4, 1.0, 1.0], dtype=torch.float64))
    assert similarity.effective_rank(long).item() < 1.01
    assert similarity.effective_rank(long, unit_norm=True).item() == pytest.approx(3)


@pytest.mark.parametrize("definition", ["unbiased", "biased"])
def test_cka_invariances(definition: similarity.CkaDefinition) -> None:
    a, b = randn(300, 10), randn(300, 10, seed=1) + randn(300, 10)
    value = similarity.cka(a, b, definition=definition)
    assert 0.1 < value < 0.9
    assert similarity.cka(a, a, definition=definition).item() == pytest.approx(1)
    moved = 3.0 * a @ rotation(10) + 5.0
    assert similarity.cka(a, moved, definition=definition).item() == pytest.approx(1)
    assert torch.allclose(similarity.cka(moved, b, definition=definition), value)
    assert torch.allclose(similarity.cka(b, a, definition=definition), value)


def test_only_the_biased_estimate_is_above_zero_for_independent_sets() -> None:
    pairs = [(randn(64, 100, seed=s), randn(64, 100, seed=s + 50)) for s in range(10)]
    unbiased = torch.stack([similarity.cka(a, b) for a, b in pairs])
    biased = torch.stack([similarity.cka(a, b, definition="biased") for a, b in pairs])
    assert unbiased.mean().abs() < 0.02
    assert biased.min() > 0.5


def test_cka_over_batches_and_pairs() -> None:
    x = torch.stack([randn(400, 6), randn(400, 6, seed=1), randn(400, 6)])
    table = similarity.cka_matrix(x, batch=100)
    assert table[0, 2].item() == pytest.approx(1)
    assert abs(table[0, 1].item()) < 0.05
    assert torch.equal(table, table.T)
    order = torch.randperm(3, generator=generator(2))
    moved = similarity.cka_matrix(x[order], batch=100)
    assert torch.allclose(moved, table[order][:, order])
    with pytest.raises(ValueError, match="cka: definition"):
        similarity.cka(x[0], x[1], definition="linear")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cka: b: expected shape"):
        similarity.cka(x[0], x[1][:10])
    with pytest.raises(ValueError, match="cka: batch"):
        similarity.cka(x[0, :3], x[1, :3])


def test_projection_keeps_inner_products_and_cka() -> None:
    x = randn(100, 200)
    projected = similarity.random_projection(x, 2000, generator=generator(1))
    error = (projected @ projected.T - x @ x.T).abs().mean() / (x @ x.T).diagonal().mean()
    assert error < 0.05
    a, b = randn(200, 40) * torch.arange(40), randn(200, 40, seed=1)
    both = torch.cat([a + 20 * b, a], dim=1)
    exact = similarity.cka(a, both)
    error_of = [
        abs(
            similarity.cka(
                *(
                    similarity.random_projection(v, dims, generator=generator(7 + side))
                    for side, v in enumerate((a, both))
                )
            )
            - exact
        )
        for dims in (8, 64, 1000)
    ]
    assert error_of[0] > error_of[1] > error_of[2]
    assert error_of[2] < 0.03


def test_linear_predictability() -> None:
    a = randn(600, 8)
    copy = a @ randn(8, 5, seed=4) + 2.0
    independent = randn(600, 5, seed=9)

    def r2(x: Tensor, y: Tensor, **options: float) -> float:
        return float(similarity.linear_predictability(x, y, generator=generator(), **options))

    assert r2(a, copy) == pytest.approx(1, abs=1e-4)
    assert abs(r2(a, independent)) < 0.1
    half = copy / copy.std() + independent / independent.std()
    assert 0.3 < r2(a, half) < 0.7
    assert r2(7 * a - 3, 0.01 * half + 1) == pytest.approx(r2(a, half))
    # A huge channel that nothing predicts decides the per-stream score, not the per-channel one.
    wild = torch.cat([copy, 1e3 * independent[:, :1]], dim=1)
    by_channel = similarity.linear_predictability(a, wild, generator=generator(), scaling="channel")
    assert r2(a, wild) < 0.1
    assert by_channel > 0.7
    with pytest.raises(ValueError, match="linear_predictability: held_out"):
        r2(a, copy, held_out=1.0)
    with pytest.raises(ValueError, match="linear_predictability: scaling"):
        similarity.linear_predictability(
            a,
            copy,
            generator=generator(),
            scaling="none",  # type: ignore[arg-type]
        )


def test_held_out_tokens_are_not_the_tail() -> None:
    """A drift along the text breaks a tail split; a random split sees it in training too."""
    drift = torch.linspace(-3, 3, 800, dtype=torch.float64).unsqueeze(1)
    source = torch.cat([drift.clamp_max(1.5), randn(800, 2)], dim=1)
    value = similarity.linear_predictability(source, drift, generator=generator())
    assert value > 0.9
    tail = source[600:, :1]
    assert (drift[600:] - tail).square().sum() > 0.1 * (drift[600:]).square().sum()


def test_predictability_matrix() -> None:
    x = randn(300, 6)
    streams = torch.stack([x, torch.cat([x[:, :3], randn(300, 3, seed=2)], 1), 2 * x], dim=1)
    table = similarity.predictability_matrix(streams, generator=generator())
    assert table.diagonal().min() > 0.999
    assert table[0, 2] > 0.999
    assert table[0, 1].item() == pytest.approx(0.5, abs=0.1)
    order = torch.randperm(3, generator=generator(2))
    moved = similarity.predictability_matrix(streams[:, order], generator=generator())
    assert torch.allclose(moved, table[order][:, order])


def test_adjacent_cosine() -> None:
    x = randn(1, 3, 5, 4, 8).expand(6, 3, 5, 4, 8)
    assert torch.allclose(similarity.adjacent_cosine(x), torch.ones(5, 3, 5, 4).double())
    opposite = torch.stack([x[0], -2 * x[0], torch.zeros_like(x[0])])
    value = similarity.adjacent_cosine(opposite)
    assert torch.allclose(value[0], -torch.ones(3, 5, 4).double())
    assert torch.equal(value[1], torch.zeros(3, 5, 4).double())
    random = randn(4, 50, 3, 8)
    order = torch.randperm(3, generator=generator(1))
    cosine = similarity.adjacent_cosine(random)
    assert torch.allclose(similarity.adjacent_cosine(random[:, :, order]), cosine[..., order])
    low, median, high = composite.token_quantiles(cosine).T
    assert (low < median).all()
    assert (median < high).all()
    assert median.abs().max() < 0.15
    with pytest.raises(ValueError, match="adjacent_cosine: x"):
        similarity.adjacent_cosine(random[:1])


def test_effective_rank_sees_what_cosine_sees() -> None:
    base, noise = randn(50, 1, 16), randn(50, 4, 16, seed=1)
    ranks, cosines = [], []
    for mix in (0.0, 0.1, 0.5, 2.0):
        g = gram(base + mix * noise)
        ranks.append(similarity.effective_rank(g).mean())
        cosines.append(geometry.stream_cosine(g).mean())
    assert (torch.stack(ranks).diff() > 0).all()
    assert (torch.stack(cosines).diff() < 0).all()
