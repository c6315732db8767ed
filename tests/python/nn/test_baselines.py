"""Baselines against their papers' formulas, and the Hyper-Connections that equal them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hyperstreams import nn as hnn
from hyperstreams import ops
from hyperstreams.nn.baselines.attention_residual import AttentionResidual
from hyperstreams.nn.baselines.denseformer import DenseFormer
from hyperstreams.nn.baselines.history import weighted_sum
from hyperstreams.nn.baselines.post_norm import PostNormSite
from hyperstreams.nn.baselines.residual_matrix import ResidualMatrix
from torch import Tensor, nn

F64 = torch.float64
C, T, SITES = 6, 5, 8


def norm(width: int) -> nn.Module:
    return nn.RMSNorm(width, eps=0.0, elementwise_affine=False)


def plan(n_sites: int = SITES, **options: Any) -> hnn.Plan:
    return hnn.Plan(width=C, n_sites=n_sites, make_norm=norm, factory={"dtype": F64}, **options)


def branches(count: int = SITES) -> list[nn.Module]:
    torch.manual_seed(1)
    return [nn.Sequential(nn.Linear(C, C, dtype=F64), nn.Tanh()) for _ in range(count)]


def scramble(module: nn.Module, seed: int = 2) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for owner in module.modules():
            if isinstance(owner, hnn.FullPrecisionModule):
                for parameter in owner.parameters(recurse=False):
                    noise = torch.randn(parameter.shape, generator=generator, dtype=F64)
                    parameter.add_(0.5 * noise)


def build(
    connection: str | hnn.ConnectionFamily, functions: list[nn.Module], **options: Any
) -> tuple[nn.Module, nn.ModuleList, nn.Module]:
    the_plan = plan(len(functions), **options)
    sites = nn.ModuleList(
        hnn.build_site(connection, f, site_index=k, plan=the_plan) for k, f in enumerate(functions)
    )
    return hnn.build_expand(connection, the_plan), sites, hnn.build_reduce(connection, the_plan)


def run(parts: tuple[nn.Module, nn.ModuleList, nn.Module], h: Tensor) -> Tensor:
    expand, sites, reduce = parts
    state = expand(h)
    for site in sites:
        state = site(state)
    result = reduce(state)
    assert isinstance(result, Tensor)
    return result


@pytest.fixture
def h() -> Tensor:
    return torch.randn(2, T, C, generator=torch.Generator().manual_seed(9), dtype=F64)


def rms(x: Tensor) -> Tensor:
    return x / x.square().mean(-1, keepdim=True).sqrt()


def pre_norm(h: Tensor, functions: list[nn.Module]) -> Tensor:
    for f in functions:
        h = h + f(h)
    return rms(h)


def test_residual_and_post_norm(h: Tensor) -> None:
    functions = branches()
    torch.testing.assert_close(run(build("residual", functions), h), pre_norm(h, functions))
    x = h
    for f in functions:
        x = rms(x + f(x))
    torch.testing.assert_close(run(build("post_norm", functions), h), x)
    assert not hnn.branch_norm("post_norm")
    assert hnn.branch_norm("residual")
    assert hnn.branch_norm("mhc")


def test_deepnorm(h: Tensor) -> None:
    """18 blocks: alpha = 36^(1/4), beta = 144^(-1/4), the paper's decoder constants."""
    functions = branches()
    x = h
    for f in functions:
        x = rms(8**0.25 * x + f(x))
    torch.testing.assert_close(run(build("deepnorm", functions), h), x)
    deep = hnn.build_site("deepnorm", functions[0], site_index=0, plan=plan(36))
    assert isinstance(deep, PostNormSite)
    assert deep.alpha == pytest.approx(2.449490, abs=1e-6)
    assert hnn.branch_gain("deepnorm", plan(36)) == pytest.approx(0.288675, abs=1e-6)
    assert hnn.branch_gain("post_norm", plan(36)) is None


