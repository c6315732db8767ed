"""Validation loss on fixed windows, or over the whole validation split."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .data import TokenData
from .errors import RunError


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
