"""What a set of runs shows: every sentence and every outcome is computed from the captures.

A statement about one checkpoint is ``shown`` or ``not shown`` by a rule that is part of its text. A
statement that one *model* beats another needs seeds: with one seed each it is ``inconclusive``,
whatever the numbers are.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..diagnostics import Capture, metrics, quantity
from .table import effective_sites

Outcome = Literal["shown", "not shown", "inconclusive"]

NEAR_IDENTITY = 0.05
"""Late mixing, in parts of full averaging, up to which mixers are near the identity: everywhere."""
SIGNIFICANCE = 0.05
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Two-sided 95 % quantiles of Student's t for 1 to 10 degrees of freedom."""


@dataclass(frozen=True)
class Verdict:
    """One claim, what came out, and the numbers it came from."""

    about: str
    claim: str
    outcome: Outcome
    evidence: str


def paired_change(
    statistic: Callable[[Capture], Tensor], trained: Capture, initial: Capture
) -> tuple[float, float]:
    """Mean and standard error over batches of ``statistic(trained) - statistic(initial)``."""
    differences = torch.stack(
        [
            statistic(trained.batch(k)) - statistic(initial.batch(k))
            for k in range(min(trained.batches, initial.batches))
        ]
    )
    if differences.numel() < 2:
        return differences.mean().item(), float("inf")
    return differences.mean().item(), (differences.std() / differences.numel() ** 0.5).item()


def late_sites(capture: Capture) -> list[int]:
    """Sites after the first block; all where there is one block only."""
    every = range(len(capture.site_names))
    return [k for k in every if not capture.site_names[k].startswith("L0")] or list(every)


def late_mixing(capture: Capture) -> Tensor:
    """Off-diagonal mass / (1 - 1/n) of the sites after the first block: 0 identity, 1 average."""
    mass = quantity("off_diagonal_mass", capture)[torch.tensor(late_sites(capture))]
    return mass / (1 - 1 / capture.n_streams)


def mixing(about: str, trained: Capture, initial: Capture, *, replicated: bool) -> Verdict:
    """K1: mixers after the first block are near the identity."""
    final, first = late_mixing(trained), late_mixing(initial)
    change, error = paired_change(lambda c: late_mixing(c).mean(), trained, initial)
    worst = trained.site_names[late_sites(trained)[int(final.argmax())]]

    def near(mass: Tensor) -> bool:
        return mass.max().item() <= NEAR_IDENTITY

    early = effective_sites(quantity("off_diagonal_mass", trained), replicated=replicated)
    evidence = (
        f"Mixing there, as a fraction of full averaging, {final.mean():.4f} on average "
        f"and {final.max():.4f} at most ({worst}); {first.mean():.4f} at initialisation "
        f"(change {change:+.4f} ± {error:.4f}). "
        f"Largest off-diagonal mass at any site {early.max():.4f}. "
        f"Near means at most {NEAR_IDENTITY:g} everywhere."
    )
    if near(first):
        evidence += " They began there: this does not show that training leads to the identity."
    return Verdict(
        about,
        "Mixers after the first block are near the identity",
        "shown" if near(final) else "not shown",
        evidence,
    )


def usage(
    about: str, side: Literal["read", "write"], trained: Capture, initial: Capture
) -> Verdict:
    """K2: one persistent stream dominates, beyond initialisation and beyond chance."""
    name, share = f"{side}_effective_streams", f"{side}_share"
    change, error = paired_change(lambda c: quantity(name, c).mean(), trained, initial)
    final, first = (quantity(name, c).mean().item() for c in (trained, initial))
    sites, n = len(trained.site_names), trained.n_streams
    same = [metrics.persistence(quantity(share, c)).item() for c in (trained, initial)]
    null = metrics.persistence_null(n, sites)
    chance = null[round(same[0] * sites) :].sum().item()
    expected = (null * torch.arange(sites + 1)).sum().item() / sites
    concentrated = change < -2 * error
    persistent = chance < SIGNIFICANCE
    return Verdict(
        about,
        f"One stream leads the {side}s at more sites than chance, and {side}s are more "
        f"concentrated than at initialisation",
        "shown" if concentrated and persistent else "not shown",
        f"Effective streams {final:.2f} of {n} on average over sites, {first:.2f} at "
        f"initialisation (change {change:+.2f} ± {error:.2f}). The most frequent leader leads "
        f"{same[0]:.0%} of the sites, {same[1]:.0%} at initialisation; leaders drawn at random: "
        f"{expected:.0%} on average, this much or more with probability {chance:.2f}. "
        f"Shown means: fewer effective streams by over two standard errors, and that probability "
        f"below {SIGNIFICANCE}.",
    )