def test_rezero(h: Tensor) -> None:
    functions = branches()
    parts = build("rezero", functions)
    assert torch.equal(run(parts, h), norm(C)(h))
    scramble(parts[1])
    x = h
    for f, site in zip(functions, parts[1], strict=True):
        assert site.alpha.shape == (1,)
        x = x + site.alpha * f(x)
    torch.testing.assert_close(run(parts, h), rms(x))


def test_parallel(h: Tensor) -> None:
    functions = branches()
    x = h
    for attention, mlp in zip(functions[::2], functions[1::2], strict=True):
        x = x + attention(x) + mlp(x)
    torch.testing.assert_close(run(build("parallel", functions), h), rms(x))
    with pytest.raises(ValueError, match="'parallel': n_sites: expected an even number, got 7"):
        hnn.check_connection("parallel", width=C, n_sites=7, n_streams=4)


def test_residual_dual(h: Tensor) -> None:
    functions = branches()
    x = d = h
    for f in functions:
        y = f(x)
        x, d = rms(x + y), d + y
    torch.testing.assert_close(run(build("residual_dual", functions), h), x + rms(d))


@pytest.mark.parametrize("count", [8, 7])
def test_altup(count: int, h: Tensor) -> None:
    """Predict, compute, correct, written out per stream; a block is two sites."""
    functions = branches(count)
    parts = build("altup", functions, n_streams=3, reduce={"scheme": "mean"})
    torch.testing.assert_close(run(parts, h), pre_norm(h, functions))
    scramble(parts[1])
    streams = [h, h, h]
    for block in range(0, count, 2):
        last = parts[1][min(block + 1, count - 1)]
        predict, correct, active = last.predict, last.correct, block // 2 % 3
        guesses = [sum(predict[i, j] * streams[j] for j in range(3)) for i in range(3)]
        y = streams[active]
        for f in functions[block : block + 2]:
            y = y + f(y)
        streams = [guesses[i] + correct[i] * (y - guesses[active]) for i in range(3)]
    torch.testing.assert_close(run(parts, h), rms(sum(streams) / 3))
    scalars = [p.numel() for site in parts[1] for p in site.parameters(recurse=False)]
    assert sum(scalars) == (3 * 3 + 3) * -(-count // 2)


@pytest.mark.parametrize(("dilation", "period"), [(1, 1), (2, 1), (1, 2), (3, 2)])
def test_denseformer(dilation: int, period: int, h: Tensor) -> None:
    functions = branches(12)
    parts = build(DenseFormer("own", "-", dilation, period), functions)
    plain = pre_norm(h, functions)
    assert torch.equal(run(parts, h), run(build("residual", functions), h))
    torch.testing.assert_close(run(parts, h), plain)
    scramble(parts[1])
    history, y = [h], h
    for i in range(1, 7):
        for f in functions[2 * i - 2 : 2 * i]:
            y = y + f(y)
        history.append(y)
        weights = parts[1][2 * i - 1].weights
        if i % period:
            assert weights is None
            continue
        chosen = [j for j in range(i + 1) if j % dilation == i % dilation]
        assert len(weights) == len(chosen) == (i + dilation) // dilation
        y = sum(weights[k] * history[j] for k, j in enumerate(chosen))
    torch.testing.assert_close(run(parts, h), rms(y))
    if dilation == period == 1:
        count = sum(p.numel() for site in parts[1] for p in site.parameters(recurse=False))
        assert count == 6 * (6 + 3) / 2


@pytest.mark.parametrize("blocks", [None, 2, 3, 8, 100])
def test_attention_residual(blocks: int | None, h: Tensor) -> None:
    functions = branches()
    parts = build(AttentionResidual("own", "-", blocks), functions)
    size = 1 if blocks is None else math.ceil(SITES / blocks)

    def forward(average: Callable[[list[Tensor], nn.Module], Tensor]) -> Tensor:
        done, partial = [h], []
        for k, (f, site) in enumerate(zip(functions, parts[1], strict=True)):
            own = [torch.stack(partial).sum(0)] if partial else []
            partial.append(f(average(done + own, site.depth_attention)))
            if (k + 1) % size == 0:
                done, partial = [*done, torch.stack(partial).sum(0)], []
        own = [torch.stack(partial).sum(0)] if partial else []
        return rms(average(done + own, parts[2].depth_attention))

    def attend(values: list[Tensor], attention: nn.Module) -> Tensor:
        v = torch.stack(values)
        keys = v * torch.rsqrt(v.square().mean(-1, keepdim=True) + 1e-6) * attention.norm_weight
        return (torch.softmax(keys @ attention.query, 0).unsqueeze(-1) * v).sum(0)

    uniform = forward(lambda values, _: torch.stack(values).mean(0))
    torch.testing.assert_close(run(parts, h), uniform)
    scramble(parts[1])
    scramble(parts[2])
    torch.testing.assert_close(run(parts, h), forward(attend))
    assert sum(p.numel() for p in parts[1][0].depth_attention.parameters()) == 2 * C


@pytest.mark.parametrize("index", [2, 3])
def test_residual_matrix(index: int) -> None:
    """Reads X k, writes o w^T, head by head; the attention's queries start at 0."""
    n_head, n_keys, head = 3, 5, C // 3
    reads = n_head + 2 if index == 2 else n_head
    family = ResidualMatrix("own", "-", n_keys)
    branch = nn.Linear(reads * head, C, dtype=F64)
    the_plan = plan(n_head=n_head, n_kv_head=1)
    site = hnn.build_site(family, branch, site_index=index, plan=the_plan)
    assert site.read.weight[:n_head].any() == (index == 3)
    scramble(site)
    x = torch.randn(T, head, n_keys, generator=torch.Generator().manual_seed(9), dtype=F64)
    expected = x.clone()
    for t in range(T):
        normed = x[t] / (x[t].square().mean() + 1e-5).sqrt()
        y = branch(torch.cat([normed @ key for key in site.read.weight]))
        for output, key in zip(y.view(n_head, head), site.write.weight, strict=True):
            expected[t] += torch.outer(output, key)
    torch.testing.assert_close(site(x), expected)
    expand, reduce = hnn.build_expand(family, the_plan), hnn.build_reduce(family, the_plan)
    h = torch.randn(C, dtype=F64)
    stored = expand(h)
    by_hand = [torch.outer(v, k) for v, k in zip(h.view(3, 2), expand.keys.weight, strict=True)]
    torch.testing.assert_close(stored, sum(by_hand))
    normed = stored / (stored.square().mean() + 1e-5).sqrt()
    torch.testing.assert_close(
        reduce(stored), torch.cat([normed @ key for key in reduce.read.weight])
    )


@pytest.mark.parametrize("connection", ["denseformer", "attention_residual"])
def test_history_is_not_copied(connection: str, h: Tensor) -> None:
    """What autograd keeps of full-width values grows with depth, not with its square."""

    def kept(count: int) -> int:
        parts = build(connection, [nn.Tanh() for _ in range(count)])
        storages: dict[int, Tensor] = {}

        def pack(saved: Tensor) -> Tensor:
            if saved.shape[-1] == C:
                storages[saved.untyped_storage().data_ptr()] = saved
            return saved

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
            run(parts, h.clone().requires_grad_())
        return sum(s.untyped_storage().nbytes() for s in storages.values())

    assert kept(32) - kept(16) == kept(48) - kept(32)


@pytest.mark.parametrize(
    ("module", "family", "terms"),
    [
        # L blocks of two sites: L (L + 3) / 2; S sites and the router: (S + 1) (S + 2) / 2.
        ("denseformer", DenseFormer("d", "-"), lambda s: s // 2 * (s // 2 + 3) // 2),
        ("attention_residual", AttentionResidual("a", "-"), lambda s: (s + 1) * (s + 2) // 2),
        # Four blocks of s / 4 sites: linear in depth.
        ("attention_residual", AttentionResidual("b", "-", 4), lambda s: s // 4 * 14 + 1),
    ],
)
@pytest.mark.parametrize("sites", [8, 16, 32])
def test_hidden_states_read(
    module: str,
    family: hnn.ConnectionFamily,
    terms: Callable[[int], int],
    sites: int,
    h: Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As many as the paper's formula needs, and not more."""
    counted = []

    def counting(values: list[Tensor], weights: Tensor) -> Tensor:
        counted.append(len(values))
        return weighted_sum(values, weights)

    monkeypatch.setattr(f"hyperstreams.nn.baselines.{module}.weighted_sum", counting)
    run(build(family, [nn.Tanh() for _ in range(sites)]), h)
    assert sum(counted) == terms(sites)


def hyper_connections(functions: list[nn.Module], matrices: list[list[list[float]]]) -> nn.Module:
    """Static sites from the papers' (n+1) x (n+1) matrices [[0, B], [A_m, A_r]], in turn."""
    sites = nn.Sequential()
    for k, f in enumerate(functions):
        matrix = torch.tensor(matrices[k % len(matrices)], dtype=F64)
        n = len(matrix) - 1
        site = hnn.HyperConnection(
            f, connection="hc_static", n_streams=n, width=C, site_index=k, dtype=F64
        )
        with torch.no_grad():
            # A_r is source first, h_res destination first.
            site.connection.bias.copy_(
                torch.cat([matrix[1:, 0], matrix[0, 1:], matrix[1:, 1:].T.flatten()])
            )
        sites.append(site)
    return sites


def test_matrices_of_pre_norm(h: Tensor) -> None:
    functions = branches()
    sites = hyper_connections(functions, [[[0, 1], [1, 1]]])
    state = h
    for f in functions:
        state = hnn.Residual(f)(state)
    assert torch.equal(sites(h.unsqueeze(-2)).squeeze(-2), state)


def test_matrices_of_parallel_blocks(h: Tensor) -> None:
    """Exact with A_r = diag(1, 0) in the second sublayer; with the paper's A_r = I, n h + ..."""
    functions = branches()
    first = [[0, 1, 0], [1, 1, 1], [1, 1, 1]]
    sites = hyper_connections(functions, [first, [[0, 0, 1], [0, 1, 0], [1, 0, 0]]])
    streams = torch.stack([h, torch.zeros_like(h)], dim=-2)
    state = h
    for k, f in enumerate(functions):
        state = hnn.build_site("parallel", f, site_index=k, plan=plan())(state)
    assert torch.equal(sites(streams).sum(-2), state)
    block = functions[:2]
    published = hyper_connections(block, [first, [[0, 0, 1], [0, 1, 0], [1, 0, 1]]])
    torch.testing.assert_close(published(streams).sum(-2), 2 * h + block[0](h) + block[1](h))


def test_matrices_of_post_norm(h: Tensor) -> None:
    """[[0, 1/s], [1, 1/s]] with s^2 = var(x) + var(y) + 2 cov(x, y) of the token.

    Moments about 0 give the weightless RMS norm; about the mean, the layer norm of centred states.
    """
    functions = branches()
    post = build("post_norm", functions)[1]
    x, y_norm = h.unsqueeze(-2), h
    for f, site in zip(functions, post, strict=True):
        u = ops.read(x, torch.ones(1, dtype=F64))
        y = f(u)
        s = (u.square().mean(-1) + y.square().mean(-1) + 2 * (u * y).mean(-1)).sqrt()
        x = ops.mix_write(x, y, (1 / s)[..., None, None], (1 / s)[..., None])
        y_norm = site(y_norm)
        torch.testing.assert_close(x.squeeze(-2), y_norm)


def test_errors() -> None:
    with pytest.raises(ValueError, match="'d': dilation: expected at least 1, got 0"):
        DenseFormer("d", "-", dilation=0)
    with pytest.raises(ValueError, match="'a': blocks: expected at least 1, got 0"):
        AttentionResidual("a", "-", blocks=0)
    with pytest.raises(ValueError, match="'altup': n_streams: expected >= 1, got 0"):
        hnn.check_connection("altup", width=C, n_sites=2, n_streams=0)
