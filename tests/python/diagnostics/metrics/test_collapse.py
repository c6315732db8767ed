"""Each kind of collapse is seen by its own measures and not by the others'; initial values."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from hyperstreams.diagnostics import (
    composite,
    initial_coefficients,
    ledger,
    metrics,
    trace,
)
from hyperstreams.diagnostics.metrics.collapse import (
    QUESTIONS,
    Collapse,
    collapse_report,
    collapse_rows,
    is_replicated,
)
from hyperstreams.models import GPT, GPTConfig
from hyperstreams.ops import mix_write, read
from torch import Tensor

K, B, T, N, C = 8, 2, 10, 4, 64


class Planted(NamedTuple):
    streams: Tensor
    h_pre: Tensor
    h_post: Tensor
    h_res: Tensor
    branch_out: Tensor


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def planted(h_pre: Tensor, h_post: Tensor, h_res: Tensor, x: Tensor | None = None) -> Planted:
    """Independent branch outputs (what the branch computes does not matter to any measure)."""
    x = randn(B, T, N, C) if x is None else x
    h_pre, h_post = (h.expand(K, B, T, N).contiguous() for h in (h_pre, h_post))
    h_res = h_res.expand(K, B, T, N, N).contiguous()
    states, outputs = [x.contiguous()], []
    for k in range(K):
        y = randn(B, T, C, seed=k + 5) + 0 * read(states[-1], h_pre[k])
        states.append(mix_write(states[-1], y, h_res[k], h_post[k]))
        outputs.append(y)
    return Planted(torch.stack(states), h_pre, h_post, h_res, torch.stack(outputs))


EYE = torch.eye(N, dtype=torch.float64)
UNIFORM = torch.full((N,), 1 / N, dtype=torch.float64)
OWN = EYE[torch.arange(K) % N].reshape(K, 1, 1, N)
"""Site k reads and writes stream k mod N: balanced use of separate streams."""


def value(report: dict[str, Collapse], kind: str, measure: str) -> float:
    return report[kind].measures[measure].value


def test_healthy_streams() -> None:
    report = collapse_report(planted(OWN, OWN, EYE))
    assert value(report, "usage", "read_persistence") == pytest.approx(1 / N)
    assert value(report, "averaging", "contraction") == pytest.approx(1)
    assert value(report, "redundancy", "effective_rank") > 3.5
    assert abs(value(report, "redundancy", "cosine")) < 0.1
    assert value(report, "causal", "cut_rank") > 2.5


def test_usage_collapse_is_not_averaging_or_redundancy() -> None:
    report = collapse_report(planted(EYE[1], EYE[1], EYE))
    for side in ("read", "write"):
        assert value(report, "usage", f"{side}_effective_streams") == pytest.approx(1)
        assert value(report, "usage", f"{side}_persistence") == 1
    assert value(report, "averaging", "contraction") == pytest.approx(1)
    assert value(report, "redundancy", "effective_rank") > 3.5
    # Sites meet in one stream; only the readout sees the starts of the others.
    assert value(report, "causal", "cut_rank") < 2


def test_averaging_has_perfect_shares() -> None:
    report = collapse_report(planted(UNIFORM, UNIFORM, torch.full((N, N), 1 / N).double()))
    assert value(report, "usage", "read_effective_streams") == pytest.approx(N)
    assert value(report, "averaging", "contraction") == pytest.approx(0, abs=1e-12)
    assert value(report, "averaging", "dobrushin") == pytest.approx(0, abs=1e-12)
    assert value(report, "causal", "cut_rank") == pytest.approx(1)


def test_redundancy_has_perfect_shares_and_no_averaging() -> None:
    copies = randn(B, T, 1, C).expand(B, T, N, C)
    report = collapse_report(planted(UNIFORM, UNIFORM, EYE, copies))
    assert value(report, "usage", "write_effective_streams") == pytest.approx(N)
    assert value(report, "averaging", "contraction") == pytest.approx(1)
    assert value(report, "redundancy", "cosine") == pytest.approx(1)
    assert value(report, "redundancy", "effective_rank") == pytest.approx(1, abs=1e-6)
    assert value(report, "causal", "cut_rank") == pytest.approx(1)


def test_causal_collapse_is_hidden_from_shares_and_cosines() -> None:
    """Every stream is written alike and read alike; different starts that cancel in every read."""
    x = randn(B, T, N, C)
    x = 20 * (x - x.mean(dim=-2, keepdim=True))
    report = collapse_report(planted(UNIFORM, UNIFORM, EYE, x))
    assert value(report, "usage", "read_effective_streams") == pytest.approx(N)
    assert value(report, "redundancy", "effective_rank") > 2.8
    assert value(report, "causal", "cut_rank") == pytest.approx(1)


def test_routing_is_told_from_collapse_by_the_token_level() -> None:
    leader = torch.randint(0, N, (K, B, T), generator=torch.Generator().manual_seed(0))
    report = collapse_report(planted(EYE[leader], EYE[leader], EYE))
    assert value(report, "usage", "read_effective_streams") > 3
    assert value(report, "usage", "read_effective_streams_token") == pytest.approx(1)


def test_permuting_streams_changes_nothing() -> None:
    net = planted(
        randn(K, 1, 1, N, seed=1).sigmoid(),
        randn(K, 1, 1, N, seed=2).sigmoid(),
        randn(K, 1, 1, N, N, seed=3).softmax(-2),
    )
    order = torch.tensor([2, 3, 1, 0])
    moved = Planted(
        net.streams[..., order, :],
        net.h_pre[..., order],
        net.h_post[..., order],
        net.h_res[..., order, :][..., order],
        net.branch_out,
    )
    before, after = (collapse_rows(collapse_report(t)) for t in (net, moved))
    for a, b in zip(before, after, strict=True):
        assert b["value"] == pytest.approx(a["value"]), a["measure"]


def test_entries_stand_side_by_side() -> None:
    net, start = planted(EYE[1], EYE[1], EYE), planted(OWN, OWN, EYE)
    report = collapse_report(
        net,
        initial=start,
        ablation_kl=torch.tensor([[0.2, 0.4]]),
        initial_ablation_kl=torch.tensor(0.1),
    )
    assert list(report) == list(QUESTIONS) == ["usage", "averaging", "redundancy", "causal"]
    rows = collapse_rows(report)
    assert all(row["initial"] is not None and row["definition"] for row in rows)
    assert all((row["null"] is None) == (row["null_meaning"] == "") for row in rows)
    kl = report["causal"].measures["ablation_kl"]
    assert (kl.value, kl.initial, kl.null) == (
        pytest.approx(0.3),
        pytest.approx(0.1),
        0.0,
    )
    usage = report["usage"].measures["read_persistence"]
    assert (usage.value, usage.initial) == (1.0, pytest.approx(1 / N))
    probability = metrics.persistence_null(N, K)
    mean = (probability * torch.arange(K + 1)).sum() / K
    assert usage.null == pytest.approx(float(mean))
    bare = collapse_report(net)
    assert "ablation_kl" not in bare["causal"].measures
    assert all(row["initial"] is None for row in collapse_rows(bare))


@pytest.mark.parametrize(
    "connection",
    ["mhc_lite", "mhc", "hc", "hc_static", "identity", "deepseek_v4", "lucidrains_mhc"],
)
def test_initial_coefficients_of_a_model_that_has_moved(connection: str) -> None:
    sizes = {"n_layer": 2, "n_head": 2, "width": 16, "block_size": 12, "vocab_size": 32}
    config = GPTConfig(connection=connection, **sizes)  # type: ignore[arg-type]
    model = GPT(config, generator=torch.Generator().manual_seed(3))
    tokens = torch.randint(0, 32, (2, 12), generator=torch.Generator().manual_seed(0))
    fresh = trace(model, tokens)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
            parameter.add_(0.5 * noise)
    found = initial_coefficients(model)
    moved = trace(model, tokens)
    for name in ("h_pre", "h_post", "h_res"):
        expected = getattr(fresh, name).mean(dim=(1, 2))
        # DeepSeek-V4 starts with a small dynamic part.
        assert torch.allclose(getattr(found, name), expected, atol=0.05), name
    assert not torch.allclose(moved.h_pre.mean(dim=(1, 2)), found.h_pre, atol=0.1)
    # What else has an initial value follows from these.
    mean = composite.composites(found.h_res)
    assert mean.shape == (5, 4, 4)
    c = ledger.contributions(found.h_pre, ledger.ledger(found.h_res, found.h_post))
    assert torch.isfinite(ledger.cut_rank(c)).all()


def test_initial_share_is_the_published_one() -> None:
    config = GPTConfig(n_layer=2, n_head=2, width=16, block_size=12, vocab_size=32)
    model = GPT(config, generator=torch.Generator().manual_seed(3))
    found = initial_coefficients(model)
    assert metrics.share(found.h_pre).amax(-1).tolist() == pytest.approx([0.475] * 4, abs=1e-3)
    kept = composite.contraction(composite.composites(found.h_res)[-1]).item()
    assert kept == pytest.approx(composite.uniform_contraction(0.00599, 4, sites=4), abs=1e-3)


def test_a_real_model_gets_a_report() -> None:
    config = GPTConfig(n_layer=2, n_head=2, width=16, block_size=12, vocab_size=32)
    model = GPT(config, generator=torch.Generator().manual_seed(3))
    tokens = torch.randint(0, 32, (2, 12), generator=torch.Generator().manual_seed(0))
    t = trace(model, tokens)
    report = collapse_report(t, initial=t)
    for row in collapse_rows(report):
        assert row["value"] == row["initial"]
    assert is_replicated(t.streams[0])
    assert not is_replicated(t.streams[1])
    assert report["redundancy"].measures["cosine"].value > 0.5
    assert 1 < report["causal"].measures["cut_rank"].value < 4
