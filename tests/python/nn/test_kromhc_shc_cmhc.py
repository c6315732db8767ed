"""Published initial values and parameter counts of KromHC, sHC and C-mHC."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hyperstreams import nn as hnn
from hyperstreams.mixers import Circulant, Kronecker
from torch import Tensor

N, WIDTH = 4, 8


def coefficients(connection: str, stream: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """h_pre, h_post and h_res of a fresh connection for one random token."""
    generator = torch.Generator().manual_seed(0)
    site = hnn.Connection(
        connection=connection,
        n_streams=N,
        width=WIDTH,
        designate="default" if stream < 0 else "round_robin",
        site_index=stream,
        generator=generator,
    )
    assert site.designated_stream.tolist() == [stream]
    x = torch.randn(N, WIDTH, generator=generator)
    _, _, h_pre, h_post, h_res = site(x)
    assert h_res is not None
    return h_pre.detach(), h_post.detach(), h_res.detach()


def close(actual: Tensor, expected: Tensor, atol: float = 1e-6) -> None:
    torch.testing.assert_close(actual, expected, atol=atol, rtol=0)


def assert_designated(h_pre: Tensor, h_post: Tensor) -> None:
    favoured = torch.nn.functional.one_hot(torch.tensor(2), N)
    close(h_pre, 0.268941 + (0.731059 - 0.268941) * favoured)
    close(h_post, 0.537883 + (1.462117 - 0.537883) * favoured)


def test_kromhc() -> None:
    h_pre, h_post, h_res = coefficients("kromhc")
    assert_designated(h_pre, h_post)
    p = 0.999665
    pair = torch.tensor([[p, 1 - p], [1 - p, p]])
    close(h_res, torch.kron(pair, pair))
    close(h_res.diagonal(), torch.full((N,), 0.999329))


def test_shc() -> None:
    h_pre, h_post, h_res = coefficients("shc")
    assert_designated(h_pre, h_post)
    sigma = 0.999329
    assert math.tanh(4.0) == pytest.approx(sigma, abs=5e-7)
    # I - (1 - sigma)(I - J), symmetric at the start.
    eye = torch.eye(N)
    close(h_res, eye - (1 - sigma) * (eye - 1 / N))


def test_cmhc() -> None:
    h_pre, h_post, h_res = coefficients("cmhc", stream=-1)
    close(h_pre, torch.full((N,), 1 / N), atol=1e-3)  # the random controller moves them a little
    close(h_post, torch.ones(N), atol=1e-3)
    gamma = 4 / 24
    close(h_res, (1 - gamma) * torch.eye(N) + gamma / N, atol=1e-3)
    assert h_post.std() > 0
    site = hnn.Connection(connection="cmhc", n_streams=N, width=4096)
    assert site.phi is not None
    assert site.phi.std().item() == pytest.approx(0.02 / math.sqrt(N * 4096), rel=0.02)
    assert not site.bias[N:].any()
    assert site.alpha.tolist() == [pytest.approx(0.01)]


def count(connection: str | hnn.ConnectionConfig, n: int, width: int) -> int:
    site = hnn.Connection(connection=connection, n_streams=n, width=width, device="meta")
    return sum(p.numel() for p in site.parameters())


def test_parameter_counts() -> None:
    """nC (2n + K) + 2n + K + scales for K mixer logits, and nC norm weights where learned."""
    c = 96
    assert count("kromhc", 4, c) == 4 * c * 12 + 12 + 3 + 4 * c
    assert count("kromhc", 6, c) == 6 * c * (12 + 8) + 12 + 8 + 3 + 6 * c
    assert count("shc", 4, c) == 4 * c * 17 + 17 + 5 + 4 * c
    assert count("cmhc", 4, c) == 4 * c * 12 + 12 + 1
    # KromHC's own comparison: 48 % fewer than mHC and 61 % fewer than mHC-lite at n = 4.
    big = 4096
    ratio = count("kromhc", 4, big) / count("mhc", 4, big)
    assert 1 - ratio == pytest.approx(0.48, abs=2e-3)
    ratio = count("kromhc", 4, big) / count("mhc_lite", 4, big)
    assert 1 - ratio == pytest.approx(0.61, abs=5e-3)


def test_settings_are_data() -> None:
    config = hnn.CONNECTIONS["kromhc"]
    assert isinstance(config, hnn.ConnectionConfig)
    wide = dataclasses.replace(config, mixer=Kronecker((3, 2)))
    site = hnn.Connection(connection=wide, n_streams=6, width=WIDTH)
    assert site(torch.randn(6, WIDTH))[-1].shape == (6, 6)
    with pytest.raises(ValueError, match="factors must multiply to n_streams = 4"):
        hnn.Connection(connection=wide, n_streams=4, width=WIDTH)
    config = hnn.CONNECTIONS["cmhc"]
    assert isinstance(config, hnn.ConnectionConfig)
    deep = dataclasses.replace(config, mixer=Circulant.for_depth(48))
    h_res = hnn.Connection(connection=deep, n_streams=N, width=WIDTH)(torch.randn(N, WIDTH))[-1]
    close(h_res, (1 - 4 / 96) * torch.eye(N) + 4 / 96 / N, atol=1e-3)
