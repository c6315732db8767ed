"""Small models with connections far from their initial values, and a batch for them."""

from __future__ import annotations

from typing import Any

import hyperstreams as hs
import torch
from hyperstreams import nn as hnn
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


class Stack(torch.nn.Module):
    """No GPT: two sites of three streams of width 8, and the sum of the streams."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = hnn.ExpandStreams(n_streams=3, width=8)
        self.layers = torch.nn.ModuleList(
            hnn.HyperConnection(torch.nn.Linear(8, 8), n_streams=3, width=8, site_index=k)
            for k in range(2)
        )

    def forward(self, h: Tensor) -> Tensor:
        x = self.expand(h)
        for layer in self.layers:
            x = layer(x)
        return x.tensor.sum(dim=-2)
