"""Attention Residuals (2603.15031): every sublayer attends over the outputs before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ... import ops
from ..family import ConnectionFamily, Plan
from ..precision import FullPrecisionModule, Roles, full_precision
from .history import weighted_sum

EPS = 1e-6


class DepthState(NamedTuple):
    """``blocks``: the embedding and the sums of complete blocks. ``partial``: of the current one.

    With one sublayer per block the sums are the sublayers' outputs.
    """

    blocks: tuple[Tensor, ...]
    partial: Tensor | None = None


class DepthAttention(FullPrecisionModule):
    """``sum_i a_i v_i`` with ``a = softmax_i(query . RMSNorm(v_i))`` over a token's history.

    Parameters ``query [C]``, at first 0 (a plain average), and the norm's ``norm_weight [C]``,
    at first 1. Each v is read once by ``ops.project`` and once by the sum.
    """

    roles: ClassVar[Roles] = {"query": "controller", "norm_weight": "scale"}

    def __init__(
        self,
        width: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        factory: dict[str, Any] = {"device": device, "dtype": full_precision(dtype)}
        self.query = nn.Parameter(torch.zeros(width, **factory))
        self.norm_weight = nn.Parameter(torch.ones(width, **factory))

    @torch.no_grad()
    def reset_parameters(self, *, generator: torch.Generator | None = None) -> None:
        """A zero query weighs everything alike."""
        self.query.zero_()
        self.norm_weight.fill_(1.0)

    def forward(self, state: DepthState) -> Tensor:
        """The history ``[..., C]`` each to their weighted average."""
        values = state.blocks if state.partial is None else (*state.blocks, state.partial)
        scores = []
        for value in values:
            logits, inv_rms = ops.project(
                value.unsqueeze(-2), self.query.unsqueeze(0), norm_weight=self.norm_weight, eps=EPS
            )
            scores.append(logits * inv_rms.unsqueeze(-1))
        return weighted_sum(values, torch.softmax(torch.cat(scores, dim=-1), dim=-1))


class DepthExpand(nn.Module):
    """``h -> ((h,), nothing)``."""

    def forward(self, h: Tensor) -> DepthState:
        """The embedding is the first of the history."""
        return DepthState((h,))


class DepthSite(nn.Module):
    """``branch`` of the attended history; its output joins the current block's sum."""

    def __init__(self, branch: nn.Module, attention: DepthAttention, *, closes: bool) -> None:
        super().__init__()
        self.branch = branch
        self.depth_attention = attention
        self.closes = closes

    def forward(self, state: DepthState, *args: Any, **kwargs: Any) -> DepthState:
        """``closes``: the site is the last of its block."""
        y = self.branch(self.depth_attention(state), *args, **kwargs)
        partial = y if state.partial is None else state.partial + y
        if self.closes:
            return DepthState((*state.blocks, partial))
        return DepthState(state.blocks, partial)


class DepthReduce(nn.Module):
    """The attended history, normalised."""

    def __init__(self, attention: DepthAttention, norm: nn.Module) -> None:
        super().__init__()
        self.depth_attention = attention
        self.norm = norm

    def forward(self, state: DepthState) -> Tensor:
        """``norm(sum_i a_i v_i)`` over everything."""
        return self.norm(self.depth_attention(state))


@dataclass(frozen=True)
class AttentionResidual(ConnectionFamily):
    """``h_l = sum_{i<l} a_{i->l} v_i``, ``v_0`` the embedding, ``v_i = f_i(h_i)``; a last router
    aggregates everything before the final norm. Attention and MLP count as one sublayer each.

    blocks : None attends over every sublayer's output; a number divides the sublayers into so many
        blocks, of which only the sums are attended to (beside the current block's partial sum;
        a block's first sublayer has none).

    Starts as the uniform average. 2 C parameters per site and for the router. S sites and the
    router attend to (S + 1) (S + 2) / 2 hidden states per token, quadratic in depth as in the
    paper; with N blocks to about S N / 2, linear. Each is read once for its score and once for the
    sum (``history.weighted_sum`` has the measured cost). The history is kept, not copied.
    """

    fused_ops = ("project",)

    blocks: int | None = None

    def __post_init__(self) -> None:
        if self.blocks is not None and self.blocks < 1:
            raise ValueError(
                f"connection {self.name!r}: blocks: expected at least 1, got {self.blocks}"
            )

    def check(self, *, width: int, n_sites: int, n_streams: int) -> None:
        super().check(width=width, n_sites=n_sites, n_streams=n_streams)
        if self.blocks is not None and n_sites <= self.blocks:
            raise ValueError(
                f"connection {self.name!r}: n_sites: expected more than blocks={self.blocks}, "
                f"at which every site is a block and blocks change nothing, got {n_sites}"
            )

    def build_expand(self, plan: Plan) -> nn.Module:
        return DepthExpand()

    def operations(self, *, width: int, kv_width: int, n_sites: int, n_streams: int) -> int:
        # Norm, score and sum of everything attended to; the final router is no site.
        size = 1 if self.blocks is None else -(-n_sites // self.blocks)
        attended = sum(1 + site // size + (site % size > 0) for site in range(n_sites))
        return 6 * width * attended

    def build_site(self, branch: nn.Module, site_index: int, plan: Plan) -> nn.Module:
        size = 1 if self.blocks is None else -(-plan.n_sites // self.blocks)
        attention = DepthAttention(plan.width, **plan.factory)
        return DepthSite(branch, attention, closes=(site_index + 1) % size == 0)

    def build_reduce(self, plan: Plan) -> nn.Module:
        attention = DepthAttention(plan.width, **plan.factory)
        return DepthReduce(attention, plan.make_norm(plan.width))


CONNECTIONS = (
    AttentionResidual("attention_residual", "Attention Residuals (full), 2603.15031"),
    AttentionResidual("attention_residual_block", "Attention Residuals (8 blocks), 2603.15031", 8),
)
