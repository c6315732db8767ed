"""What the GPT's sublayers are made of."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import nn

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
    """A norm of the model's kind over ``width`` channels; eps is 1e-5."""
    if config.norm == "rms":
        return nn.RMSNorm(width, eps=1e-5, **factory)
    if config.norm == "parameter_free":
        return nn.LayerNorm(width, elementwise_affine=False, **factory)
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


class Branch(nn.Module, ABC):
    """A sublayer: norm (unless the connection normalises), then a function of the tokens."""

    def __init__(self, config: GPTConfig, factory: dict[str, Any]) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.output_std = INIT_STD / math.sqrt(2 * config.n_layer) * config.output_std_factor
        self.norm: nn.Module = nn.Identity()
        if branch_norm(config.connection):
            self.norm = make_norm(config, config.width, factory)

    @abstractmethod
    def reset_parameters(
        self, *, gain: float | None = None, generator: torch.Generator | None = None
    ) -> None:
        """Set the initial weights. ``gain``: Xavier-normal instead of GPT-2's, see ``nn.Plan``."""


def xavier(fan_in: int, fan_out: int, gain: float) -> float:
    """Standard deviation of Xavier-normal weights."""
    return gain * math.sqrt(2.0 / (fan_in + fan_out))
