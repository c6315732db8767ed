"""The dialects of Sinkhorn and their connections against literal evaluations, entry by entry."""

from __future__ import annotations

import dataclasses
import math

import hyperstreams as hs
import pytest
import torch
from hyperstreams import nn as hnn
from hyperstreams.mixers import DIALECTS, Free, Sinkhorn
from torch import Tensor

F64 = torch.float64


def rescale(matrix: list[list[float]], *, sources: bool, eps: float) -> list[list[float]]:
    """``matrix[source][destination]`` with its sums over sources (destinations) made 1."""
    n = len(matrix)
    if sources:
        sums = [sum(matrix[i][j] for i in range(n)) + eps for j in range(n)]
        return [[matrix[i][j] / sums[j] for j in range(n)] for i in range(n)]
    sums = [sum(row) + eps for row in matrix]
    return [[value / sums[i] for value in row] for i, row in enumerate(matrix)]


def literal(name: str, stored: Tensor) -> Tensor:
    """``h_res`` from the stored logits, by the published formulas and in plain Python numbers."""
    logits = stored.tolist()
    n = len(logits)
    destination_first = name in ("paper", "liger", "lucidrains")
    if destination_first:
        logits = [[logits[j][i] for j in range(n)] for i in range(n)]
    rounds, temperature = (10, 0.05) if name == "tokenbender" else (20, 1.0)
    m = [[math.exp(value / temperature) for value in row] for row in logits]
    # Which sums a round makes 1 first: those over the sources or those over the destinations.
    if name in ("deepseek_v4", "megatron", "liger"):
        v4_first_over_sources = name == "liger"
        m = rescale(m, sources=v4_first_over_sources, eps=0.0)
        m = [[value + 1e-6 for value in row] for row in m]
        for step in range(2 * rounds - 1):
            m = rescale(m, sources=(step % 2 == 0) != v4_first_over_sources, eps=1e-6)
    else:
        # The paper's first step makes the sums of columns (one per source) 1: over destinations.
        sources_first = name in ("mhc_lite_repository", "lucidrains")
        for step in range(2 * rounds):
            m = rescale(m, sources=(step % 2 == 0) == sources_first, eps=0.0)
    return torch.tensor([[m[i][j] for i in range(n)] for j in range(n)], dtype=F64)


@pytest.mark.parametrize("name", list(DIALECTS))
@pytest.mark.parametrize("n", [2, 3, 4, 8])
@pytest.mark.parametrize("spread", [1.0, 4.0, 8.0])
def test_dialect(name: str, n: int, spread: float) -> None:
    generator = torch.Generator().manual_seed(n)
    stored = spread * torch.randn(n, n, generator=generator, dtype=F64)
    if name == "tokenbender":
        stored *= 0.05
    mixer = DIALECTS[name].mixer
    torch.testing.assert_close(
        mixer.map(stored.flatten(), n), literal(name, stored), atol=1e-12, rtol=1e-9
    )


def test_dialects_differ() -> None:
    """At a spread of 4 no two dialects agree but those that are documented to."""
    stored = 4 * torch.randn(4, 4, generator=torch.Generator().manual_seed(0), dtype=F64)
    maps = {
        name: dataclasses.replace(dialect.mixer, iterations=20, temperature=1.0).map(
            stored.flatten(), 4
        )
        for name, dialect in DIALECTS.items()
    }
    same = {("deepseek_v4", "megatron"), ("transformer_engine", "tokenbender")}
    for first in maps:
        for second in maps:
            if first < second:
                gap = (maps[first] - maps[second]).abs().max()
                assert (gap == 0) == ((first, second) in same or (second, first) in same)


def coefficients(name: str) -> list[Tensor]:
    site = hnn.Connection(connection=name, n_streams=4, width=6, designate="fixed", dtype=F64)
    with torch.no_grad():
        if site.phi is not None:
            site.phi.zero_()
    _, _, *coefficients = site(torch.ones(4, 6, dtype=F64))
    return coefficients


@pytest.mark.parametrize(
    ("name", "diagonal", "off", "read", "write"),
    [
        ("mhc_paper", 0.998995, 3.351e-4, (0.731059, 0.268941), (1.462117, 0.537883)),
        ("transformer_engine", 0.998995, 3.351e-4, (0.731059, 0.268941), (1.462117, 0.537883)),
        ("deepseek_v4", 0.24999975, 0.24999975, (0.500001, 0.500001), (1.0, 1.0)),
        ("megatron", 0.24999975, 0.24999975, (0.500001, 0.500001), (1.0, 1.0)),
        ("liger", 0.24999975, 0.24999975, (0.5, 0.5), (1.0, 1.0)),
        ("tokenbender", 1.0, 0.0, (0.998995, 3.351e-4), (0.25, 0.25)),
        ("lucidrains_hc", 1.0, 0.0, (1.0, 0.0), (1.0, 1.0)),
        ("lucidrains_mhc", 0.475367, 0.174878, (0.731059, 0.5), (1.462117, 1.462117)),
    ],
)
def test_initial_values(
    name: str, diagonal: float, off: float, read: tuple[float, ...], write: tuple[float, ...]
) -> None:
    h_pre, h_post, h_res = coefficients(name)
    expected = torch.full((4, 4), off, dtype=F64).fill_diagonal_(diagonal)
    torch.testing.assert_close(h_res, expected, atol=1e-6, rtol=0)
    for actual, (designated, others) in ((h_pre, read), (h_post, write)):
        expected = torch.full((4,), others, dtype=F64)
        expected[0] = designated
        torch.testing.assert_close(actual, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("name", "read"), [("deepseek_v4", 1e-6), ("megatron", 1e-6), ("liger", 0)]
)
def test_eps_of_the_read(name: str, read: float) -> None:
    h_pre, h_post, _ = coefficients(name)
    torch.testing.assert_close(h_pre, torch.full((4,), 0.5 + read, dtype=F64), atol=1e-12, rtol=0)
    torch.testing.assert_close(h_post, torch.ones(4, dtype=F64), atol=1e-12, rtol=0)


def test_phi_init() -> None:
    def phi(name: str, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        site = hnn.Connection(connection=name, n_streams=4, width=32, generator=generator)
        assert site.phi is not None
        return site.phi.detach()

    assert phi("mhc_paper").count_nonzero() == 0
    assert phi("deepseek_v4").std().item() == pytest.approx(0.02, rel=0.05)
    bound = math.sqrt(6 / (4 * 32 + 24))
    assert bound * 0.99 < phi("megatron").abs().max().item() <= bound
    assert torch.equal(phi("liger", 3), phi("liger", 3))
    assert not torch.equal(phi("liger", 3), phi("liger", 4))
    with pytest.raises(ValueError, match=r"phi_init: expected a standard deviation >= 0 or"):
        dataclasses.replace(hnn.CONNECTIONS["liger"], phi_init="xavior")


def test_mixed_dialects_are_refused() -> None:
    with pytest.raises(ValueError, match="start='softmax' is itself a row step"):
        Sinkhorn(start="softmax", order="columns_first", eps=1e-6)
    with pytest.raises(ValueError, match="orientation='destination_rows', got 'source_rows'"):
        dataclasses.replace(
            hnn.CONNECTIONS["lucidrains_mhc"], mixer=DIALECTS["mhc_lite_repository"].mixer
        )
    hnn.ConnectionConfig(name="free", paper="", mixer=Free(), norm="per_stream")
    assert "DIALECTS" in hs.mixers.__all__
