"""Mixers without a kernel against their formulas, written out independently; initial values."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from hyperstreams import nn as hnn
from hyperstreams.mixers import (
    BirkhoffExact,
    Cayley,
    Harmonized,
    Mixer,
    Orthostochastic,
    RowSoftmax,
    Sinkhorn,
    SparseSelective,
    Transport,
)
from torch import Tensor

F64 = torch.float64


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def start(mixer: Mixer, n: int = 4) -> Tensor:
    h = mixer.map(mixer.initial_logits(n).to(F64), n)
    assert h is not None
    return h


def near_identity(n: int, off: float) -> Tensor:
    return torch.full((n, n), off, dtype=F64).fill_diagonal_(1 - (n - 1) * off)


@pytest.mark.parametrize(("n", "s"), [(3, 2), (4, 1), (2, 3)])
def test_orthostochastic(n: int, s: int) -> None:
    """2604.02309: H[i, j] = (1/s) sum over k, l of Q[(i, k), (j, l)]^2."""
    size = n * s
    logits = normal(size * (size - 1) // 2)
    a = torch.zeros(size, size, dtype=F64)
    a[tuple(torch.triu_indices(size, size, 1))] = logits
    a = a - a.T
    eye = torch.eye(size, dtype=F64)
    q = (eye - a) @ torch.linalg.inv(eye + a)
    expected = torch.zeros(n, n, dtype=F64)
    for i in range(n):
        for j in range(n):
            for k in range(s):
                for m in range(s):
                    expected[i, j] += q[i * s + k, j * s + m] ** 2 / s
    torch.testing.assert_close(Orthostochastic(s).map(logits, n), expected)


def test_orthostochastic_stands_still_at_zero() -> None:
    zero = torch.zeros(28, dtype=F64)
    jacobian = torch.func.jacrev(lambda z: Orthostochastic().map(z, 4))(zero)
    assert not jacobian.any()
    initial = Orthostochastic().initial_logits(4).to(F64)
    jacobian = torch.func.jacrev(lambda z: Orthostochastic().map(z, 4))(initial)
    # Rotations inside a stream's own block act in second order only.
    assert (jacobian.abs().amax(dim=(0, 1)) > 1e-4).all()
    off = start(Orthostochastic())[~torch.eye(4, dtype=torch.bool)]
    torch.testing.assert_close(off, torch.full_like(off, 4 * 2 * 2.0**-12), rtol=0.2, atol=0)


def fill(n: int, cell: Callable[[int, int, float, float], float]) -> Tensor:
    """2605.21724 in scalars, with all three of the paper's bounds."""
    m = [[0.0] * n for _ in range(n)]
    for i in range(n - 1):
        for j in range(n - 1):
            row = 1 - sum(m[i][:j])
            column = 1 - sum(m[r][j] for r in range(i))
            later = sum(1 - sum(m[r][c] for r in range(i)) for c in range(j + 1, n))
            low = max(0.0, row - later, column - (n - 1 - i))
            m[i][j] = cell(i, j, low, min(row, column))
        m[i][n - 1] = 1 - sum(m[i][: n - 1])
    m[n - 1] = [1 - sum(m[r][c] for r in range(n - 1)) for c in range(n)]
    return torch.tensor(m, dtype=F64)


def sigmoid(t: float) -> float:
    return float(torch.sigmoid(torch.tensor(t, dtype=F64)))


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_transport(n: int) -> None:
    t = 3 * normal(n - 1, n - 1, seed=n)
    expected = fill(n, lambda i, j, low, high: low + (high - low) * sigmoid(float(t[i, j])))
    torch.testing.assert_close(Transport().map(t.flatten(), n), expected)
    slope = fill(
        n,
        lambda i, j, low, high: (
            low + (high - low) * sigmoid(4 * float(t[i, j]) / (high - low + 1e-3))
        ),
    )
    mixer = Transport(scaled_slope=True, minorisation=0.25)
    torch.testing.assert_close(mixer.map(t.flatten(), n), 0.75 * slope + 0.25 / n)


