"""Mixers some of whose logits are static: the bias alone, without controller rows."""

from __future__ import annotations

import pytest
import torch
from hyperstreams import nn as hnn
from hyperstreams import ops
from hyperstreams.mixers import Harmonized, SparseSelective
from torch import Tensor

N, C = 4, 6
F64 = torch.float64


def randomised(connection: str) -> hnn.Connection:
    site = hnn.Connection(connection=connection, n_streams=N, width=C, site_index=0, dtype=F64)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in site.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=F64))
    return site


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 5, N, C, generator=torch.Generator().manual_seed(1), dtype=F64)


@pytest.mark.parametrize(
    ("connection", "rows", "scales", "static"),
    [("sparse_selective", 2 * N + 2, 3, 2 * 6), ("harmonized", 2 * N, 2, N * N)],
)
def test_parameters(connection: str, rows: int, scales: int, static: int) -> None:
    site = hnn.Connection(connection=connection, n_streams=N, width=C)
    shapes = {name: tuple(p.shape) for name, p in site.named_parameters()}
    assert shapes == {"phi": (rows, N * C), "alpha": (scales,), "bias": (rows + static,)}


def test_sparse_selective_is_its_formula(x: Tensor) -> None:
    site = randomised("sparse_selective")
    assert site.phi is not None
    flat = x.flatten(-2)
    z = flat * torch.rsqrt(flat.square().mean(-1, keepdim=True) + 1e-6) @ site.phi.T
    select = torch.softmax(site.alpha[2] * z[..., 2 * N :] + site.bias[2 * N : 2 * N + 2], -1)
    matrices = []
    for entries in site.bias[2 * N + 2 :].view(2, 6):
        a = torch.zeros(N, N, dtype=F64)
        a[tuple(torch.triu_indices(N, N, 1))] = entries
        a = a - a.T
        matrices.append(torch.linalg.inv(torch.eye(N) + a) @ (torch.eye(N) - a))
    expected = sum(select[..., m, None, None] * matrix for m, matrix in enumerate(matrices))
    h_res = site(x)[4]
    torch.testing.assert_close(h_res, expected)
    h_res.square().sum().backward()
    assert all(p.grad is not None for p in site.parameters())
    # Every token chooses by itself: a later token changes nothing before it.
    later = x.clone()
    later[:, 3:] += 1.0
    assert torch.equal(site(later)[4][:, :3], h_res[:, :3])


def test_harmonized_has_one_matrix_for_all_tokens(x: Tensor) -> None:
    site = randomised("harmonized")
    h_pre, h_res = site(x)[2], site(x)[4]
    assert h_pre.shape == (2, 5, N)
    assert h_res.shape == (N, N)
    torch.testing.assert_close(
        h_res, torch.eye(N, dtype=F64) + 0.05 * site.bias[2 * N :].view(N, N)
    )


def test_a_static_connection_keeps_its_static_logits() -> None:
    bias = torch.randn(2 * N + 14, generator=torch.Generator().manual_seed(2), dtype=F64)
    alpha = torch.ones(3, dtype=F64)
    x = torch.zeros(N, C, dtype=F64)
    _, _, _, _, h_res = ops.boundary(
        x, None, None, None, None, None, alpha, bias, n_streams=N, mixer=SparseSelective()
    )
    torch.testing.assert_close(h_res, SparseSelective().map(bias[2 * N :], N))


def test_the_mix_activation_sees_static_logits() -> None:
    logits, alpha = torch.randn(3, 2 * N), torch.ones(2)
    bias = torch.randn(2 * N + N * N)
    tanh = ops.Activation("tanh", factor=2.0)
    _, _, h_res = ops.coefficients(
        logits, None, alpha, bias, n_streams=N, mixer=Harmonized(), mix_activation=tanh
    )
    assert h_res is not None
    expected = torch.eye(N) + 0.05 * 2 * torch.tanh(bias[2 * N :]).view(N, N)
    torch.testing.assert_close(h_res, expected)


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"logits: expected \[..., K\] ending in \(10,\)"):
        ops.coefficients(
            torch.zeros(3, 22), None, torch.ones(3), torch.zeros(22), n_streams=N,
            mixer="sparse_selective",
        )  # fmt: skip
    with pytest.raises(ValueError, match=r"a mixer with n\*n = 16 logits, got .* with 0"):
        ops.coefficients(
            torch.zeros(3, N, 2 + N), None, torch.ones(2), torch.zeros(24), n_streams=N,
            mixer="harmonized", per_stream=True,
        )  # fmt: skip
