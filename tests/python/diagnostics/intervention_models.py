"""Small models with connections far from their initial values, and a batch for them."""

from __future__ import annotations

from typing import Any

import hyperstreams as hs
import torch
from torch import Tensor


def model_of(connection: str = "mhc", *, noise: float = 0.3, **overrides: Any) -> hs.GPT:
    """Two blocks of width 24 in evaluation mode; ``noise`` is added to connection parameters."""
    sizes: dict[str, Any] = {"n_layer": 2, "n_head": 2, "width": 24, "block_size": 16}
    config = hs.GPTConfig(**{**sizes, "connection": connection, "expand": "noise", **overrides})
    generator = torch.Generator().manual_seed(3)
    model = hs.GPT(config, generator=generator)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "connection." in name:
                parameter.add_(noise * torch.randn(parameter.shape, generator=generator))
            elif name.endswith("embedding.weight"):
                parameter.mul_(20)  # logits far from uniform
    return model.eval()


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    rows = torch.randint(0, 256, (2, 17), generator=torch.Generator().manual_seed(seed))
    return rows[:, :-1], rows[:, 1:]
