"""Sanity properties of composite mixers: order, contraction and its bound, gain, drift, logits."""

from __future__ import annotations

import math

import pytest
import torch
from hyperstreams.diagnostics import composite
from hyperstreams.mixers import MIXERS
from torch import Tensor


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=generator(seed), dtype=torch.float64)


def doubly_stochastic(*shape: int, n: int = 4, seed: int = 0) -> Tensor:
    """Convex combinations of all cyclic shifts and one random permutation: exact on both sides."""
    weights = rand(*shape, n + 1, seed=seed).mul(3).softmax(-1)
    eye = torch.eye(n, dtype=torch.float64)
    order = torch.randperm(n, generator=generator(seed))
    vertices = torch.stack([*(eye.roll(s, 0) for s in range(n)), eye[order]])
    return torch.einsum("...k,kji->...ji", weights, vertices)


def permuted(r: Tensor, order: Tensor) -> Tensor:
    return r[..., order, :][..., :, order]


def test_identities_and_permutations_compose() -> None:
    eye = torch.eye(4, dtype=torch.float64)
    assert torch.equal(composite.composites(eye.expand(5, 3, 4, 4)), eye.expand(6, 3, 4, 4))
    orders = [torch.randperm(4, generator=generator(s)) for s in range(3)]
    chain = composite.composites(torch.stack([eye[order] for order in orders]))
    state = torch.arange(4)
    for order in orders:
        state = state[order]
    assert torch.equal(chain[-1], eye[state])


def test_order_of_the_product() -> None:
    r = rand(3, 2, 4, 4)
    forward = composite.composites(r)
    assert torch.allclose(forward[-1], r[2] @ r[1] @ r[0])
    assert not torch.allclose(forward[-1], r[0] @ r[1] @ r[2])
    backward = composite.composites(r, direction="to_end")
    assert torch.allclose(backward[0], forward[-1])
    assert torch.allclose(backward[2], r[2])
    for k in range(4):
        assert torch.allclose(backward[k] @ forward[k], forward[-1])
    order = torch.randperm(4, generator=generator(7))
    assert torch.allclose(composite.composites(permuted(r, order)), permuted(forward, order))
    with pytest.raises(ValueError, match="composites: direction: expected one of from_start"):
        composite.composites(r, direction="backwards")  # type: ignore[arg-type]


def test_both_averages_of_composites() -> None:
    static = rand(3, 1, 1, 4, 4).expand(3, 2, 5, 4, 4)
    products = composite.mean_composite(static)
    means = composite.mean_composite(static, average="product_of_means")
    assert torch.allclose(products, means)
    tokens = rand(3, 2, 5, 4, 4)
    direct = composite.composites(tokens).mean(dim=(1, 2))
    assert torch.allclose(composite.mean_composite(tokens), direct)
    assert not torch.allclose(
        composite.mean_composite(tokens, average="product_of_means"), direct, rtol=1e-3
    )
    with pytest.raises(ValueError, match="mean_composite: average"):
        composite.mean_composite(tokens, average="median")  # type: ignore[arg-type]


@pytest.mark.parametrize("n", [2, 3, 5, 16])
def test_difference_basis(n: int) -> None:
    basis = composite.difference_basis(n, like=torch.ones(1, dtype=torch.float64))
    assert torch.allclose(basis.T @ basis, torch.eye(n - 1, dtype=torch.float64))
    assert basis.sum(0).abs().max() < 1e-12


def test_contraction_of_known_mixers() -> None:
    n = 4
    average = torch.full((n, n), 1 / n, dtype=torch.float64)
    order = torch.randperm(n, generator=generator(3))
    assert composite.contraction(average).item() == pytest.approx(0, abs=1e-12)
    assert composite.contraction(torch.eye(n).double()[order]).item() == pytest.approx(1)
    assert composite.contraction(torch.ones(1, 1)).item() == 0
    r = doubly_stochastic(6)
    assert torch.allclose(composite.contraction(r), torch.linalg.matrix_norm(r - average, ord=2))
    assert torch.allclose(composite.contraction(r), torch.linalg.svdvals(r)[..., 1])
    assert torch.allclose(composite.contraction(permuted(r, order)), composite.contraction(r))


def test_contraction_of_a_circulant_is_its_closed_form() -> None:
    weights = rand(5, seed=4).softmax(-1)
    circulant = torch.stack([weights.roll(s) for s in range(5)], dim=1)
    largest = torch.fft.fft(weights).abs()[1:].max()
    assert composite.contraction(circulant).item() == pytest.approx(largest.item())
    power = composite.composites(circulant.expand(7, 5, 5))[-1]
    assert composite.contraction(power).item() == pytest.approx(largest.item() ** 7)


@pytest.mark.parametrize(("mixer", "kept"), [("permutation", 0.825), ("sinkhorn", 0.968)])
def test_initial_contraction_over_24_sites(mixer: str, kept: float) -> None:
    kind = MIXERS[mixer]()
    r = kind.map(kind.initial_logits(4).double(), 4)
    assert r is not None
    measured = composite.contraction(composite.composites(r.expand(24, 4, 4))[-1]).item()
    assert measured == pytest.approx(kept, abs=6e-4)
    mass = float(1 - r.diagonal().mean())
    assert composite.uniform_contraction(mass, 4, sites=24) == pytest.approx(measured, rel=1e-3)
    with pytest.raises(ValueError, match="uniform_contraction: n"):
        composite.uniform_contraction(mass, 1)


