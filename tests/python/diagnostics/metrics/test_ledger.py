"""The ledger rebuilds real streams; contributions and cut rank have their planted values."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from hyperstreams.diagnostics import ledger, metrics
from hyperstreams.ops import mix_write, read
from torch import Tensor

B, T, C = 2, 5, 12


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Chain(NamedTuple):
    """A random network of signed coefficients, run with the ops of the package."""

    streams: Tensor
    h_pre: Tensor
    h_post: Tensor
    h_res: Tensor
    branch_in: Tensor
    branch_out: Tensor


def run(x: Tensor, h_pre: Tensor, h_post: Tensor, h_res: Tensor) -> Chain:
    states, inputs, outputs = [x], [], []
    for k in range(len(h_pre)):
        u = read(x, h_pre[k])
        y = torch.tanh(u.roll(1, dims=-1) * (k + 1)) + u.roll(2, dims=-1)
        x = mix_write(x, y, h_res[k], h_post[k])
        states.append(x)
        inputs.append(u)
        outputs.append(y)
    return Chain(
        torch.stack(states), h_pre, h_post, h_res, torch.stack(inputs), torch.stack(outputs)
    )


def chain(n: int = 4, sites: int = 7, *, replicated: bool = True, seed: int = 0) -> Chain:
    x = randn(B, T, 1, C, seed=seed).expand(B, T, n, C)
    if not replicated:
        x = x * randn(n, C, seed=seed + 1)
    return run(
        x.contiguous(),
        randn(sites, B, T, n, seed=seed + 2),
        randn(sites, B, T, n, seed=seed + 3),
        randn(sites, B, T, n, n, seed=seed + 4) / n**0.5,
    )


@pytest.mark.parametrize("replicated", [True, False])
def test_ledger_reconstructs_streams_and_inputs(replicated: bool) -> None:
    net = chain(replicated=replicated)
    start = None if replicated else torch.eye(4, dtype=torch.float64)
    composition = ledger.ledger(net.h_res, net.h_post, start=start)
    written = ledger.writers(net.streams[0], net.branch_out, replicated=replicated)
    rebuilt = ledger.reconstruct(composition, written)
    assert (rebuilt - net.streams).abs().max() <= 1e-10 * net.streams.abs().max()
    c = ledger.contributions(net.h_pre, composition)
    inputs = (c.unsqueeze(-2) @ written).squeeze(-2)
    assert (inputs[:-1] - net.branch_in).abs().max() <= 1e-10 * net.branch_in.abs().max()
    assert torch.allclose(inputs[-1], net.streams[-1].sum(-2))


def test_rows_start_equal_and_rank_grows_by_one() -> None:
    net = chain(n=8, sites=9)
    composition = ledger.ledger(net.h_res, net.h_post)
    assert torch.equal(composition[0], torch.ones(B, T, 8, 1).double() * (torch.arange(10) == 0))
    for k in range(10):
        rank = torch.linalg.matrix_rank(composition[k])
        assert (rank == min(8, k + 1)).all()
    full = ledger.ledger(net.h_res, net.h_post, start=torch.eye(8, dtype=torch.float64))
    assert (torch.linalg.matrix_rank(full[0]) == 8).all()


def test_permuting_streams_permutes_the_ledger_and_leaves_contributions() -> None:
    net = chain()
    order = torch.randperm(4, generator=torch.Generator().manual_seed(9))
    moved = ledger.ledger(net.h_res[..., order, :][..., order], net.h_post[..., order])
    composition = ledger.ledger(net.h_res, net.h_post)
    assert torch.allclose(moved, composition[..., order, :])
    assert torch.allclose(
        ledger.contributions(net.h_pre[..., order], moved),
        ledger.contributions(net.h_pre, composition),
    )


def test_plain_residual_has_contributions_of_one() -> None:
    ones = torch.ones(6, 3, 1, dtype=torch.float64)
    c = ledger.contributions(ones, ledger.ledger(ones.unsqueeze(-1), ones))
    assert torch.equal(c, torch.ones(7, 3, 7).double().movedim(1, 0).tril().movedim(0, 1))
    assert torch.allclose(ledger.cut_rank(c), torch.ones(7, 3).double())


def test_merged_starts_and_norms() -> None:
    net = chain(replicated=False)
    start = torch.eye(4, dtype=torch.float64)
    composition = ledger.ledger(net.h_res, net.h_post, start=start)
    c = ledger.contributions(net.h_pre, composition)
    assert torch.allclose(
        ledger.merge_starts(c, 4),
        ledger.contributions(net.h_pre, ledger.ledger(net.h_res, net.h_post)),
    )
    written = ledger.writers(net.streams[0], net.branch_out, replicated=False)
    size = ledger.contribution_norm(c, written)
    factor = torch.rand(c.shape[-1], generator=torch.Generator().manual_seed(3)).double() + 0.5
    rescaled = ledger.contribution_norm(c / factor, written * factor.unsqueeze(-1))
    assert torch.allclose(rescaled, size)


def test_readout_weights() -> None:
    net = chain()
    composition = ledger.ledger(net.h_res, net.h_post)
    mean = ledger.contributions(net.h_pre, composition, readout=torch.full((4,), 0.25).double())
    total = ledger.contributions(net.h_pre, composition)
    assert torch.allclose(4 * mean[-1], total[-1])
    assert torch.equal(mean[:-1], total[:-1])


@pytest.mark.parametrize("kind", ["entropy", "participation"])
@pytest.mark.parametrize("definition", ["singular_value", "energy"])
@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_cut_rank_of_independent_channels(
    m: int, kind: metrics.EffectiveKind, definition: ledger.RankDefinition
) -> None:
    """m streams, each with writers and readers of its own, and nothing else."""
    n, sites = 4, 24
    eye = torch.eye(n, dtype=torch.float64)
    own = eye[torch.arange(sites) % m]
    # No embedding and no readout: they would join the channels.
    composition = ledger.ledger(eye.expand(sites, n, n), own, start=torch.zeros(n, 1).double())
    c = ledger.contributions(own, composition, readout=torch.zeros(n).double())
    rank = ledger.cut_rank(c, kind=kind, definition=definition)
    assert rank[12].item() == pytest.approx(m)
    assert rank[0].item() == 0
    assert rank[-1].item() == 0


def test_cut_rank_is_at_most_n() -> None:
    net = chain(n=3, sites=10)
    c = ledger.contributions(net.h_pre, ledger.ledger(net.h_res, net.h_post))
    values = ledger.cut_singular_values(c, net.branch_out.new_ones(11))
    assert (values[..., 3:] <= 1e-9 * values[..., :1]).all()
    rank = ledger.cut_rank(c)
    assert rank.shape == (11, B, T)
    assert (rank <= 3 + 1e-6).all()
    assert torch.allclose(rank[0], torch.ones(B, T).double())
    assert torch.allclose(rank[-1], torch.ones(B, T).double())
    assert rank[5].max() > 1.2


def test_cut_rank_ignores_the_basis_of_the_streams() -> None:
    """X -> A X, p -> A'^-1 p, q -> A q, R -> A R A^-1 is the same function in unconstrained HC."""
    net = chain(replicated=False)
    a = randn(4, 4, seed=21)
    inverse = torch.linalg.inv(a)
    rebased = run(
        a @ net.streams[0], net.h_pre @ inverse, net.h_post @ a.T, a @ net.h_res @ inverse
    )
    assert torch.allclose(rebased.branch_out, net.branch_out, atol=1e-9)
    written = ledger.writers(net.streams[0], net.branch_out, replicated=False)
    norm = written.norm(dim=-1)
    ones = torch.ones(4, dtype=torch.float64)
    before = ledger.contributions(
        net.h_pre, ledger.ledger(net.h_res, net.h_post, start=torch.eye(4).double())
    )
    after = ledger.contributions(
        rebased.h_pre, ledger.ledger(rebased.h_res, rebased.h_post, start=a), readout=ones @ inverse
    )
    assert torch.allclose(after, before, atol=1e-9)
    assert torch.allclose(
        ledger.cut_rank(after, norm, starts=4), ledger.cut_rank(before, norm, starts=4)
    )
    # What the weights themselves say about the streams is not invariant.
    assert not torch.allclose(metrics.share(rebased.h_pre), metrics.share(net.h_pre), rtol=0.1)


def test_wrong_shapes_are_worded() -> None:
    net = chain()
    with pytest.raises(ValueError, match="ledger: h_post: expected shape"):
        ledger.ledger(net.h_res, net.h_post[:-1])
    with pytest.raises(ValueError, match=r"ledger: start: expected shape \[4, S\]"):
        ledger.ledger(net.h_res, net.h_post, start=torch.ones(3, 1))
    with pytest.raises(ValueError, match="cut_rank: definition: expected 'singular_value'"):
        ledger.cut_rank(torch.ones(3, 3), definition="rank")  # type: ignore[arg-type]