def _ranks(values: Tensor) -> Tensor:
    """Ranks along the last axis, ties averaged, centred."""
    larger = (values.unsqueeze(-1) > values.unsqueeze(-2)).double().sum(-1)
    equal = (values.unsqueeze(-1) == values.unsqueeze(-2)).double().sum(-1)
    ranks = larger + (equal - 1) / 2
    return ranks - ranks.mean(dim=-1, keepdim=True)


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Rank correlation over the last axis; 0 where one side is constant."""
    x, y = _ranks(a), _ranks(b)
    scale = (x.square().sum(-1) * y.square().sum(-1)).sqrt()
    return torch.where(scale == 0, 0.0, (x * y).sum(-1) / torch.where(scale == 0, 1.0, scale))


def norm_follows_writes(about: str, trained: Capture) -> Verdict:
    """K3: streams that were written to more have the larger norm."""
    sites, n = len(trained.site_names), trained.n_streams
    written = quantity("write_share", trained).cumsum(dim=0)
    norm = quantity("norm_share", trained)[1:]
    observed = spearman(written, norm).mean().item()
    # Exact null: the same curves with the streams' names exchanged in one of the two.
    relabelled = [
        spearman(written[:, list(order)], norm).mean().item()
        for order in itertools.islice(itertools.permutations(range(n)), 5040)
    ]
    chance = sum(value >= observed - 1e-9 for value in relabelled) / len(relabelled)
    return Verdict(
        about,
        "Streams that have been written to more have the larger norm",
        "shown" if chance < SIGNIFICANCE else "not shown",
        f"Rank correlation of cumulative write share and norm share {observed:+.2f} on average "
        f"over {sites} states; as large or larger in {chance:.0%} of the relabellings of streams "
        f"(shown: below {SIGNIFICANCE:.0%}).",
    )


def straightest(about: str, trained: Capture) -> Verdict:
    """K4: the stream that is written to most has the lowest token curvature."""
    leader = int(quantity("write_share", trained).mean(dim=0).argmax())

    def excess(capture: Capture) -> Tensor:
        curvature = quantity("curvature", capture)[1:]
        others = [s for s in range(capture.n_streams) if s != leader]
        return curvature[:, leader] - curvature[:, others].mean(dim=1)

    curvature = quantity("curvature", trained)[1:]
    lowest = int((curvature.argmin(dim=1) == leader).sum())
    per_batch = torch.stack([excess(trained.batch(k)).mean() for k in range(trained.batches)])
    error = (per_batch.std() / len(per_batch) ** 0.5).item() if len(per_batch) > 1 else float("inf")
    mean = excess(trained).mean().item()
    states = curvature.shape[0]
    shown = mean < -2 * error and lowest > states / 2
    return Verdict(
        about,
        "The stream written to most has the lowest token curvature",
        "shown" if shown else "not shown",
        f"Stream s{leader}: {mean:+.2f} ± {error:.2f} degrees against the mean of the others, "
        f"lowest at {lowest} of {states} states. Shown means: lower by over two standard "
        f"errors and lowest at most states. Streams hold the same vectors with other weights: this "
        f"is not evidence independent of the write shares.",
    )


def compare_seeds(
    what: str,
    first: tuple[str, Mapping[int, float]],
    second: tuple[str, Mapping[int, float]],
    *,
    form: str = ".4f",
) -> Verdict:
    """Whether ``first`` is below ``second`` in ``what``, paired by seed.

    Fewer than two common seeds: inconclusive. Otherwise the 95 % interval of the mean paired
    difference (Student's t) must exclude 0.
    """
    (name_a, a), (name_b, b) = first, second
    about = f"{name_a} vs {name_b}"
    seeds = sorted(a.keys() & b.keys())
    claim = f"{name_a} has a lower {what} than {name_b}"
    if len(seeds) < 2:
        if not seeds:
            return Verdict(about, claim, "inconclusive", "No seed in common.")
        value_a, value_b = a[seeds[0]], b[seeds[0]]
        return Verdict(
            about,
            claim,
            "inconclusive",
            f"{value_a:{form}} against {value_b:{form}}, difference "
            f"{value_a - value_b:+{form}}; one seed each.",
        )
    differences = torch.tensor([a[seed] - b[seed] for seed in seeds], dtype=torch.float64)
    mean = differences.mean().item()
    quantile = STUDENT[min(len(seeds) - 1, len(STUDENT)) - 1]
    half = quantile * (differences.std() / len(seeds) ** 0.5).item()
    outcome: Outcome = "inconclusive"
    if mean + half < 0:
        outcome = "shown"
    elif mean - half > 0:
        outcome = "not shown"
    return Verdict(
        about,
        claim,
        outcome,
        f"Mean paired difference {mean:+{form}} ± {half:{form}} (95 % interval over {len(seeds)} "
        f"seeds).",
    )


def capture_verdicts(
    about: str, trained: Capture, initial: Capture, *, replicated: bool
) -> Sequence[Verdict]:
    """Everything that is said about one checkpoint."""
    return [
        mixing(about, trained, initial, replicated=replicated),
        usage(about, "read", trained, initial),
        usage(about, "write", trained, initial),
        norm_follows_writes(about, trained),
        straightest(about, trained),
    ]
