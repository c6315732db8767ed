"""The plain residual connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..family import ConnectionFamily, Plan


class Residual(nn.Module):
    """The plain residual connection ``h + branch(h)`` on ``[..., C]``: the baseline, no streams."""

    def __init__(self, branch: Callable[..., Tensor]) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, h: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """``h + branch(h, *args, **kwargs)``."""
        return h + self.branch(h, *args, **kwargs)


class PreNorm(ConnectionFamily):
    """``h + F(norm(h))``; the norm is the branch's."""

    def operations(self, *, width: int, kv_width: int, n_sites: int, n_streams: int) -> int:
        return 0

    def build_site(self, branch: nn.Module, site_index: int, plan: Plan) -> nn.Module:
        return Residual(branch)


CONNECTIONS = (PreNorm("residual", "Pre-Norm residual connection: h + branch(h), no streams"),)
