"""What a linear probe reads from each stream: current token, next token, position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Decodability(NamedTuple):
    """Held-out accuracies of :func:`decodability`.

    single, without ``[n]``: from each stream alone, and from all but it. together: from all.
    chance: of the most frequent training label. unique ``[n]``: ``together - without``, what only
    this stream has. shared ``[n]``: ``single - chance - unique``, what others have as well.
    """

    single: Tensor
    without: Tensor
    together: float
    chance: float
    unique: Tensor
    shared: Tensor


def _split(count: int, held_out: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    tested = round(count * held_out)
    if not 0 < tested < count:
        raise ValueError(
            "ridge_probe: held_out: expected a share that leaves tokens on both sides of "
            f"{count}, got {held_out}"
        )
    order = torch.randperm(count, generator=generator, device=generator.device).cpu()
    return order[tested:], order[:tested]


def ridge_probe(
    x: Tensor,
    labels: Tensor,
    *,
    generator: torch.Generator,
    ridge: float = 1e-3,
    held_out: float = 0.25,
) -> float:
    """Held-out accuracy of a ridge classifier (D30): ``[N, F]`` features, ``[N]`` labels.

    Features are centred and scaled per channel on training tokens, labels one-hot, penalty
    ``ridge`` times the mean eigenvalue of the covariance; held-out tokens are drawn at random. Uses
    as many columns as there are labels: probe a sample of a large vocabulary. 1 where labels are a
    linear function of x, such as the token from a copy of its embedding (C >= labels). Null:
    :func:`chance_accuracy`. A scaled or shifted x gives the same.
    """
    fit, test = _split(x.shape[0], held_out, generator)
    fit, test = fit.to(x.device), test.to(x.device)
    kinds, index = labels.unique(return_inverse=True)
    x = x.double() - x[fit].double().mean(dim=0)
    deviation = x[fit].square().mean(dim=0).sqrt()
    x = x / torch.where(deviation == 0, 1.0, deviation)
    onehot = torch.nn.functional.one_hot(index[fit], kinds.numel()).double()
    mean = onehot.mean(dim=0)
    covariance = x[fit].T @ x[fit]
    penalty = ridge * covariance.diagonal().mean().clamp_min(1e-300)
    eye = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    weights = torch.linalg.solve(covariance + penalty * eye, x[fit].T @ (onehot - mean))
    guess = (x[test] @ weights + mean).argmax(dim=-1)
    return float((guess == index[test]).double().mean())


def chance_accuracy(labels: Tensor, *, generator: torch.Generator, held_out: float = 0.25) -> float:
    """Held-out accuracy of always saying the most frequent training label, the null (D30)."""
    fit, test = _split(labels.shape[0], held_out, generator)
    common = labels.cpu()[fit].mode().values
    return float((labels.cpu()[test] == common).double().mean())


def decodability(
    streams: Tensor,
    labels: Tensor,
    *,
    generator: torch.Generator,
    ridge: float = 1e-3,
    held_out: float = 0.25,
) -> Decodability:
    """Probe each stream, all but each, and all (D30): ``[N, n, C]`` streams, ``[N]`` labels.

    The same held-out tokens everywhere. Copies: ``without`` equals ``together`` and nothing is
    unique. Permuting streams permutes the per-stream entries. Initial value: that of the initial
    model; null: ``chance``.
    """
    n = streams.shape[-2]
    state = generator.get_state()

    def accuracy(chosen: Sequence[int]) -> float:
        generator.set_state(state)
        return ridge_probe(
            streams[:, list(chosen)].flatten(1),
            labels,
            generator=generator,
            ridge=ridge,
            held_out=held_out,
        )

    generator.set_state(state)
    chance = chance_accuracy(labels, generator=generator, held_out=held_out)
    together = accuracy(range(n))
    single = torch.tensor([accuracy([s]) for s in range(n)])
    without = torch.tensor(
        [accuracy([r for r in range(n) if r != s]) if n > 1 else chance for s in range(n)]
    )
    unique = together - without
    return Decodability(single, without, together, chance, unique, single - chance - unique)
