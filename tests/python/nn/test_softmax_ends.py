"""Softmax read and write weights, over the streams or of n x n logits (JPmHC)."""

from __future__ import annotations

import pytest
import torch
from hyperstreams import nn as hnn
from hyperstreams import ops
from hyperstreams.mixers import Identity
from hyperstreams.ops import Activation
from torch import Tensor
from torch.nn import functional

N, C = 3, 5
F64 = torch.float64


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 4, N, C, generator=torch.Generator().manual_seed(0), dtype=F64)


def test_jpmhc_is_its_formula(x: Tensor) -> None:
    """2602.18308: three matrices from one projection of a LayerNorm, the last one skewed."""
    site = hnn.Connection(connection="jpmhc", n_streams=N, width=C, dtype=F64)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in site.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=F64))
    assert site.phi is not None
    assert site.phi.shape == (3 * N * N, N * C)
    z = functional.layer_norm(x.flatten(-2), (N * C,), eps=1e-5) @ site.phi.T
    scale = site.alpha.repeat_interleave(N * N)
    pre, post, res = (scale * z + site.bias).unflatten(-1, (3, N, N)).unbind(-3)
    mixed = torch.softmax(pre, -1) @ x
    w = 0.1 * (res - res.mT)
    h_res = torch.eye(N, dtype=F64) + w
    for _ in range(2):
        h_res = torch.eye(N, dtype=F64) + w @ (torch.eye(N, dtype=F64) + h_res) / 2
    branch = torch.nn.Linear(C, C, dtype=F64)
    y = branch(mixed.mean(-2))
    expected = h_res @ x + torch.softmax(post, -2) @ y.unsqueeze(-2).expand(x.shape)
    whole = hnn.HyperConnection(branch, connection="jpmhc", n_streams=N, width=C, dtype=F64)
    whole.connection.load_state_dict(site.state_dict())
    torch.testing.assert_close(whole(x), expected)


def test_jpmhc_parameters_and_start(x: Tensor) -> None:
    site = hnn.Connection(connection="jpmhc", n_streams=N, width=C, dtype=F64)
    assert sum(p.numel() for p in site.parameters()) == 3 * N * N * (N * C + 1) + 3
    with torch.no_grad():
        assert site.phi is not None
        site.phi.zero_()
    _, _, h_pre, h_post, h_res = site(x)
    torch.testing.assert_close(h_pre, torch.full_like(h_pre, 1 / N))
    torch.testing.assert_close(h_post, torch.ones_like(h_post))
    assert torch.equal(h_res, torch.eye(N, dtype=F64).expand_as(h_res))


def test_softmax_over_the_streams(x: Tensor) -> None:
    config = hnn.ConnectionConfig(
        name="softmax",
        paper="-",
        mixer=Identity(),
        read_activation=Activation("softmax"),
        write_activation=Activation("softmax", factor=2.0, offset=0.5),
        designate="fixed",
        read_bias=(-8.0, 0.0),
        write_bias=(0.0, 0.0),
    )
    site = hnn.Connection(connection=config, n_streams=N, width=C, dtype=F64)
    _, _, h_pre, h_post, _ = site(x)
    expected = torch.softmax(torch.tensor([0.0, -8.0, -8.0], dtype=F64), 0)
    torch.testing.assert_close(h_pre, expected.expand_as(h_pre))
    torch.testing.assert_close(h_post, torch.full_like(h_post, 2 / N + 0.5))


def test_initial_bias_of_matrix_logits(x: Tensor) -> None:
    config = hnn.ConnectionConfig(
        name="matrix",
        paper="-",
        mixer=Identity(),
        norm="none",
        read_activation=Activation("row_softmax_mean"),
        write_activation=Activation("column_softmax_sum"),
        designate="fixed",
    )
    site = hnn.Connection(connection=config, n_streams=N, width=C, dtype=F64)
    _, _, h_pre, h_post, _ = site(x)
    favoured = torch.softmax(torch.tensor([1.0, -1.0, -1.0], dtype=F64), 0)
    torch.testing.assert_close(h_pre, favoured)
    torch.testing.assert_close(h_post, N * favoured)


def test_centred_controllers_do_not_see_the_mean() -> None:
    config = hnn.ConnectionConfig(name="layer", paper="-", mixer=Identity(), centred=True)
    site = hnn.Connection(connection=config, n_streams=N, width=C)
    torch.nn.init.normal_(site.phi)
    x = torch.randn(4, N, C)
    torch.testing.assert_close(site(x)[2], site(x + 3.0)[2], atol=1e-4, rtol=1e-4)
    assert site(x.bfloat16())[2].dtype == torch.float32


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"kind must be one of none, sigmoid, .*got 'relu'"):
        Activation("relu")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="form must be 'inside' with kind 'softmax'"):
        Activation("softmax", form="outside")
    soft, matrix = Activation("softmax"), Activation("row_softmax_mean")
    with pytest.raises(ValueError, match="mix_activation: expected an elementwise one"):
        hnn.ConnectionConfig(name="x", paper="-", mixer=Identity(), mix_activation=soft)
    with pytest.raises(ValueError, match="'per_stream' gives one logit per stream"):
        hnn.ConnectionConfig(
            name="x", paper="-", mixer=Identity(), norm="per_stream", read_activation=matrix
        )
    arguments = (None, torch.ones(3), torch.zeros(N * (2 + N)))
    with pytest.raises(ValueError, match="mix_activation: expected an elementwise one"):
        ops.coefficients(
            torch.zeros(N * (2 + N)), *arguments, n_streams=N, mixer="free", mix_activation=soft
        )
    with pytest.raises(ValueError, match="per_stream: expected read and write activations with n"):
        ops.coefficients(
            torch.zeros(N, 2 + N), *arguments, n_streams=N, mixer="free", per_stream=True,
            read_activation=matrix,
        )  # fmt: skip
