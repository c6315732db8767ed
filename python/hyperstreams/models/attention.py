"""Causal self-attention: grouped queries, learned or rotary positions, cached keys and values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..nn import branch_projects
from .config import GPTConfig
from .layers import INIT_STD, Branch, Linear, set_normal, xavier


class Attention(Branch):
    """``[B, T, C] -> [B, T, C]``; ``n_head`` heads share ``n_kv_head`` keys and values.

    Under a connection that projects itself (residual matrix) input and output are the vectors of
    all heads, ``[B, T, (n_head + 2 n_kv_head) head_width] -> [B, T, C]``.
    """

    def __init__(self, config: GPTConfig, factory: dict[str, Any]) -> None:
        super().__init__(config, factory)
        self.head_width = config.width // config.n_head
        kv_width = self.head_width * (config.n_kv_head or config.n_head)
        self.sizes = [config.width, kv_width, kv_width]
        self.rope_base = config.rope_base if config.position == "rope" else None
        self.qkv: nn.Module = nn.Identity()
        self.output: nn.Module = nn.Identity()
        if branch_projects(config.connection):
            self.qkv = Linear(config.width, sum(self.sizes), bias=config.bias, **factory)
            self.output = Linear(config.width, config.width, bias=config.bias, **factory)

    def reset_parameters(
        self, *, gain: float | None = None, generator: torch.Generator | None = None
    ) -> None:
        """Xavier: queries and keys with gain 1, values and outputs with ``gain``."""
        if not isinstance(self.qkv, nn.Linear) or not isinstance(self.output, nn.Linear):
            return
        if gain is None:
            set_normal(self.qkv, INIT_STD, generator=generator)
            set_normal(self.output, self.output_std, generator=generator)
            return
        width = self.sizes[0]
        gains = (1.0, 1.0, gain)
        parts = [(s, xavier(width, s, g)) for s, g in zip(self.sizes, gains, strict=True)]
        set_normal(self.qkv, parts, generator=generator)
        set_normal(self.output, xavier(width, width, gain), generator=generator)

    def forward(self, u: Tensor, cache: list[Tensor] | None = None) -> Tensor:
        """``u [B, T, C]``. ``cache``: keys and values of earlier tokens; it is extended."""
        parts = self.qkv(self.norm(u)).split(self.sizes, dim=-1)
        q, k, v = (part.unflatten(-1, (-1, self.head_width)).transpose(1, 2) for part in parts)
        if self.rope_base is not None:
            q, k = rotate(q, k, cache[0].shape[2] if cache else 0, self.rope_base)
        if cache is not None:
            if cache:
                k = torch.cat([cache[0], k], dim=2)
                v = torch.cat([cache[1], v], dim=2)
            cache[:] = [k, v]
        y = functional.scaled_dot_product_attention(
            q,
            k,
            v,
            # One new token sees everything before it; a whole window is causal.
            is_causal=cache is None or k.shape[2] == q.shape[2],
            dropout_p=self.dropout if self.training else 0.0,
            enable_gqa=self.sizes[1] != self.sizes[0],
        )
        y = self.output(y.transpose(1, 2).flatten(-2))
        return functional.dropout(y, self.dropout, self.training)


def rotate(q: Tensor, k: Tensor, start: int, base: float) -> tuple[Tensor, Tensor]:
    """Rotary positions (2104.09864) of queries and keys ``[B, H, T, D]`` that begin at ``start``.

    Channel i is paired with channel i + D/2 and turned by ``position * base^(-2 i / D)``.
    """
    half = q.shape[-1] // 2
    turns = base ** -(torch.arange(half, device=q.device, dtype=torch.float32) / half)
    positions = torch.arange(start, start + q.shape[2], device=q.device, dtype=torch.float32)
    angles = positions.unsqueeze(-1) * turns
    cos, sin = angles.cos(), angles.sin()

    def turn(x: Tensor) -> Tensor:
        a, b = x[..., :half], x[..., half:]
        return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)

    return turn(q), turn(k)