def test_dobrushin_bounds_the_contraction() -> None:
    average = torch.full((4, 4), 0.25, dtype=torch.float64)
    assert composite.dobrushin(average).item() == 0
    assert composite.dobrushin(torch.eye(4)).item() == 1
    order = torch.randperm(4, generator=generator(1))
    for over in ("source", "destination"):
        # Stochastic on one side only: the bound needs no more.
        axis = -2 if over == "source" else -1
        r = rand(12, 20, 4, 4, seed=5).mul(4).softmax(axis)
        tau = composite.dobrushin(r, over=over)  # type: ignore[arg-type]
        assert (tau <= 1).all()
        moved = composite.dobrushin(permuted(r, order), over=over)  # type: ignore[arg-type]
        assert torch.allclose(moved, tau)
        product = composite.dobrushin(r[1] @ r[0], over=over)  # type: ignore[arg-type]
        assert (product <= tau[0] * tau[1] + 1e-12).all()
        measured = composite.contraction(composite.composites(r))
        bound = composite.contraction_bound(r, over=over)  # type: ignore[arg-type]
        assert bound.shape == measured.shape
        assert (measured <= bound + 1e-12).all()
    other = composite.dobrushin(r, over="source")
    assert torch.equal(other, composite.dobrushin(r.mT, over="destination"))
    assert not torch.allclose(other, tau)


def test_smallest_singular_value() -> None:
    average = torch.full((4, 4), 0.25, dtype=torch.float64)
    assert composite.smallest_singular_value(average).item() == pytest.approx(0, abs=1e-12)
    assert composite.smallest_singular_value(2 * torch.eye(4)).item() == pytest.approx(2)
    r, order = rand(5, 4, 4), torch.randperm(4, generator=generator(1))
    assert torch.allclose(
        composite.smallest_singular_value(permuted(r, order)),
        composite.smallest_singular_value(r),
    )


def test_gain() -> None:
    r = doubly_stochastic(9, 3)
    for side in ("destination", "source"):
        gain = composite.amax_gain(composite.composites(r), side=side)  # type: ignore[arg-type]
        assert torch.allclose(gain, torch.ones_like(gain))
    doubled = composite.composites(2 * torch.eye(4).expand(10, 4, 4))
    assert composite.amax_gain(doubled)[-1].item() == 2**10
    signed = torch.tensor([[1.0, -3.0], [0.5, 0.5]])
    assert composite.amax_gain(signed).item() == 2
    assert composite.amax_gain(signed, side="source").item() == 2.5
    assert composite.amax_gain(signed, definition="sum_of_absolutes").item() == 4
    random = torch.randn(20, 4, 4, generator=generator(), dtype=torch.float64)
    order = torch.randperm(4, generator=generator(2))
    assert torch.allclose(composite.amax_gain(permuted(random, order)), composite.amax_gain(random))
    largest = composite.amax_gain(random, definition="sum_of_absolutes")
    assert torch.allclose(largest, torch.linalg.matrix_norm(random, ord=math.inf))
    assert (largest >= composite.amax_gain(random)).all()
    with pytest.raises(ValueError, match="amax_gain: side"):
        composite.amax_gain(random, side="row")  # type: ignore[arg-type]


def test_drift_is_on_the_side_that_is_not_normalised_last() -> None:
    # One Sinkhorn pass whose last step divides by what each source spends.
    r = rand(8, 4, 4).mul(5).exp()
    r = r / r.sum(-1, keepdim=True)
    r = r / r.sum(-2, keepdim=True)
    assert composite.sum_drift(r, side="source").max() < 1e-12
    assert composite.sum_drift(r, side="destination").min() > 1e-4
    assert composite.sum_drift(r.mT, side="destination").max() < 1e-12
    assert torch.allclose(composite.mixer_sums(r, side="destination"), r.sum(-1))


def test_quantiles_are_those_of_torch() -> None:
    values = rand(3, 7, 11)
    expected = torch.quantile(values.flatten(1), torch.tensor([0.05, 0.5, 0.95]).double(), dim=1)
    assert torch.allclose(composite.token_quantiles(values), expected.T)


def test_histograms_of_batches_add_up() -> None:
    values, edges = rand(3, 50, 2) * 10, torch.tensor([0.0, 2.0, 5.0, 9.0])
    counts = composite.histogram(values, edges)
    for k in range(3):
        expected = torch.histogram(values[k][values[k] < 9].flatten().float(), edges)[0]
        assert torch.equal(counts[k].float(), expected)
    halves = [composite.histogram(part, edges) for part in values.split(25, dim=1)]
    assert torch.equal(halves[0] + halves[1], counts)
    assert composite.histogram(torch.tensor([[0.0, 2.0, 9.0, -1.0]]), edges).tolist() == [[1, 1, 0]]


def test_logit_range() -> None:
    assert composite.logit_range(torch.full((5, 16), 3.0)).tolist() == [0.0] * 5
    logits = torch.randn(2, 10, 4, 4, generator=generator(), dtype=torch.float64) * 20
    spread = composite.logit_range(logits, matrix=True)
    assert torch.equal(spread, composite.logit_range(logits.flatten(-2)))
    assert torch.allclose(composite.logit_range(logits + 7, matrix=True), spread)
    order = torch.randperm(4, generator=generator(1))
    assert torch.equal(composite.logit_range(permuted(logits, order), matrix=True), spread)
    nu = logits.flatten(-2).exp()
    assert torch.allclose((nu.amax(-1) / nu.amin(-1)).log(), spread)
    share = composite.share_above(spread, 50.0)
    assert torch.allclose(share, (spread > 50).double().mean(1))
    assert 0 < share[0] < 1
    initial = MIXERS["sinkhorn"]()
    assert composite.logit_range(initial.initial_logits(4)).item() == 8
