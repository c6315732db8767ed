"""Reads predicted one site ahead (DeepSeek-V4.1): ``boundary`` with the previous site's weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ... import ops
from ..ends import ExpandStreams
from ..family import ConnectionFamily, Plan
from ..streams import Streams


class SinglePassState(NamedTuple):
    """Streams ``x [..., n, C]``, the next site's read weights ``h_pre`` (``[n]`` at first), and the
    last site's pending write, as in :class:`hyperstreams.nn.Streams`."""

    x: Tensor
    h_pre: Tensor
    y: Tensor | None = None
    h_res: Tensor | None = None
    h_post: Tensor | None = None

    @property
    def tensor(self) -> Tensor:
        """The streams with the pending write carried out."""
        return Streams(self.x, self.y, self.h_res, self.h_post).tensor


class SinglePassSite(nn.Module):
    """``u = h_pre X`` with the previous site's weights; this site's coefficients come from X too.

    ``X' = h_res X + h_post F(u)``, and the ``h_pre`` computed beside them is for the next site.
    """

    def __init__(self, branch: nn.Module, **options: Any) -> None:
        # The registry that connection.py reads from holds this family.
        from ..connection import Connection

        super().__init__()
        self.connection = Connection(**options)
        self.branch = branch

    def forward(self, state: SinglePassState, *args: Any, **kwargs: Any) -> SinglePassState:
        """State to state; further arguments go to the branch."""
        x, u, h_pre, h_post, h_res = self.connection(
            state.x, state.y, state.h_res, state.h_post, read_weights=state.h_pre
        )
        y = self.branch(u, *args, **kwargs)
        return SinglePassState(x, h_pre, y, h_res, h_post)


class SinglePassExpand(nn.Module):
    """The expansion of the model; the first site reads stream 0."""

    def __init__(self, streams: ExpandStreams) -> None:
        super().__init__()
        self.streams = streams

    def forward(self, h: Tensor) -> SinglePassState:
        """``[..., C]`` to the state before the first site."""
        x = self.streams(h).x
        dtype = torch.promote_types(x.dtype, torch.float32)
        h_pre = torch.zeros(x.shape[-2], dtype=dtype, device=x.device)
        h_pre[0] = 1.0
        return SinglePassState(x, h_pre)


class SinglePassReduce(nn.Module):
    """``norm(h_pre X)`` with the weights of the last site: no head of its own."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, state: SinglePassState) -> Tensor:
        """State to ``[..., C]``."""
        return self.norm(ops.read(state.tensor, state.h_pre))


@dataclass(frozen=True)
class SinglePass(ConnectionFamily):
    """Any Hyper-Connection with its reads one site late.

    Known to us second-hand only (no text or code seen): each sublayer uses read weights that the
    previous one predicted, the first reads stream 0, the exit uses the last sublayer's weights.

    connection : the connection whose coefficients are used.
    """

    fused_ops = ("boundary",)
    uses = frozenset({"expand", "designate"})

    connection: str = "deepseek_v4"

    def operations(self, *, width: int, kv_width: int, n_sites: int, n_streams: int) -> int:
        # The registry holds this family.
        from ..registry import get_connection

        n, config = n_streams, get_connection(self.connection)
        controller = config.logit_count(n) - config.mixer.static_logit_count(n) + 1
        return n_sites * 2 * n * (controller + 2 + n) * width

    def build_expand(self, plan: Plan) -> nn.Module:
        options = {**plan.expand, **plan.factory, "generator": plan.generator}
        return SinglePassExpand(
            ExpandStreams(n_streams=plan.n_streams, width=plan.width, **options)
        )

    def streams_of(self, state: SinglePassState) -> Tensor:
        """The streams."""
        return state.tensor

    def build_site(self, branch: nn.Module, site_index: int, plan: Plan) -> nn.Module:
        return SinglePassSite(
            branch,
            connection=self.connection,
            n_streams=plan.n_streams,
            width=plan.width,
            site_index=site_index,
            designate=plan.designate,
            generator=plan.generator,
            **plan.factory,
        )

    def build_reduce(self, plan: Plan) -> nn.Module:
        return SinglePassReduce(plan.make_norm(plan.width))


CONNECTIONS = (
    SinglePass("deepseek_v4_single_pass", "DeepSeek-V4.1-Flash, as reported second-hand"),
)
