"""ReZero (2003.04887): a learned scale, at first 0, in front of every branch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..family import ConnectionFamily, Plan
from ..precision import FullPrecisionModule, Roles, full_precision


class ReZeroSite(FullPrecisionModule):
    """``h + alpha branch(h)`` on ``[..., C]``; the parameter ``alpha [1]`` starts at 0."""

    roles: ClassVar[Roles] = {"alpha": "scale"}

    def __init__(
        self,
        branch: Callable[..., Tensor],
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.branch = branch
        self.alpha = nn.Parameter(torch.zeros(1, device=device, dtype=full_precision(dtype)))

    @torch.no_grad()
    def reset_parameters(self, *, generator: torch.Generator | None = None) -> None:
        """Set alpha to 0."""
        self.alpha.zero_()

    def forward(self, h: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """``h + alpha branch(h, *args, **kwargs)``."""
        return h + (self.alpha * self.branch(h, *args, **kwargs)).to(h.dtype)


class ReZero(ConnectionFamily):
    """``h <- h + alpha F(h)``, F without a norm: every site starts as the identity.

    The paper's model has no norm anywhere; the final one is kept here, as in every other model.
    """

    branch_norm: ClassVar[bool] = False

    def operations(self, *, width: int, kv_width: int, n_sites: int, n_streams: int) -> int:
        return 2 * width * n_sites

    def build_site(self, branch: nn.Module, site_index: int, plan: Plan) -> nn.Module:
        return ReZeroSite(branch, **plan.factory)


CONNECTIONS = (ReZero("rezero", "ReZero, 2003.04887"),)
