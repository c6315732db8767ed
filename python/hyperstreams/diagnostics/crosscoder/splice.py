"""What the model loses when its streams are replaced by a crosscoder's reconstruction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..live.hooks import hooks
from .model import Crosscoder
from .sites import Sites
from .source import hook_points, read_states


def reconstruct(coders: Mapping[str, tuple[Crosscoder, list[int]]], a: Tensor) -> Tensor:
    """``a [N, I, d]`` rebuilt by coders that each have some of the sites."""
    rebuilt = a.clone()
    for coder, group in coders.values():
        rebuilt[:, group] = coder(a[:, group])
    return rebuilt


@torch.no_grad()
def splice_losses(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    sites: Sites,
    rebuild: Callable[[Tensor], Tensor],
    mean: Tensor,
) -> dict[str, float]:
    """Loss in nats per token with clean streams, rebuilt ones, and their mean instead.

    batches : ``(tokens, targets)``. rebuild : ``[N, I, d] -> [N, I, d]``, made from the clean
        states of all sites together and put in at each. mean : ``[I, d]``, the baseline. Position 0
        is left as it is; coefficients are computed from the states put in (live routing).

    ``recovered = (mean - spliced) / (mean - clean)``: 1 for a perfect reconstruction, 0 for one
    that is worth no more than the mean; it can be negative. nan if the mean does not hurt.
    """
    device = next(model.parameters()).device
    points = hook_points(model, sites)
    shape = (len(sites.layers), sites.n_streams, -1)
    sums = {"clean": 0.0, "spliced": 0.0, "mean": 0.0}
    tokens_seen = 0

    def put_in(states: Tensor, tokens: Tensor, targets: Tensor) -> float:
        grouped = states.unflatten(1, shape[:2]).unflatten(0, (tokens.shape[0], -1))

        def replace(value: Tensor, name: str) -> Tensor:
            new = value.clone()
            new[:, 1:] = grouped[:, :, points.index(name)].to(value.dtype)
            return new

        with hooks(model, dict.fromkeys(points, replace)):
            return float(model(tokens, targets)[1])

    for inputs, labels in batches:
        tokens, targets = inputs.to(device), labels.to(device)
        states = read_states(model, tokens, sites)
        sums["clean"] += float(model(tokens, targets)[1]) * tokens.numel()
        sums["spliced"] += put_in(rebuild(states), tokens, targets) * tokens.numel()
        sums["mean"] += put_in(mean.expand_as(states), tokens, targets) * tokens.numel()
        tokens_seen += tokens.numel()
    if tokens_seen == 0:
        raise ValueError("splice_losses: batches: expected at least one batch, got none")
    result: dict[str, Any] = {f"{name}_loss": total / tokens_seen for name, total in sums.items()}
    harm = result["mean_loss"] - result["clean_loss"]
    lost = result["mean_loss"] - result["spliced_loss"]
    result["recovered"] = lost / harm if harm else float("nan")
    return result
