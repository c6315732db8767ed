"""Sites against the papers' formulas, written out independently and in the papers' own layout."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from hyperstreams import nn as hnn
from torch import Tensor, nn

F64 = torch.float64
N, C, T = 4, 6, 5
MIXING = [name for name, c in hnn.CONNECTIONS.items() if isinstance(c, hnn.ConnectionConfig)]


def randomised(connection: str, seed: int = 0, **options: object) -> hnn.HyperConnection:
    """A float64 site whose every parameter is random, around a linear branch."""
    generator = torch.Generator().manual_seed(seed)
    branch = nn.Linear(C, C, dtype=F64)
    site = hnn.HyperConnection(
        branch, connection=connection, n_streams=N, width=C, site_index=1, dtype=F64
    )
    with torch.no_grad():
        for parameter in site.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=F64))
    return site


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, T, N, C, generator=torch.Generator().manual_seed(9), dtype=F64)


def parts(site: hnn.HyperConnection) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    connection = site.connection
    assert connection.phi is not None
    weight = connection.norm_weight
    return (
        connection.phi,
        connection.alpha,
        connection.bias,
        torch.ones(1) if weight is None else weight,
    )


def test_hc_dynamic(x: Tensor) -> None:
    """2409.19606 eq. 10-14: row s of A depends on stream s; H' = B^T F(u) + A_r^T H."""
    site = randomised("hc")
    phi, alpha, bias, _ = parts(site)
    normed = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)
    w_m, w_beta, w_r = phi[0], phi[1], phi[2:].T
    a_m = alpha[0] * torch.tanh(normed @ w_m) + bias[:N]
    beta = alpha[1] * torch.tanh(normed @ w_beta) + bias[N : 2 * N]
    # The static A_r is stored as h_res, destination first; the paper's is source first.
    a_r = alpha[0] * torch.tanh(normed @ w_r) + bias[2 * N :].view(N, N).T
    u = torch.einsum("bts,btsc->btc", a_m, x)
    expected = torch.einsum("bts,btc->btsc", beta, site.branch(u))
    expected = expected + torch.einsum("btsd,btsc->btdc", a_r, x)
    torch.testing.assert_close(site(x), expected)


def whole_norm(x: Tensor, weight: Tensor, eps: float = 0.0) -> Tensor:
    flat = x.flatten(-2)
    return flat * torch.rsqrt(flat.square().mean(-1, keepdim=True) + eps) * weight


def test_mhc(x: Tensor) -> None:
    """2512.24880 with the released source-first matrix: columns first, log domain, 20 rounds."""
    site = randomised("mhc")
    phi, alpha, bias, weight = parts(site)
    z = whole_norm(x, weight) @ phi.T
    h_pre = torch.sigmoid(alpha[0] * z[..., :N] + bias[:N])
    h_post = 2 * torch.sigmoid(alpha[1] * z[..., N : 2 * N] + bias[N : 2 * N])
    s = (alpha[2] * z[..., 2 * N :] + bias[2 * N :]).unflatten(-1, (N, N))
    for _ in range(20):
        s = s - s.logsumexp(-2, keepdim=True)
        s = s - s.logsumexp(-1, keepdim=True)
    u = torch.einsum("bts,btsc->btc", h_pre, x)
    expected = torch.einsum("btsd,btsc->btdc", s.exp(), x)
    expected = expected + torch.einsum("bts,btc->btsc", h_post, site.branch(u))
    torch.testing.assert_close(site(x), expected)


def test_mhc_lite(x: Tensor) -> None:
    """2601.05732: softmax over all permutations in lexicographic order, applied source first."""
    site = randomised("mhc_lite")
    phi, alpha, bias, weight = parts(site)
    z = whole_norm(x, weight) @ phi.T
    h_pre = torch.sigmoid(alpha[0] * z[..., :N] + bias[:N])
    h_post = 2 * torch.sigmoid(alpha[1] * z[..., N : 2 * N] + bias[N : 2 * N])
    a = torch.softmax(alpha[2] * z[..., 2 * N :] + bias[2 * N :], -1)
    matrices = torch.stack([torch.eye(N, dtype=F64)[list(p)] for p in permutations(range(N))])
    mix = torch.einsum("btk,ksd->btsd", a, matrices)
    u = torch.einsum("bts,btsc->btc", h_pre, x)
    expected = torch.einsum("btsd,btsc->btdc", mix, x)
    expected = expected + torch.einsum("bts,btc->btsc", h_post, site.branch(u))
    torch.testing.assert_close(site(x), expected)


