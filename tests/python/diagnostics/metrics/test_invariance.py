"""Every metric under random permutations of the streams, and under a rescaling of each stream.

The kinds are those of the registry: ``inv`` numbers stay, ``eqv`` axes of streams are permuted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hyperstreams.diagnostics import (
    activations,
    composite,
    geometry,
    ledger,
    lens,
    metrics,
    similarity,
    variation,
)
from torch import Tensor

K, B, T, N, C = 4, 2, 6, 4, 10


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@dataclass(frozen=True)
class Net:
    """Random tensors in the shapes of a trace; ``x`` are states, ``y`` branch outputs."""

    x: Tensor
    y: Tensor
    p: Tensor
    q: Tensor
    r: Tensor

    @property
    def gram(self) -> Tensor:
        return self.x @ self.x.mT

    @property
    def norm(self) -> Tensor:
        return self.x.norm(dim=-1)

    @property
    def read(self) -> Tensor:
        return torch.stack([metrics.mean_share(p) for p in self.p])

    @property
    def ledger(self) -> Tensor:
        return ledger.ledger(self.r, self.q)

    @property
    def c(self) -> Tensor:
        return ledger.contributions(self.p, self.ledger)

    def permuted(self, order: Tensor) -> Net:
        r = self.r[..., order, :][..., order]
        return Net(self.x[..., order, :], self.y, self.p[..., order], self.q[..., order], r)

    def rescaled(self, a: Tensor) -> Net:
        """``x_i -> a_i x_i, p_i -> p_i / a_i, q -> a q, R -> A R A^-1``: the same function."""
        r = a.unsqueeze(-1) * self.r / a
        return Net(a.unsqueeze(-1) * self.x, self.y, self.p / a, a * self.q, r)


def net() -> Net:
    return Net(
        randn(K + 1, B, T, N, C),
        randn(K, B, T, C, seed=1),
        randn(K, B, T, N, seed=2).exp(),
        randn(K, B, T, N, seed=3).exp(),
        randn(K, B, T, N, N, seed=4),
    )


INVARIANT: dict[str, Callable[[Net], Tensor]] = {
    "effective_streams": lambda m: metrics.effective_streams(m.read),
    "dominance": lambda m: metrics.dominance(m.read),
    "dominance_gap": lambda m: metrics.dominance_gap(m.read),
    "persistence": lambda m: metrics.persistence(m.read),
    "site_information": lambda m: metrics.site_information(m.read),
    "switch_rate": lambda m: metrics.switch_rate(m.p.argmax(-1).movedim(0, -1)),
    "off_diagonal_mass": lambda m: metrics.off_diagonal_mass(m.r),
    "identity_distance": lambda m: metrics.identity_distance(m.r),
    "permutation_distance": lambda m: metrics.permutation_distance(m.r),
    "token_variation": lambda m: metrics.token_variation(
        m.r.mean((1, 2)), m.r.square().mean((1, 2))
    ),
    "contraction": lambda m: composite.contraction(composite.composites(m.r)),
    "dobrushin": lambda m: composite.dobrushin(m.r),
    "contraction_bound": lambda m: composite.contraction_bound(m.r),
    "smallest_singular_value": lambda m: composite.smallest_singular_value(m.r),
    "amax_gain": lambda m: composite.amax_gain(composite.composites(m.r)),
    "sum_drift": lambda m: composite.sum_drift(m.r, side="source"),
    "logit_range": lambda m: composite.logit_range(m.r, matrix=True),
    "contributions": lambda m: m.c,
    "cut_rank": lambda m: ledger.cut_rank(m.c),
    "differential_energy": lambda m: geometry.differential_energy(m.gram),
    "effective_rank": lambda m: similarity.effective_rank(m.gram),
    "variance_decomposition": lambda m: torch.stack(
        variation.variance_decomposition(metrics.share(m.p))
    ),
}
EQUIVARIANT: dict[str, tuple[Callable[[Net], Tensor], int]] = {
    "mean_share": (lambda m: m.read, 1),
    "read_signal_share": (lambda m: metrics.read_signal_share(m.p, m.norm[:-1]), 1),
    "read_covariance_share": (lambda m: metrics.read_covariance_share(m.p, m.gram[:-1]), 1),
    "write_signal_share": (lambda m: metrics.write_signal_share(m.q), 1),
    "relative_update": (
        lambda m: metrics.relative_update(m.q, m.y.norm(dim=-1), m.norm[:-1]),
        1,
    ),
    "off_diagonal_by_destination": (lambda m: metrics.off_diagonal_by_destination(m.r), 1),
    "composites": (lambda m: composite.composites(m.r), 2),
    "mixer_sums": (lambda m: composite.mixer_sums(m.r, side="destination"), 1),
    "ledger": (lambda m: m.ledger.mT, 1),
    "stream_norm": (lambda m: geometry.stream_norm(m.gram), 1),
    "norm_share": (lambda m: geometry.norm_share(m.norm), 1),
    "norm_growth": (lambda m: activations.norm_growth(m.norm), 1),
    "token_curvature": (lambda m: geometry.token_curvature(m.x)[0], 1),
    "position_curvature": (lambda m: geometry.position_curvature(m.x)[0], 1),
    "stream_cosine": (lambda m: geometry.stream_cosine(m.gram), 2),
    "centred_cosine": (lambda m: geometry.centred_cosine(m.x[0]), 2),
    "cka": (lambda m: similarity.cka_matrix(m.x.flatten(0, 2).movedim(1, 0)), 2),
    "readout_share": (lambda m: lens.readout_share(m.x), 1),
    "adjacent_cosine": (lambda m: similarity.adjacent_cosine(m.x), 1),
    "first_token_share": (lambda m: activations.first_token_share(m.norm), 1),
    "max_to_median": (lambda m: activations.max_to_median(m.x), 1),
    "kurtosis": (lambda m: activations.kurtosis(m.x), 1),
    "gradient_norm": (lambda m: activations.gradient_norm(m.x), 1),
}
RESCALED = {
    "read_signal_share": lambda m: metrics.read_signal_share(m.p, m.norm[:-1]),
    "read_covariance_share": lambda m: metrics.read_covariance_share(m.p, m.gram[:-1]),
    "relative_update": lambda m: metrics.relative_update(m.q, m.y.norm(dim=-1), m.norm[:-1]),
    "token_curvature": lambda m: geometry.token_curvature(m.x)[0],
    "stream_cosine": lambda m: geometry.stream_cosine(m.gram),
    "unit_norm_rank": lambda m: similarity.effective_rank(m.gram, unit_norm=True),
    "kurtosis": lambda m: activations.kurtosis(m.x),
}


def orders() -> list[Tensor]:
    return [torch.randperm(N, generator=torch.Generator().manual_seed(s)) for s in range(4)]


@pytest.mark.parametrize("name", INVARIANT)
def test_numbers_stay_when_streams_are_permuted(name: str) -> None:
    m = net()
    for order in orders():
        assert torch.allclose(INVARIANT[name](m.permuted(order)), INVARIANT[name](m))


@pytest.mark.parametrize("name", EQUIVARIANT)
def test_vectors_are_permuted_with_the_streams(name: str) -> None:
    m = net()
    compute, axes = EQUIVARIANT[name]
    value = compute(m)
    for order in orders():
        expected = value[..., order]
        if axes == 2:
            expected = expected[..., order, :]
        assert torch.allclose(compute(m.permuted(order)), expected)
    assert not torch.allclose(value, value.flip(-1))


@pytest.mark.parametrize("name", RESCALED)
def test_signal_metrics_ignore_the_scale_of_a_stream(name: str) -> None:
    m = net()
    rescaled = m.rescaled(torch.tensor([0.3, 2.0, 5.0, 1.0], dtype=torch.float64))
    assert torch.allclose(RESCALED[name](rescaled), RESCALED[name](m))


def test_contributions_ignore_the_scale_of_a_stream_and_weights_do_not() -> None:
    m, a = net(), torch.tensor([0.3, 2.0, 5.0, 1.0], dtype=torch.float64)
    other = m.rescaled(a)
    c = ledger.contributions(
        other.p, ledger.ledger(other.r, other.q, start=a.unsqueeze(-1)), readout=1 / a
    )
    assert torch.allclose(c, m.c)
    assert torch.allclose(ledger.cut_rank(c), ledger.cut_rank(m.c))
    assert not torch.allclose(other.read, m.read)
