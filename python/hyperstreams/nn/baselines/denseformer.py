"""DenseFormer (2402.02622): after a block, a learned average over all blocks so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..family import ConnectionFamily, Plan
from ..precision import FullPrecisionModule, full_precision
from .history import weighted_sum


class DenseState(NamedTuple):
    """``h``: input of the next branch. ``history``: the embedding and every block's output."""

    h: Tensor
    history: tuple[Tensor, ...]


class DenseExpand(nn.Module):
    """``h -> (h, (h,))``."""

    def forward(self, h: Tensor) -> DenseState:
        """The embedding is the first of the history."""
        return DenseState(h, (h,))


class InnerSite(nn.Module):
    """A residual site inside a block: the history is handed on."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, state: DenseState, *args: Any, **kwargs: Any) -> DenseState:
        """``h + branch(h)``."""
        return DenseState(state.h + self.branch(state.h, *args, **kwargs), state.history)


class DenseSite(FullPrecisionModule):
    """The last residual site of block i, then ``sum_j weights[j] X_j`` over ``j = i mod k``.

    The parameter ``weights [floor(i / k) + 1]`` (oldest first) starts at ``0, ..., 0, 1``; with
    ``averages=False`` there is none and the block's output X_i goes on as it is.
    """

    weights: nn.Parameter | None

    def __init__(
        self,
        branch: nn.Module,
        *,
        block: int,
        dilation: int,
        averages: bool,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.branch = branch
        self.block = block
        self.dilation = dilation
        values = torch.empty(block // dilation + 1, device=device, dtype=full_precision(dtype))
        self.register_parameter("weights", nn.Parameter(values) if averages else None)
        if not values.is_meta:
            self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, *, generator: torch.Generator | None = None) -> None:
        """All weight on the block's own output: the plain residual model."""
        if self.weights is not None:
            self.weights.zero_()
            self.weights[-1] = 1.0

    def forward(self, state: DenseState, *args: Any, **kwargs: Any) -> DenseState:
        """The history keeps the block's output, not the average."""
        h = state.h + self.branch(state.h, *args, **kwargs)
        history = (*state.history, h)
        if self.weights is not None:
            h = weighted_sum(history[self.block % self.dilation :: self.dilation], self.weights)
        return DenseState(h, history)

    def extra_repr(self) -> str:
        return f"block={self.block}, dilation={self.dilation}"


class DenseReduce(nn.Module):
    """The final norm of the last average."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, state: DenseState) -> Tensor:
        """``norm(h)``."""
        return self.norm(state.h)


@dataclass(frozen=True)
class DenseFormer(ConnectionFamily):
    """Depth-weighted averages: ``Y_i = sum_{j <= i, j = i mod dilation} a_ij X_j``, every
    ``period`` blocks; ``X_i = Block_i(Y_{i-1})``, X_0 the embedding. Starts as the plain model.

    At dilation = period = 1 a model of L blocks has L (L + 3) / 2 weights and reads
    L (L + 3) / 2 hidden states per token, as in the paper: the averages are quadratic in depth,
    and dilation and period divide the cost. The history is kept, not copied
    (``history.weighted_sum`` has the measured cost).
    """

    dilation: int = 1
    period: int = 1

    def __post_init__(self) -> None:
        for name in ("dilation", "period"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"connection {self.name!r}: {name}: expected at least 1, "
                    f"got {getattr(self, name)}"
                )

    def check(self, *, width: int, n_sites: int, n_streams: int) -> None:
        super().check(width=width, n_sites=n_sites, n_streams=n_streams)
        blocks = -(-n_sites // 2)
        if blocks < self.period:
            raise ValueError(
                f"connection {self.name!r}: n_sites: expected at least period={self.period} blocks "
                f"of two sites, without which there is no average, got {n_sites} sites"
            )

    def build_expand(self, plan: Plan) -> nn.Module:
        return DenseExpand()

    def operations(self, *, width: int, kv_width: int, n_sites: int, n_streams: int) -> int:
        blocks = range(self.period, -(-n_sites // 2) + 1, self.period)
        return 2 * width * sum(block // self.dilation + 1 for block in blocks)

    def build_site(self, branch: nn.Module, site_index: int, plan: Plan) -> nn.Module:
        if site_index % 2 == 0 and site_index < plan.n_sites - 1:
            return InnerSite(branch)
        block = site_index // 2 + 1
        return DenseSite(
            branch,
            block=block,
            dilation=self.dilation,
            averages=block % self.period == 0,
            **plan.factory,
        )

    def build_reduce(self, plan: Plan) -> nn.Module:
        return DenseReduce(plan.make_norm(plan.width))


CONNECTIONS = (
    DenseFormer("denseformer", "DenseFormer, 2402.02622"),
    DenseFormer("denseformer_4x5", "DenseFormer, 2402.02622, dilation 4, period 5", 4, 5),
)
