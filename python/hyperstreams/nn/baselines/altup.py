"""AltUp (2301.13310): K streams, of which every block computes one and predicts the others."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ... import ops
from ..ends import ExpandStreams, ReduceStreams
from ..family import ConnectionFamily, Plan
from ..precision import FullPrecisionModule, full_precision


class AltUpState(NamedTuple):
    """State inside a block: the streams ``x [..., K, C]`` before it and the active one so far."""

    x: Tensor
    active: Tensor


class AltUpSite(FullPrecisionModule):
    """One sublayer of a block ``L`` that computes stream ``active`` only.

    Predict ``p_i = sum_j predict[i, j] x_j``; compute ``y = L(x_active)``, the branches' residuals
    included; correct ``x_i <- p_i + correct[i] (y - p_active)``. Together they are one static mix
    and write: ``h_res = predict - correct predict[active]``, ``h_post = correct``.

    last : whether the site closes its block; it then has the parameters
    ``predict [K, K]``, at first the identity, and ``correct [K]``, at first 1.
    """

    predict: nn.Parameter | None
    correct: nn.Parameter | None

    def __init__(
        self,
        branch: nn.Module,
        *,
        n_streams: int,
        active: int,
        last: bool,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.branch = branch
        self.active = active
        for name, shape in {"predict": (n_streams, n_streams), "correct": (n_streams,)}.items():
            values = torch.empty(shape, device=device, dtype=full_precision(dtype))
            self.register_parameter(name, nn.Parameter(values) if last else None)
        if self.predict is not None and not self.predict.is_meta:
            self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, *, generator: torch.Generator | None = None) -> None:
        """Every stream starts as a plain residual stream with all branch outputs."""
        if self.predict is not None and self.correct is not None:
            nn.init.eye_(self.predict)
            self.correct.fill_(1.0)

    def forward(self, state: Tensor | AltUpState, *args: Any, **kwargs: Any) -> Any:
        """Streams at a block's ends, :class:`AltUpState` inside it."""
        x = state.x if isinstance(state, AltUpState) else state
        h = state.active if isinstance(state, AltUpState) else x[..., self.active, :]
        y = h + self.branch(h, *args, **kwargs)
        if self.predict is None or self.correct is None:
            return AltUpState(x, y)
        h_res = torch.addr(self.predict, self.correct, self.predict[self.active], alpha=-1)
        return ops.mix_write(x, y, h_res, self.correct)

    def extra_repr(self) -> str:
        return f"active={self.active}"


class Expand(nn.Module):
    """Hidden states to the tensor of streams."""

    def __init__(self, streams: ExpandStreams) -> None:
        super().__init__()
        self.streams = streams

    def forward(self, h: Tensor) -> Tensor:
        """``[..., C] -> [..., K, C]``."""
        return self.streams(h).x


class AltUp(ConnectionFamily):
    """Google's AltUp; a layer of the paper is a block (two sites), block l computes stream l mod K.

    The ends are those of its "recycled" form: the embedding is copied, the streams are summed
    (``expand`` and ``reduce`` of the plan). The initial values of the K^2 + K scalars are not
    known to us; identity and ones make the model start as the plain one. Gemma-3n's variant, which
    is not this one, predicts the coefficients from the active stream, always computes the same
    stream, and has learned projections at the ends.
    """

    fused_ops = ("mix_write",)
    uses = frozenset({"expand", "reduce"})

    def build_expand(self, plan: Plan) -> nn.Module:
        options = {**plan.expand, **plan.factory, "generator": plan.generator}
        return Expand(ExpandStreams(n_streams=plan.n_streams, width=plan.width, **options))

    def operations(self, *, width: int, kv_width: int, n_sites: int, n_streams: int) -> int:
        blocks = -(-n_sites // 2)
        return blocks * 2 * (n_streams**2 + n_streams) * width

    def streams_of(self, state: Tensor | AltUpState) -> Tensor:
        """The streams; inside a block those before it."""
        return state.x if isinstance(state, AltUpState) else state

    def build_site(self, branch: nn.Module, site_index: int, plan: Plan) -> nn.Module:
        return AltUpSite(
            branch,
            n_streams=plan.n_streams,
            active=site_index // 2 % plan.n_streams,
            last=site_index % 2 == 1 or site_index == plan.n_sites - 1,
            **plan.factory,
        )

    def build_reduce(self, plan: Plan) -> nn.Module:
        options = {**plan.reduce, **plan.factory, "norm": plan.make_norm(plan.width)}
        return ReduceStreams(n_streams=plan.n_streams, width=plan.width, **options)


CONNECTIONS = (AltUp("altup", "AltUp, 2301.13310, with recycled ends"),)