def test_transport_reaches_every_doubly_stochastic_matrix() -> None:
    for target in BirkhoffExact().map(normal(20, 16, seed=3), 4):
        logits = []

        def cell(i: int, j: int, low: float, high: float, target: Tensor = target) -> float:
            logits.append(torch.logit((target[i, j] - low) / (high - low)))  # noqa: B023
            return float(target[i, j])

        fill(4, cell)
        torch.testing.assert_close(Transport().map(torch.stack(logits), 4), target)


@pytest.mark.parametrize("scaled_slope", [False, True])
def test_transport_starts_near_the_identity(scaled_slope: bool) -> None:
    for n in (2, 3, 4, 8):
        mixer = Transport(scaled_slope=scaled_slope)
        torch.testing.assert_close(
            start(mixer, n), near_identity(n, 2.0**-11), atol=1e-7, rtol=1e-3
        )


def test_cayley() -> None:
    s = normal(50, 4, 4)
    w = s - s.mT
    eye = torch.eye(4, dtype=F64)
    exact = Cayley(exact=True).map(s.flatten(-2), 4)
    torch.testing.assert_close(exact, torch.linalg.inv(eye - 0.05 * w) @ (eye + 0.05 * w))
    torch.testing.assert_close(Cayley(iterations=60).map(s.flatten(-2), 4), exact)
    assert torch.equal(start(Cayley()), eye)


def test_two_cayley_iterations_are_orthogonal_for_small_logits_only() -> None:
    logits = normal(2000, 16, seed=1)
    for size, error in ((0.1, 2e-7), (0.5, 1e-4), (1.0, 2e-3), (4.0, 0.3)):
        y = Cayley().map(size * logits, 4)
        found = (y.mT @ y - torch.eye(4, dtype=F64)).abs().amax(dim=(-2, -1)).median().item()
        assert error / 2 < found < error * 2


@pytest.mark.parametrize("n", [2, 3, 4, 8])
def test_birkhoff_exact_is_the_limit_of_sinkhorn(n: int) -> None:
    logits = (1.5 * normal(5, n * n, seed=n)).requires_grad_()
    exact, limit = BirkhoffExact().map(logits, n), Sinkhorn(iterations=500).map(logits, n)
    assert limit is not None
    torch.testing.assert_close(exact, limit, atol=1e-12, rtol=0)
    g = normal(5, n, n, seed=1)
    torch.testing.assert_close(
        torch.autograd.grad((exact * g).sum(), logits),
        torch.autograd.grad((limit * g).sum(), logits),
        atol=1e-11,
        rtol=0,
    )


def test_birkhoff_exact_converges_where_twenty_rounds_do_not() -> None:
    logits = 8 * normal(500, 16)
    exact, rounds = BirkhoffExact().map(logits, 4), Sinkhorn().map(logits, 4)
    assert rounds is not None
    for axis in (-1, -2):
        assert (exact.sum(axis) - 1).abs().max() < 1e-13
    assert (rounds.sum(-2) - 1).abs().max() > 0.05
    single = BirkhoffExact().map(logits.float(), 4)
    torch.testing.assert_close(single.double(), exact, atol=1e-4, rtol=0)


def test_birkhoff_exact_is_not_sinkhorn_near_the_identity() -> None:
    """The matrices agree, the gradients do not: 20 rounds are far from converged in logits."""
    initial = BirkhoffExact().initial_logits(4).to(F64)
    logits = (initial + 0.1 * normal(200, 16)).requires_grad_()
    g = normal(200, 4, 4, seed=2)
    gradients = []
    for mixer in (BirkhoffExact(), Sinkhorn()):
        h = mixer.map(logits, 4)
        assert h is not None
        gradients.append(torch.autograd.grad((h * g).sum(), logits)[0])
    difference = (gradients[0] - gradients[1]).norm(dim=-1) / gradients[0].norm(dim=-1)
    assert 0.4 < difference.median().item() < 1.2


def test_birkhoff_exact_in_forward_mode() -> None:
    logits, tangent = normal(3, 9), normal(3, 9, seed=1)
    projection = partial(BirkhoffExact().map, n=3)
    found = torch.func.jvp(projection, (logits,), (tangent,))[1]
    step = 1e-6 * tangent
    expected = (projection(logits + step) - projection(logits - step)) / 2e-6
    torch.testing.assert_close(found, expected, atol=1e-8, rtol=0)


