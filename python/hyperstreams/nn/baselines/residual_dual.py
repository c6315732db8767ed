"""ResiDual (2304.14802): a Post-Norm stream and an un-normalised one side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ..family import ConnectionFamily, Plan


class DualState(NamedTuple):
    """``x``: the Post-Norm stream. ``d``: the embedding plus all branch outputs."""

    x: Tensor
    d: Tensor


class DualExpand(nn.Module):
    """``h -> (h, h)``."""

    def forward(self, h: Tensor) -> DualState:
        """Both streams start at the embedding."""
        return DualState(h, h)


class DualSite(nn.Module):
    """``y = branch(x)``, ``x <- norm(x + y)``, ``d <- d + y``."""

    def __init__(self, branch: Callable[..., Tensor], norm: nn.Module) -> None:
        super().__init__()
        self.branch = branch
        self.norm = norm

    def forward(self, state: DualState, *args: Any, **kwargs: Any) -> DualState:
        """The branch sees the Post-Norm stream; its output enters both as it is."""
        y = self.branch(state.x, *args, **kwargs)
        return DualState(self.norm(state.x + y), state.d + y)


class DualReduce(nn.Module):
    """``x + norm(d)``."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, state: DualState) -> Tensor:
        """The one extra norm of the method is this one."""
        return state.x + self.norm(state.d)


class ResidualDual(ConnectionFamily):
    """Post-Norm and Pre-Norm residuals of the same branches, added at the end.

    The paper's scale of ``d`` against overflow in float16 is 1, as by default there; its last norm
    has the model's eps, where the paper's is 1e-7.
    """

    branch_norm: ClassVar[bool] = False

    def build_expand(self, plan: Plan) -> nn.Module:
        return DualExpand()

    def operations(self, *, width: int, kv_width: int, n_sites: int, n_streams: int) -> int:
        return 0

    def streams_of(self, state: DualState) -> Tensor:
        """Stream 0 is ``x`` (Post-Norm), stream 1 ``d`` (Pre-Norm)."""
        return torch.stack([state.x, state.d], dim=-2)

    def build_site(self, branch: nn.Module, site_index: int, plan: Plan) -> nn.Module:
        return DualSite(branch, plan.make_norm(plan.width))

    def build_reduce(self, plan: Plan) -> nn.Module:
        return DualReduce(plan.make_norm(plan.width))


CONNECTIONS = (ResidualDual("residual_dual", "ResiDual, 2304.14802"),)
