"""The sublayers of the GPT model: what stands in a connection's branch."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .. import init
from ..nn import branch_norm
from .config import GPTConfig

INIT_STD = 0.02


class Linear(nn.Linear):
    """``nn.Linear`` without initial values: :class:`Branch` sets them from the generator."""

    def reset_parameters(self) -> None:
        """Nothing: PyTorch's own would draw from the global generator."""


class Embedding(nn.Embedding):
    """``nn.Embedding`` without initial values: :class:`GPT` sets them from its generator."""

    def reset_parameters(self) -> None:
        """Nothing: PyTorch's own would draw from the global generator."""


def make_norm(config: GPTConfig, width: int, factory: dict[str, Any]) -> nn.Module:
    """A norm of the model's kind over ``width`` channels."""
    return nn.LayerNorm(width, bias=config.bias, **factory)


def set_normal(
    module: nn.Linear | nn.Embedding,
    std: float | list[tuple[int, float]],
    *,
    generator: torch.Generator | None,
) -> None:
    """Normal weights, zero bias. ``std``: of all, or ``(rows, std)`` of consecutive rows."""
    columns = module.weight.shape[1]
    parts = std if isinstance(std, list) else [(module.weight.shape[0], std)]
    values = [init.normal((rows, columns), s, generator=generator) for rows, s in parts]
    module.weight.copy_(torch.cat(values))
    if isinstance(module, nn.Linear) and module.bias is not None:
        module.bias.zero_()


class Branch(nn.Module):
    """A sublayer ``[B, T, C] -> [B, T, C]``: norm (unless the connection normalises), function."""

    def __init__(self, config: GPTConfig, factory: dict[str, Any]) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.output_std = INIT_STD / math.sqrt(2 * config.n_layer) * config.output_std_factor
        self.norm: nn.Module = nn.Identity()
        if branch_norm(config.connection):
            self.norm = make_norm(config, config.width, factory)

    def reset_parameters(
        self, *, gain: float | None = None, generator: torch.Generator | None = None
    ) -> None:
        """Set the initial weights. ``gain``: Xavier-normal instead of GPT-2's, see ``nn.Plan``."""
        raise NotImplementedError


def xavier(fan_in: int, fan_out: int, gain: float) -> float:
    """Standard deviation of Xavier-normal weights."""
    return gain * math.sqrt(2.0 / (fan_in + fan_out))


class Attention(Branch):
    """Causal self-attention."""

    def __init__(self, config: GPTConfig, factory: dict[str, Any]) -> None:
        super().__init__(config, factory)
        self.n_head = config.n_head
        self.qkv = Linear(config.width, 3 * config.width, bias=config.bias, **factory)
        self.output = Linear(config.width, config.width, bias=config.bias, **factory)

    def reset_parameters(
        self, *, gain: float | None = None, generator: torch.Generator | None = None
    ) -> None:
        """Xavier: queries and keys with gain 1, values and outputs with ``gain``."""
        if gain is None:
            set_normal(self.qkv, INIT_STD, generator=generator)
            set_normal(self.output, self.output_std, generator=generator)
            return
        width = self.output.weight.shape[0]
        parts = [(width, xavier(width, width, g)) for g in (1.0, 1.0, gain)]
        set_normal(self.qkv, parts, generator=generator)
        set_normal(self.output, xavier(width, width, gain), generator=generator)

    def forward(self, u: Tensor, cache: list[Tensor] | None = None) -> Tensor:
        """``u [B, T, C]``. ``cache``: keys and values of earlier tokens; it is extended."""
        batch, length, width = u.shape
        qkv = self.qkv(self.norm(u)).view(batch, length, 3, self.n_head, width // self.n_head)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if cache is not None:
            if cache:
                k = torch.cat([cache[0], k], dim=2)
                v = torch.cat([cache[1], v], dim=2)
            cache[:] = [k, v]
        dropout = self.dropout if self.training else 0.0
        # One new token sees everything before it; a whole window is causal.
        causal = cache is None or k.shape[2] == length
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=causal, dropout_p=dropout)
        y = self.output(y.transpose(1, 2).reshape(batch, length, width))
        return functional.dropout(y, self.dropout, self.training)


class MLP(Branch):
    """A two-layer perceptron with GELU."""

    def __init__(self, config: GPTConfig, factory: dict[str, Any]) -> None:
        super().__init__(config, factory)
        self.hidden = Linear(config.width, 4 * config.width, bias=config.bias, **factory)
        self.output = Linear(4 * config.width, config.width, bias=config.bias, **factory)

    def reset_parameters(
        self, *, gain: float | None = None, generator: torch.Generator | None = None
    ) -> None:
        """Xavier: both layers with ``gain``."""
        hidden, width = self.hidden.weight.shape
        std = None if gain is None else xavier(width, hidden, gain)
        set_normal(self.hidden, INIT_STD if std is None else std, generator=generator)
        set_normal(self.output, self.output_std if std is None else std, generator=generator)

    def forward(self, u: Tensor) -> Tensor:
        """``[..., C] -> [..., C]``."""
        y = self.output(functional.gelu(self.hidden(self.norm(u))))
        return functional.dropout(y, self.dropout, self.training)
