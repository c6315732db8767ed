"""Validation loss on fixed windows, by the released protocol, or over the whole split."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .data import TokenData
from .errors import RunError, require


def autocast_context(device: torch.device, autocast: str) -> AbstractContextManager[Any]:
    """Autocast as the config names it: ``"none"`` or a dtype."""
    if autocast == "none":
        return nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, autocast))


@torch.no_grad()
def evaluate(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, autocast: str = "none"
) -> float:
    """Mean loss in nats per token over ``(tokens, targets)`` batches, in evaluation mode."""
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    total, count = torch.zeros((), dtype=torch.float64, device=device), 0
    with autocast_context(device, autocast):
        for tokens, targets in batches:
            loss = model(tokens.to(device), targets.to(device))[1]
            total += loss.double() * targets.numel()
            count += targets.numel()
    model.train(training)
    return total.item() / count


@torch.no_grad()
def evaluate_all(
    model: nn.Module, data: TokenData, *, stride: int, batch_size: int = 16, autocast: str = "none"
) -> float:
    """Mean loss in nats per token over every validation token but the first.

    Windows of ``block_size`` advance by ``stride`` tokens and each token is scored once, by the
    first window that holds it: with ``stride < block_size`` all but the first window's tokens
    have at least ``block_size - stride`` tokens of context.
    """
    size = data.block_size
    if not 1 <= stride <= size:
        raise RunError(f"stride: expected 1..block_size = {size}, got {stride}")
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    last = data.val.numel() - 1 - size  # the offset of the window that ends with the split
    starts = [*range(0, last, stride), last]
    total, scored = 0.0, 0
    for first in range(0, len(starts), batch_size):
        offsets = starts[first : first + batch_size]
        tokens, targets = data.val_windows(offsets)
        with autocast_context(device, autocast):
            logits = model(tokens.to(device), targets.to(device))[0]
        losses = F.cross_entropy(
            logits.float().transpose(1, 2), targets.to(device), reduction="none"
        )
        for row, offset in zip(losses.double(), offsets, strict=True):
            total += row[scored - offset :].sum().item()
            scored = offset + size
    model.train(training)
    return total / scored


class ReleasedLoss(NamedTuple):
    """Mean loss in nats per token, and its standard error over the batches drawn."""

    loss: float
    standard_error: float


@torch.no_grad()
def evaluate_released(
    model: nn.Module,
    data: TokenData,
    *,
    batches: int = 200,
    batch_size: int = 16,
    seed: int = 1337,
    autocast: str = "none",
) -> ReleasedLoss:
    """The evaluation of the code released with arXiv 2606.03483: windows drawn at random.

    ``batches`` batches of ``batch_size`` windows of ``block_size`` tokens (published: 200 of 16 x
    1024) begin at ``default_rng(seed).integers(0, N - block_size - 1)``, as there, so that the
    windows are the released ones when ids and sizes are. They overlap, miss part of the text and
    score the first tokens of a window with little context: the mean differs from
    :func:`evaluate_all`, by chance (``standard_error``) and by context. During training the
    released code draws new windows at each evaluation; here the seed settles them.
    """
    numpy = require("numpy", extra="train", purpose="the released evaluation protocol")
    if batches < 1 or batch_size < 1:
        raise RunError(f"batches, batch_size: expected at least 1, got {batches}, {batch_size}")
    high = data.val.numel() - data.block_size - 1
    if high < 1:
        raise RunError(
            f"dataset {data.meta.get('source')}: the {data.val_name} split has {data.val.numel()} "
            f"tokens, the released protocol needs block_size + 2 = {data.block_size + 2}"
        )
    rng = numpy.random.default_rng(seed)
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    losses = torch.empty(batches, dtype=torch.float64)
    for index in range(batches):
        offsets = rng.integers(0, high, size=batch_size).tolist()
        tokens, targets = data.val_windows(offsets)
        with autocast_context(device, autocast):
            losses[index] = model(tokens.to(device), targets.to(device))[1].double()
    model.train(training)
    error = losses.std().item() / batches**0.5 if batches > 1 else float("nan")
    return ReleasedLoss(losses.mean().item(), error)