def test_identity(x: Tensor) -> None:
    site = randomised("identity")
    phi, alpha, bias, weight = parts(site)
    z = whole_norm(x, weight, 1e-6) @ phi.T
    h_pre = torch.sigmoid(alpha[0] * z[..., :N] + bias[:N]) + 1e-6
    h_post = 2 * torch.sigmoid(alpha[1] * z[..., N:] + bias[N:]) + 1e-6
    u = torch.einsum("bts,btsc->btc", h_pre, x)
    expected = x + torch.einsum("bts,btc->btsc", h_post, site.branch(u))
    torch.testing.assert_close(site(x), expected)


def test_static_h_res_is_destination_first(x: Tensor) -> None:
    site = randomised("hc_static")
    bias = site.connection.bias
    h_pre, h_post, h_res = bias[:N], bias[N : 2 * N], bias[2 * N :].view(N, N)
    y = site.branch(sum(h_pre[i] * x[..., i, :] for i in range(N)))
    expected = torch.stack(
        [sum(h_res[j, i] * x[..., i, :] for i in range(N)) + h_post[j] * y for j in range(N)],
        dim=-2,
    )
    torch.testing.assert_close(site(x), expected)
    streams = site(hnn.Streams(x))
    torch.testing.assert_close(streams.tensor, expected)
    assert not torch.allclose(h_res, h_res.T)


@pytest.mark.parametrize("connection", ["hc", "hc_static"])
@pytest.mark.parametrize("n", [1, 4])
def test_hc_starts_as_pre_norm_bit_for_bit(connection: str, n: int) -> None:
    generator = torch.Generator().manual_seed(3)
    branches = [nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 16), nn.GELU()) for _ in range(6)]
    h = torch.randn(3, 7, 16, generator=generator)
    x = hnn.ExpandStreams(n_streams=n, width=16)(h)
    for k, branch in enumerate(branches):
        site = hnn.HyperConnection(
            branch, connection=connection, n_streams=n, width=16, site_index=k
        )
        x, h = site(x), hnn.Residual(branch)(h)
    for stream in range(n):
        assert torch.equal(x.tensor[..., stream, :], h)


@pytest.mark.parametrize("connection", MIXING)
def test_one_stream(connection: str) -> None:
    site = hnn.HyperConnection(
        nn.Linear(C, C), connection=connection, n_streams=1, width=C, site_index=0
    )
    x = torch.randn(2, T, 1, C, requires_grad=True)
    state = site(x)
    assert state.shape == x.shape
    _, _, h_pre, h_post, h_res = site.connection(x)
    if h_res is not None:
        # A 1 x 1 mixer is 1 at the start in every family (to the eps of those that have one).
        torch.testing.assert_close(h_res, torch.ones_like(h_res), atol=1e-5, rtol=0)
    write = {"mhc": 1.462117, "mhc_lite": 1.462117, "identity": 1.462118, "hc": 1.0}
    if connection in write:
        read = {"hc": 1.0}.get(connection, write[connection] / 2)
        torch.testing.assert_close(h_pre, torch.full_like(h_pre, read))
        torch.testing.assert_close(h_post, torch.full_like(h_post, write[connection]))
    expected = x + h_post.unsqueeze(-1) * site.branch(h_pre * x.squeeze(-2)).unsqueeze(-2)
    torch.testing.assert_close(state, expected)
    state.sum().backward()
    assert x.grad is not None


def mixer_gradient(connection: str, *, replicated: bool) -> float:
    """Largest gradient of a site's mixer logits over the largest of its read logits."""
    generator = torch.Generator().manual_seed(5)
    site = hnn.HyperConnection(
        nn.Linear(C, C, dtype=F64),
        connection=connection,
        n_streams=N,
        width=C,
        designate="fixed",
        dtype=F64,
    )
    bias = site.connection.bias
    with torch.no_grad():
        for parameter in (bias, *site.branch.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=F64))
    x = torch.randn(T, 1 if replicated else N, C, generator=generator, dtype=F64).expand(T, N, C)
    weights = torch.randn(T, N, C, generator=generator, dtype=F64)
    (site(x) * weights).sum().backward()
    assert bias.grad is not None
    return (bias.grad[2 * N :].abs().max() / bias.grad[:N].abs().max()).item()


def test_mixer_gradient_vanishes_for_equal_streams() -> None:
    """Unit row sums make mixing of equal streams the identity: no gradient until they differ."""
    assert mixer_gradient("mhc_lite", replicated=True) < 1e-14
    assert mixer_gradient("mhc_lite", replicated=False) > 1e-2
    # In the released orientation Sinkhorn's row sums, and so the gradient's zero, are approximate.
    assert 1e-14 < mixer_gradient("mhc", replicated=True) < 1e-3
    assert mixer_gradient("mhc", replicated=False) > 1e-2
