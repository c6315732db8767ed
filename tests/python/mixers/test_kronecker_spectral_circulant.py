"""The three mixers beside constructions of the same matrices by other means."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hyperstreams.mixers import Circulant, Kronecker, Mixer, Permutation, Spectral
from torch import Tensor

F64 = torch.float64


def random_logits(mixer: Mixer, n: int, *tokens: int, scale: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(n)
    return scale * torch.randn(
        *tokens, mixer.logit_count(n), generator=generator, dtype=torch.float64
    )


@pytest.mark.parametrize("factors", [(2, 3), (3, 2), (2, 2, 3), (5, 3), (4,), (2, 2, 2, 2)])
@pytest.mark.parametrize("orientation", ["destination_rows", "source_rows"])
def test_kronecker_is_the_product_of_its_mixtures(factors, orientation) -> None:
    """torch.kron with the first factor outermost; asymmetric where a factor exceeds 2."""
    mixer, n = Kronecker(factors, orientation), math.prod(factors)
    mixer.check(n)
    logits = random_logits(mixer, n)
    product = torch.ones(1, 1, dtype=F64)
    for i, part in zip(factors, logits.split([math.factorial(i) for i in factors]), strict=True):
        product = torch.kron(product, Permutation("destination_rows").map(part, i))
    if orientation == "source_rows":
        product = product.T
    torch.testing.assert_close(mixer.map(logits, n), product, atol=1e-14, rtol=0)
    assert (max(factors) > 2) == bool((product - product.T).abs().max() > 1e-3)


def test_kronecker_moves_a_stream_from_source_to_destination() -> None:
    """Permutation (1, 2, 0) as the inner factor of 2 x 3: destination r reads source r + 1."""
    mixer = Kronecker((2, 3))
    logits = torch.full((8,), -800.0, dtype=F64)  # exp(-800) is 0
    logits[0] = logits[2 + 3] = 0.0
    x = torch.arange(6.0, dtype=F64)
    assert (mixer.map(logits, 6) @ x).tolist() == [1, 2, 0, 4, 5, 3]
    reverse = dataclasses.replace(mixer, orientation="source_rows")
    assert (reverse.map(logits, 6) @ x).tolist() == [2, 0, 1, 5, 3, 4]


def test_kronecker_default_factors_are_prime() -> None:
    factors = {n: Kronecker().factors_of(n) for n in (1, 2, 6, 8, 12, 15, 16)}
    assert factors == {
        1: (), 2: (2,), 6: (2, 3), 8: (2, 2, 2), 12: (2, 2, 3), 15: (3, 5), 16: (2, 2, 2, 2),
    }  # fmt: skip
    assert Kronecker().map(torch.zeros(3, 0), 1).tolist() == [[[1.0]]] * 3
    assert Kronecker([3, 2]) == Kronecker((3, 2))  # type: ignore[arg-type]


def test_kronecker_refuses_in_words() -> None:
    with pytest.raises(ValueError, match=r"multiply to n_streams = 6, got \(2, 2\) with product 4"):
        Kronecker((2, 2)).check(6)
    with pytest.raises(ValueError, match="n_streams = 14 has the prime factor 7"):
        Kronecker().check(14)
    with pytest.raises(ValueError, match=r"integers in 2\.\.5 .*got \(7,\)"):
        Kronecker((7,))
    with pytest.raises(ValueError, match=r"integers in 2\.\.5 .*got \(1, 4\)"):
        Kronecker((1, 4))
    with pytest.raises(ValueError, match="orientation must be"):
        Kronecker(orientation="rows")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"n_streams must be in 1\.\.16, got 18"):
        Kronecker().check(18)


@pytest.mark.parametrize("n", [2, 3, 4, 7])
def test_spectral_singular_values_are_one_and_those_of_sigma(n: int) -> None:
    mixer = Spectral(1.5, 0.7)
    logits = random_logits(mixer, n, 20)
    h = mixer.map(logits, n)
    sigma = torch.tanh(logits[..., (n - 1) * (n - 2) :])
    expected = torch.cat([torch.ones(20, 1, dtype=F64), sigma.abs()], dim=-1)
    torch.testing.assert_close(
        torch.linalg.svdvals(h), expected.sort(dim=-1, descending=True).values, atol=1e-13, rtol=0
    )
    ones = torch.ones(20, n, dtype=F64)
    torch.testing.assert_close(h.sum(-1), ones, atol=1e-14, rtol=0)
    torch.testing.assert_close(h.sum(-2), ones, atol=1e-14, rtol=0)
    assert bool((h < -1e-2).any()) == (n > 2)


@pytest.mark.parametrize("n", [3, 4, 6])
def test_spectral_factors_are_rotations_by_the_bounded_angles(n: int) -> None:
    """The Helmert block is U diag(sigma) V^T; here rebuilt from eigenvalues."""
    mixer, m = Spectral(1.0, 2.0), n - 1
    logits = random_logits(mixer, n)
    angles, factors = m * (m - 1) // 2, []
    for first, gamma in ((0, 1.0), (angles, 2.0)):
        a = torch.zeros(m, m, dtype=F64)
        a[tuple(torch.triu_indices(m, m, 1))] = gamma * torch.tanh(logits[first : first + angles])
        a = a - a.T
        # i A is Hermitian; at its eigenvalue h, (1 - A)/(1 + A) is exp(2i atan h).
        values, vectors = torch.linalg.eigh(1j * a)
        rotation = vectors @ torch.diag(torch.exp(2j * torch.atan(values))) @ vectors.mH
        factors.append(rotation.real)
    i = torch.arange(1, n, dtype=F64)
    basis = torch.tril(torch.ones(n, n, dtype=F64)).T[:, :m] - torch.diag(i, -1)[:, :m]
    basis = basis / torch.sqrt(i * (i + 1))
    block = basis.T @ mixer.map(logits, n) @ basis
    expected = factors[0] @ torch.diag(torch.tanh(logits[2 * angles :])) @ factors[1].T
    torch.testing.assert_close(block, expected, atol=1e-13, rtol=0)


def test_spectral_kernels_go_to_four_streams() -> None:
    assert [Spectral().fused_map_for(n) for n in (1, 4, 5)] == ["spectral", "spectral", None]


def test_circulant_is_a_mixture_of_shifts() -> None:
    n, gamma = 5, 0.3
    logits = random_logits(Circulant(), n)
    c = gamma * torch.softmax(logits, -1)
    c[0] += 1 - gamma
    shift = torch.roll(torch.eye(n, dtype=F64), 1, dims=1)
    expected = sum(c[k] * torch.linalg.matrix_power(shift, k) for k in range(n))
    assert isinstance(expected, Tensor)
    torch.testing.assert_close(Circulant(gamma).map(logits, n), expected)
    torch.testing.assert_close(Circulant(gamma, "source_rows").map(logits, n), expected.T)
    assert (expected - expected.T).abs().max() > 1e-2


def test_circulant_keeps_its_diversity_over_depth() -> None:
    """The smallest singular value of the product is at least exp(-beta - beta**2 / L)."""
    n, sublayers, beta = 4, 24, 2.0
    mixer = Circulant.for_depth(sublayers, beta=beta)
    assert mixer.gamma == beta / 48
    product = torch.eye(n, dtype=F64)
    for k in range(sublayers):
        product = mixer.map(10 * torch.eye(n, dtype=F64)[k % n], n) @ product
    floor = math.exp(-beta - beta**2 / sublayers)
    assert torch.linalg.svdvals(product)[-1] >= floor
    with pytest.raises(ValueError, match=r"gamma must be in 0\.\.1, got 2\.0"):
        Circulant(2.0)
    with pytest.raises(ValueError, match="sublayers must be >= 1, got 0"):
        Circulant.for_depth(0)
