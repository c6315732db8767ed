"""The statistics behind the claims K1 to K6, from captures of several seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ..diagnostics import Capture, metrics, quantity
from .claims import Claim, Measure
from .verdicts import late_mixing, spearman


@dataclass(frozen=True)
class SeedCaptures:
    """What the claims need of one trained run."""

    seed: int
    trained: Capture
    initial: Capture
    loss: float
    initial_loss: float


def _dominance(side: str, capture: Capture) -> float:
    return quantity(f"{side}_dominance", capture).mean().item()


def _persistence(side: str, capture: Capture) -> float:
    """Persistence minus its mean for leaders drawn at random at every site."""
    share = quantity(f"{side}_share", capture)
    null = metrics.persistence_null(capture.n_streams, len(share))
    chance = (null * torch.arange(len(null))).sum().item() / len(share)
    return metrics.persistence(share).item() - chance


def _correlation(capture: Capture) -> float:
    written = quantity("write_share", capture).cumsum(dim=0)
    return spearman(written, quantity("norm_share", capture)[1:]).mean().item()


def _curvature_excess(capture: Capture, leader: int) -> float:
    curvature = quantity("curvature", capture)[1:]
    others = [s for s in range(capture.n_streams) if s != leader]
    return (curvature[:, leader] - curvature[:, others].mean(dim=1)).mean().item()


def leader(capture: Capture) -> int:
    """The stream with the largest write share, averaged over sites."""
    return int(quantity("write_share", capture).mean(dim=0).argmax())


def claim_k1(seeds: Sequence[SeedCaptures]) -> Claim:
    """Mixing after the first block as a fraction of full averaging: level, change, largest site."""
    final, first = (
        [late_mixing(c) for c in captures]
        for captures in ([s.trained for s in seeds], [s.initial for s in seeds])
    )
    mean, mean_first = (tuple(m.mean().item() for m in masses) for masses in (final, first))
    fraction = "off-diagonal mass / (1 - 1/n) (D6)"
    return Claim(
        "K1",
        (
            Measure(
                "late mixing",
                f"{fraction}, mean over sites after the first block; the level, not the change",
                mean,
                mean_first,
                1.0,
                "full averaging",
            ),
            Measure(
                "late mixing gained",
                "the same minus initialisation",
                tuple(a - b for a, b in zip(mean, mean_first, strict=True)),
                None,
                0.0,
                "no change",
            ),
            Measure(
                "largest late site",
                f"{fraction}, largest of the sites after the first block",
                tuple(mass.max().item() for mass in final),
                tuple(mass.max().item() for mass in first),
                1.0,
                "full averaging",
            ),
        ),
    )


def claim_k2(seeds: Sequence[SeedCaptures]) -> Claim:
    """Dominance, what training added to it, and persistence beyond chance, reads and writes."""
    measures = []
    for side in ("read", "write"):
        final = tuple(_dominance(side, s.trained) for s in seeds)
        first = tuple(_dominance(side, s.initial) for s in seeds)
        gained = tuple(a - b for a, b in zip(final, first, strict=True))
        measures += [
            Measure(
                f"{side} dominance",
                "(n max share - 1) / (n - 1), mean over sites (D4)",
                final,
                first,
                0.0,
                "even use",
            ),
            Measure(
                f"{side} dominance gained",
                "the same minus initialisation",
                gained,
                (0.0,) * len(gained),
                0.0,
                "no change",
            ),
            Measure(
                f"{side} persistence above chance",
                "share of sites led by the most frequent leader (D5), minus its mean for random "
                "leaders",
                tuple(_persistence(side, s.trained) for s in seeds),
                tuple(_persistence(side, s.initial) for s in seeds),
                0.0,
                "random leaders",
            ),
        ]
    return Claim("K2", tuple(measures))


def claim_k3(seeds: Sequence[SeedCaptures]) -> Claim:
    """Rank correlation of what was written and the norm."""
    return Claim(
        "K3",
        (
            Measure(
                "rank correlation",
                "Spearman, cumulative write share and norm share of the streams, mean over states",
                tuple(_correlation(s.trained) for s in seeds),
                tuple(_correlation(s.initial) for s in seeds),
                0.0,
                "streams relabelled",
            ),
        ),
    )


def claim_k4(seeds: Sequence[SeedCaptures]) -> Claim:
    """Curvature of the dominant stream against the mean of the others."""
    return Claim(
        "K4",
        (
            Measure(
                "curvature excess",
                "curvature of the stream written to most minus the mean of the others, degrees, "
                "mean over states (D15, differences)",
                tuple(_curvature_excess(s.trained, leader(s.trained)) for s in seeds),
                tuple(_curvature_excess(s.initial, leader(s.trained)) for s in seeds),
                0.0,
                "no difference",
            ),
        ),
        "Streams hold the same vectors with other weights: not independent of K2.",
    )


def claim_k5(shares: Mapping[str, Sequence[float]], left_out: str = "") -> Claim:
    """Mean largest stream share of features: ``trained``, and the controls by seed.

    ``shares`` has the keys ``trained``, ``shuffled`` and ``random``, norm-balanced (3.5 of the
    crosscoder's controls); empty where no coder was trained or none has a live feature.
    ``left_out`` says which seeds are missing and why.
    """
    if not shares:
        return Claim("K5", (), left_out or "No crosscoder was trained for this report.")
    trained = tuple(shares["trained"])
    measures = [
        Measure(
            "largest stream share",
            "mean over features of the largest stream share of decoder norm, sites normalised "
            "(D26)",
            trained,
            tuple(shares["random"]),
        )
    ]
    for control, name in (("shuffled", "shuffled streams"), ("random", "random weights")):
        excess = tuple(a - b for a, b in zip(trained, shares[control], strict=True))
        definition = f"the same minus the control with {name}"
        measures.append(Measure(f"share above {name}", definition, excess, None, 0.0, "control"))
    return Claim("K5", tuple(measures), left_out)


def claim_k6(
    plain: Sequence[SeedCaptures],
    scaled: Sequence[SeedCaptures],
    constant: Sequence[SeedCaptures] = (),
) -> Claim:
    """Differences of Learned Stream Scaling and the plain model, paired by seed."""
    by_seed = {s.seed: s for s in plain}
    pairs = [(s, by_seed[s.seed]) for s in scaled if s.seed in by_seed]

    def difference(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Trained and initial differences of a mean over sites."""
        trained, initial = (
            tuple(
                (quantity(name, one).mean() - quantity(name, other).mean()).item()
                for one, other in captures
            )
            for captures in (
                [(a.trained, b.trained) for a, b in pairs],
                [(a.initial, b.initial) for a, b in pairs],
            )
        )
        return trained, initial

    if not pairs:
        return Claim("K6", (), "No seed with both models.")
    definition = "mean over sites, paired by seed"
    remark = ""
    controls = {s.seed: s.loss for s in constant}
    against = [s.loss - controls[s.seed] for s in scaled if s.seed in controls]
    if against:
        remark = (
            f"Control: LSS minus a constant scale without noise {statistics.mean(against):+.4f} "
            f"nats per byte, mean of {len(against)} seeds; near 0 would mean that the scale, not "
            "the broken symmetry, makes the difference."
        )
    return Claim(
        "K6",
        (
            Measure(
                "dominance, LSS minus plain",
                f"write dominance, {definition}",
                *difference("write_dominance"),
                null=0.0,
                null_words="no difference",
            ),
            Measure(
                "effective streams, LSS minus plain",
                f"exp(entropy) of the write share, {definition}",
                *difference("write_effective_streams"),
                null=0.0,
                null_words="no difference",
            ),
            Measure(
                "loss, LSS minus plain",
                "final validation loss, nats per byte, paired by seed",
                tuple(a.loss - b.loss for a, b in pairs),
                tuple(a.initial_loss - b.initial_loss for a, b in pairs),
                null=0.0,
                null_words="no difference",
            ),
        ),
        remark,
    )
