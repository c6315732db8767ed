"""Verdicts on planted captures, and the refusal to conclude from one seed."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from hyperstreams import ops
from hyperstreams.diagnostics import Capture
from hyperstreams.reproduce.verdicts import (
    capture_verdicts,
    compare_seeds,
    mixing,
    norm_follows_writes,
    spearman,
    straightest,
    usage,
)
from torch import Tensor

N, SITES, WIDTH, TOKENS, BATCHES = 4, 8, 12, 40, 3
NAMES = tuple(f"L{k // 2}{'am'[k % 2]}" for k in range(SITES))
EVEN = torch.full((SITES, N), 0.25)


@dataclass
class Plant:
    """What the sites of a planted capture do."""

    leaders: list[int] = field(default_factory=lambda: [0, 1, 2, 3, 0, 1, 2, 3])
    share: float = 0.475
    averaging: float = 0.006
    growth: Tensor = field(default_factory=lambda: torch.ones(N))
    smooth: int | None = None

    def shares(self) -> Tensor:
        rest = (1 - self.share) / (N - 1)
        pi = torch.full((SITES, N), rest)
        pi[torch.arange(SITES), self.leaders] = self.share
        return pi

    def capture(self) -> Capture:
        generator = torch.Generator().manual_seed(0)
        eye, mean = torch.eye(N), torch.full((N, N), 1 / N)
        h_res = (1 - self.averaging / 0.75) * eye + self.averaging / 0.75 * mean
        batches = []
        for _ in range(BATCHES):
            rows = []
            for site in range(SITES + 1):
                x = torch.randn(1, TOKENS, N, WIDTH, generator=generator)
                if self.smooth is not None:
                    x[:, :, self.smooth] = x[:, :, self.smooth].cumsum(dim=1)
                x = x / x.norm(dim=-1, keepdim=True) * (1 + site * self.growth).unsqueeze(-1)
                if site == SITES:
                    rows.append(ops.stream_stats(x))
                    continue
                noise = 1 + 0.01 * torch.rand(1, TOKENS, 1, generator=generator)
                h = self.shares()[site] * noise
                rows.append(ops.stream_stats(x, x.sum(dim=2), h_pre=h, h_post=2 * h, h_res=h_res))
            batches.append(torch.stack(rows))
        return Capture(torch.stack(batches), N, NAMES, torch.zeros(BATCHES))


def test_untrained_model_shows_nothing_of_collapse() -> None:
    same = Plant().capture()
    verdicts = capture_verdicts("planted", same, same, replicated=True)
    outcomes = {verdict.claim: verdict.outcome for verdict in verdicts}
    assert len(outcomes) == 5
    assert [v for k, v in outcomes.items() if "than at initialisation" in k] == [
        "not shown",
        "not shown",
    ]
    near = next(verdict for verdict in verdicts if "identity" in verdict.claim)
    assert near.outcome == "shown"
    assert "does not show that training leads" in near.evidence


@pytest.mark.parametrize("side", ["read", "write"])
def test_usage(side: str) -> None:
    initial = Plant().capture()
    collapsed = Plant(leaders=[2] * SITES, share=0.9).capture()
    verdict = usage("planted", side, collapsed, initial)  # type: ignore[arg-type]
    assert verdict.outcome == "shown"
    assert "100% of the sites, 25% at initialisation" in verdict.evidence
    # Concentrated at every site, but never on the same stream: routing, not one dominant stream.
    scattered = Plant(share=0.9).capture()
    assert usage("planted", side, scattered, initial).outcome == "not shown"  # type: ignore[arg-type]
    # One leader from the start: persistent, but training did not do it.
    fixed = Plant(leaders=[2] * SITES).capture()
    assert usage("planted", side, fixed, fixed).outcome == "not shown"  # type: ignore[arg-type]


def test_mixing() -> None:
    initial = Plant().capture()
    verdict = mixing("planted", Plant(averaging=0.4).capture(), initial, replicated=False)
    assert verdict.outcome == "not shown"
    assert f"{0.4 / 0.75:.4f} on average" in verdict.evidence
    assert "0.0080 at initialisation" in verdict.evidence
    far = mixing("planted", initial, Plant(averaging=0.7).capture(), replicated=False)
    assert far.outcome == "shown"
    assert "They began there" not in far.evidence


def test_norm_follows_writes() -> None:
    leaders = [3, 3, 3, 2, 2, 1, 3, 3]
    growing = torch.tensor([0.1, 0.5, 1.0, 3.0])
    follows = Plant(leaders=leaders, share=0.8, growth=growing).capture()
    assert norm_follows_writes("planted", follows).outcome == "shown"
    opposite = Plant(leaders=leaders, share=0.8, growth=growing.flip(0)).capture()
    assert norm_follows_writes("planted", opposite).outcome == "not shown"


def test_straightest() -> None:
    leaders = [1] * SITES
    assert (
        straightest("p", Plant(leaders=leaders, share=0.8, smooth=1).capture()).outcome == "shown"
    )
    other = Plant(leaders=leaders, share=0.8, smooth=2).capture()
    assert straightest("p", other).outcome == "not shown"


def test_one_seed_never_decides() -> None:
    verdict = compare_seeds("loss", ("a", {0: 1.0}), ("b", {0: 9.0}))
    assert verdict.outcome == "inconclusive"
    assert "one seed each" in verdict.evidence
    assert compare_seeds("loss", ("a", {0: 1.0}), ("b", {1: 9.0})).outcome == "inconclusive"


def test_identical_runs_are_inconclusive() -> None:
    losses = {0: 1.59, 1: 1.57, 2: 1.60}
    assert compare_seeds("loss", ("a", losses), ("b", losses)).outcome == "inconclusive"


def test_seeds_decide_only_beyond_their_spread() -> None:
    base = {0: 1.60, 1: 1.58, 2: 1.62}
    lower = {seed: value - 0.05 + 0.001 * seed for seed, value in base.items()}
    noisy = {0: 1.50, 1: 1.66, 2: 1.60}
    assert compare_seeds("loss", ("a", lower), ("b", base)).outcome == "shown"
    assert compare_seeds("loss", ("b", base), ("a", lower)).outcome == "not shown"
    assert compare_seeds("loss", ("c", noisy), ("b", base)).outcome == "inconclusive"
    # Student's t for two differences: 12.7 standard errors, not 2.
    pair = compare_seeds("loss", ("a", {0: 1.0, 1: 1.2}), ("b", {0: 1.3, 1: 1.6}))
    assert pair.outcome == "inconclusive"
    assert "± 0.6353" in pair.evidence


def test_spearman() -> None:
    a = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert spearman(a, a.exp()).item() == pytest.approx(1)
    assert spearman(a, -a).item() == pytest.approx(-1)
    assert spearman(a, torch.ones(4)).item() == 0
    # Ties share the mean rank: the value of the textbook formula with ranks 1.5, 1.5, 3, 4.
    assert spearman(a, torch.tensor([1.0, 1.0, 3.0, 4.0])).item() == pytest.approx(
        0.94868, abs=1e-5
    )
