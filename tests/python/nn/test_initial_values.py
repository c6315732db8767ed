"""Published initial values and parameter counts."""

from __future__ import annotations

import math

import pytest
import torch
from hyperstreams import init
from hyperstreams import nn as hnn
from torch import Tensor

N, WIDTH = 4, 8


def coefficients(connection: str, **options: object) -> tuple[Tensor, Tensor, Tensor | None]:
    """h_pre, h_post and h_res of a fresh connection, favouring stream 2, for one random token."""
    site = hnn.Connection(
        connection=connection, n_streams=N, width=WIDTH, designate="round_robin", site_index=6
    )
    assert site.designated_stream.tolist() == [2]
    x = torch.randn(N, WIDTH, generator=torch.Generator().manual_seed(0))
    _, _, h_pre, h_post, h_res = site(x)
    return h_pre.detach(), h_post.detach(), None if h_res is None else h_res.detach()


def favouring(stream: int, others: float, designated: float) -> Tensor:
    values = torch.full((N,), others)
    values[stream] = designated
    return values


def matrix(diagonal: float, off: float) -> Tensor:
    return torch.full((N, N), off).fill_diagonal_(diagonal)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("connection", ["hc", "hc_static"])
def test_hc(connection: str) -> None:
    h_pre, h_post, h_res = coefficients(connection)
    assert torch.equal(h_pre, favouring(2, 0.0, 1.0))
    assert torch.equal(h_post, torch.ones(N))
    assert h_res is not None
    assert torch.equal(h_res, torch.eye(N))


@pytest.mark.parametrize(
    ("connection", "diagonal", "off"),
    [("mhc", 0.998995, 3.351e-4), ("mhc_lite", 0.994008, 1.997e-3)],
)
def test_mhc_family(connection: str, diagonal: float, off: float) -> None:
    h_pre, h_post, h_res = coefficients(connection)
    close(h_pre, favouring(2, 0.268941, 0.731059))
    close(h_post, favouring(2, 0.537883, 1.462117))
    assert h_res is not None
    close(h_res, matrix(diagonal, off))


def test_identity() -> None:
    h_pre, h_post, h_res = coefficients("identity")
    close(h_pre, favouring(2, 0.268941, 0.731059) + 1e-6)
    close(h_post, favouring(2, 0.537883, 1.462117) + 1e-6)
    # 1e-6 is at the tolerance: the offset itself is asserted in float64.
    site = hnn.Connection(
        connection="identity", n_streams=2, width=3, designate="none", dtype=torch.float64
    )
    _, _, h_pre, h_post, h_res = site(torch.ones(2, 3, dtype=torch.float64))
    sigmoid = 1 / (1 + math.exp(1))
    expected = torch.tensor([sigmoid, sigmoid], dtype=torch.float64)
    torch.testing.assert_close(h_pre, expected + 1e-6, atol=1e-12, rtol=0)
    torch.testing.assert_close(h_post, 2 * expected + 1e-6, atol=1e-12, rtol=0)
    assert h_res is None


def test_controllers_start_at_zero_and_alpha_at_one_hundredth() -> None:
    for name, scales in [("hc", 2), ("mhc", 3), ("mhc_lite", 3), ("identity", 2)]:
        site = hnn.Connection(connection=name, n_streams=N, width=WIDTH, site_index=0)
        assert site.phi is not None
        assert not site.phi.any()
        torch.testing.assert_close(site.alpha, torch.full((scales,), 0.01))
        if site.norm_weight is not None:
            assert torch.equal(site.norm_weight, torch.ones(N * WIDTH))


def count(connection: str, *, n_streams: int, width: int, sites: int = 1) -> int:
    modules = [
        hnn.Connection(
            connection=connection, n_streams=n_streams, width=width, site_index=k, device="meta"
        )
        for k in range(sites)
    ]
    return sum(p.numel() for m in modules for p in m.parameters() if p.requires_grad)


def test_parameter_counts() -> None:
    # OLMo-1B: C = 2048, 16 layers; the counts are those printed in 2409.19606.
    assert count("hc_static", n_streams=4, width=2048, sites=32) == 768
    assert count("hc", n_streams=4, width=2048, sites=32) == 394_048
    n, c = 4, 96
    assert count("mhc", n_streams=n, width=c) == n * c * (n * n + 2 * n) + n * n + 2 * n + 3 + n * c
    assert count("mhc_lite", n_streams=n, width=c) == n * c * 32 + 32 + 3 + n * c
    assert count("identity", n_streams=n, width=c) == 2 * n * n * c + 2 * n + 2


def test_no_scalar_parameters() -> None:
    mixing = [n for n, c in hnn.CONNECTIONS.items() if isinstance(c, hnn.ConnectionConfig)]
    for name in mixing:
        site = hnn.Connection(connection=name, n_streams=2, width=4, site_index=0)
        assert all(value.ndim > 0 for value in site.state_dict().values())


def test_designation_schemes() -> None:
    def draw(seed: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        return [init.designated_stream("random", 4, generator=generator) for _ in range(64)]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    assert set(draw(1)) == {0, 1, 2, 3}
    assert [init.designated_stream("round_robin", 4, site_index=k) for k in range(5)] == [
        0, 1, 2, 3, 0,
    ]  # fmt: skip
    assert init.designated_stream("fixed", 4, site_index=3) == 0
    assert init.designated_stream("none", 4) == -1
    with pytest.raises(ValueError, match="site_index: expected an int with scheme 'round_robin'"):
        init.designated_stream("round_robin", 4)
    with pytest.raises(ValueError, match=r"scheme: expected one of .* \(did you mean 'random'\?\)"):
        init.designated_stream("randm", 4)


def test_designation_none_is_symmetric() -> None:
    site = hnn.Connection(connection="mhc", n_streams=N, width=WIDTH, designate="none")
    assert site.designated_stream.tolist() == [-1]
    assert torch.equal(site.bias[: 2 * N], torch.full((2 * N,), -1.0))


def test_random_designation_is_recorded_and_restored() -> None:
    def build(seed: int) -> hnn.Connection:
        return hnn.Connection(
            connection="mhc_lite",
            n_streams=N,
            width=WIDTH,
            generator=torch.Generator().manual_seed(seed),
        )

    first = build(0)
    stream = int(first.designated_stream)
    assert int(first.bias[:N].argmax()) == int(first.bias[N : 2 * N].argmax()) == stream
    other = next(m for m in map(build, range(1, 50)) if int(m.designated_stream) != stream)
    other.load_state_dict(first.state_dict())
    assert int(other.designated_stream) == stream
    assert torch.equal(other.bias, first.bias)


def test_learned_stream_scale() -> None:
    scale = init.learned_stream_scale(4, 768, generator=torch.Generator().manual_seed(0))
    bound = math.sqrt(6 / 772)
    assert bound == pytest.approx(0.0882, abs=5e-5)
    noise = scale - 0.6
    assert noise.abs().max() <= bound + 1e-7
    # Uniform on (-b, b): mean 0, standard deviation b / sqrt(3); 3072 draws.
    assert abs(noise.mean().item()) < 4 * bound / math.sqrt(3 * 3072)
    assert noise.std().item() == pytest.approx(0.0509, rel=0.05)
    wider = init.learned_stream_scale(
        4, 768, base=1.0, noise=2.0, generator=torch.Generator().manual_seed(0)
    )
    torch.testing.assert_close(wider - 1.0, 2 * noise, atol=1e-6, rtol=0)
