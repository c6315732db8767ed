"""Parallel blocks: attention and MLP of a block read the same state."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn

from ..family import ConnectionFamily, Plan


class HalfBlock(NamedTuple):
    """State between the two sites of a block: its input ``h`` and the first branch's output."""

    h: Tensor
    y: Tensor


class FirstSite(nn.Module):
    """``h -> (h, branch(h))``."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, h: Tensor, *args: Any, **kwargs: Any) -> HalfBlock:
        """Leave the addition to the second site."""
        return HalfBlock(h, self.branch(h, *args, **kwargs))


class SecondSite(nn.Module):
    """``(h, y) -> h + y + branch(h)``."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: HalfBlock, *args: Any, **kwargs: Any) -> Tensor:
        """The block's output."""
        return x.h + x.y + self.branch(x.h, *args, **kwargs)


class Parallel(ConnectionFamily):
    """``h <- h + Attn(norm h) + MLP(norm h)``, each with a norm of its own."""

    def check(self, *, width: int, n_sites: int, n_streams: int) -> None:
        if n_sites % 2:
            raise ValueError(
                f"connection {self.name!r}: n_sites: expected an even number, got {n_sites}"
            )

    def operations(self, *, width: int, kv_width: int, n_sites: int, n_streams: int) -> int:
        return 0

    def build_site(self, branch: nn.Module, site_index: int, plan: Plan) -> nn.Module:
        return SecondSite(branch) if site_index % 2 else FirstSite(branch)


CONNECTIONS = (Parallel("parallel", "parallel blocks: h + attention(h) + mlp(h), as in GPT-J"),)
