"""Activations of a frozen model, streamed: states after blocks, shuffled in a buffer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

import torch
from torch import Tensor, nn

from ..live.hooks import hook_names, hooks
from .sites import Sites


class _SeenAll(Exception):
    """Ends a forward whose remaining part nobody needs."""


def hook_points(model: nn.Module, sites: Sites) -> list[str]:
    """The hook point at which the state after each of the ``sites``' blocks is seen.

    That is the input of the next block's attention site, or of the reduction after the last block.
    """
    known = hook_names(model)
    points = [f"blocks.{layer + 1}.attn_hc.hook_streams_in" for layer in sites.layers]
    n_layer = sum(name.endswith(".attn_hc.hook_streams_in") for name in known)
    if sites.layers[-1] >= n_layer or sites.layers[0] < 0:
        raise ValueError(
            f"hook_points: sites: expected layers from 0 to {n_layer - 1}, got {list(sites.layers)}"
        )
    if sites.layers[-1] == n_layer - 1:
        points[-1] = "reduce.hook_streams_in"
    return points


@torch.no_grad()
def read_states(model: nn.Module, tokens: Tensor, sites: Sites) -> Tensor:
    """States at ``sites`` without position 0: tokens ``[B, T]`` -> ``[B (T - 1), I, C]`` float32.

    Position 0 attends to itself alone and is often an outlier in norm; it is never trained on.
    """
    seen: dict[str, Tensor] = {}

    points = hook_points(model, sites)

    def keep(value: Tensor, name: str) -> None:
        seen[name] = value
        if name == points[-1]:
            raise _SeenAll

    # What comes after the last state is not computed.
    with suppress(_SeenAll), hooks(model, dict.fromkeys(points, keep)):
        model(tokens.to(next(model.parameters()).device))
    states = torch.stack([seen[point][:, 1:] for point in points], dim=2)
    if states.shape[-2] != sites.n_streams:
        raise ValueError(
            f"read_states: sites: expected n_streams={states.shape[-2]}, got {sites.n_streams}"
        )
    return states.flatten(0, 1).flatten(1, 2).float()


def shuffled(
    chunks: Iterable[Tensor],
    *,
    batch_size: int,
    buffer_batches: int = 64,
    generator: torch.Generator,
) -> Iterator[Tensor]:
    """Batches whose tokens come from many chunks, without holding more than a buffer of them.

    Chunks ``[N, I, d]`` are collected until ``buffer_batches * batch_size`` tokens are there,
    mixed, and half is handed out; what stays is mixed with what comes next. Every token comes out
    once, but for fewer than ``batch_size`` at the end.
    """
    pool: list[Tensor] = []
    held = 0
    for chunk in chunks:
        pool.append(chunk)
        held += chunk.shape[0]
        if held >= buffer_batches * batch_size:
            mixed = _mix(pool, generator)
            out = max(held // 2 // batch_size, 1) * batch_size
            yield from mixed[:out].split(batch_size)
            pool, held = [mixed[out:].clone()], held - out
    if pool:
        mixed = _mix(pool, generator)
        yield from mixed[: held // batch_size * batch_size].split(batch_size)


def _mix(pool: list[Tensor], generator: torch.Generator) -> Tensor:
    tokens = torch.cat(pool)
    pool.clear()
    return tokens[torch.randperm(tokens.shape[0], generator=generator).to(tokens.device)]


def activation_batches(
    model: nn.Module,
    windows: Iterable[Tensor],
    sites: Sites,
    *,
    batch_size: int,
    buffer_batches: int = 64,
    generator: torch.Generator,
    transform: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[Tensor]:
    """Shuffled batches ``[batch_size, I, C]`` of the states that ``model`` has on ``windows``.

    windows : batches of token windows ``[B, T]``. model : in evaluation mode. transform : applied
        to every window's states, for the controls. The order depends on ``generator`` alone.
    """
    chunks: Iterable[Tensor] = (read_states(model, tokens, sites) for tokens in windows)
    if transform is not None:
        chunks = map(transform, chunks)
    return shuffled(
        chunks, batch_size=batch_size, buffer_batches=buffer_batches, generator=generator
    )