def test_birkhoff_exact_far_from_convergence_stays_finite() -> None:
    logits = (60 * normal(200, 16)).requires_grad_()
    h = BirkhoffExact().map(logits, 4)
    assert h.isfinite().all()
    (gradient,) = torch.autograd.grad((h * normal(200, 4, 4, seed=1)).sum(), logits)
    assert gradient.isfinite().all()


def test_row_softmax_and_harmonized() -> None:
    z = normal(3, 16)
    torch.testing.assert_close(
        RowSoftmax(temperature=0.5).map(z, 4), torch.softmax(2 * z.view(3, 4, 4), -1)
    )
    torch.testing.assert_close(start(RowSoftmax()), near_identity(4, 3.351253e-4))
    torch.testing.assert_close(
        Harmonized(shrink=0.5).map(z, 4), torch.eye(4, dtype=F64) + 0.025 * z.view(3, 4, 4)
    )
    assert torch.equal(start(Harmonized()), torch.eye(4, dtype=F64))


def test_sparse_selective_starts_with_different_matrices() -> None:
    logits = SparseSelective().initial_logits(4)
    assert not logits[:2].any()
    assert 0.003 < logits[2:].std() < 0.03
    assert not torch.equal(logits[2:8], logits[8:])
    assert not torch.equal(logits, SparseSelective(seed=1).initial_logits(4))
    h = start(SparseSelective())
    torch.testing.assert_close(h, torch.eye(4, dtype=F64), atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("connection", "dynamic", "static"),
    [
        ("go_mhc", 2 * 4 + 28, 2 * 4 + 28 + 3),
        ("tbp_mhc", 2 * 4 + 9, 2 * 4 + 9 + 3),
        ("birkhoff_exact", 2 * 4 + 16, 2 * 4 + 16 + 3),
        ("row_softmax", 2 * 4 + 16, 2 * 4 + 16 + 3),
        ("jpmhc", 3 * 16, 3 * 16 + 3),
        ("sparse_selective", 2 * 4 + 2, 2 * 4 + 2 + 2 * 6 + 3),
        ("harmonized", 2 * 4, 2 * 4 + 16 + 2),
    ],
)
def test_parameter_counts(connection: str, dynamic: int, static: int) -> None:
    site = hnn.Connection(connection=connection, n_streams=4, width=96, device="meta")
    assert sum(p.numel() for p in site.parameters()) == 4 * 96 * dynamic + static


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Orthostochastic(s=0), "'orthostochastic': s must be >= 1, got 0"),
        (lambda: Transport(minorisation=2.0), r"minorisation must be in 0\.\.1, got 2.0"),
        (lambda: Transport(slope=0.0), "slope and slope_eps must be > 0, got 0.0"),
        (lambda: Transport(initial_mixing=0.0), "initial_mixing must be in"),
        (lambda: Cayley(iterations=-1), "iterations must be >= 0, got -1"),
        (lambda: BirkhoffExact(rounds=-1), "must be >= 0, got -1 and 20"),
        (lambda: SparseSelective(k=0), "k must be >= 1, got 0"),
        (lambda: Harmonized(shrink=0.0), r"shrink must be in \(0, 1\], got 0.0"),
        (lambda: RowSoftmax(temperature=0.0), "temperature must be > 0, got 0.0"),
    ],
)
def test_impossible_settings(make: Callable[[], Mixer], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "mixer",
    [Orthostochastic(), Transport(), Cayley(exact=True), BirkhoffExact(), SparseSelective()],
    ids=lambda mixer: mixer.name,
)
def test_compiles_into_one_graph(mixer: Mixer) -> None:
    torch._dynamo.reset()
    logits = normal(2, mixer.logit_count(3)).requires_grad_()

    def function(z: Tensor) -> Tensor:
        h = mixer.map(z, 3)
        assert h is not None
        return h

    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    expected = function(logits)
    torch.testing.assert_close(compiled(logits), expected)
    g = normal(2, 3, 3, seed=1)
    torch.testing.assert_close(
        torch.autograd.grad((compiled(logits) * g).sum(), logits),
        torch.autograd.grad((expected * g).sum(), logits),
    )
