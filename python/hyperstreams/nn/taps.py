"""Points inside a site at which tensors can be seen and replaced, for analysis."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import ops
from .streams import Streams

if TYPE_CHECKING:
    from .connection import Connection

Tap = Callable[[str, Tensor], Tensor]
"""``tap(point, value)`` is used in place of ``value``; ``value`` itself changes nothing."""

SITE_POINTS = (
    "hook_streams_in",
    "hook_pre",
    "hook_res",
    "hook_post",
    "hook_in",
    "hook_out",
)
"""Streams before the site ``[..., n, C]``, coefficients, branch input and output ``[..., C]``."""
REDUCE_POINTS = ("hook_streams_in",)


def tapped_read(
    connection: Connection, pending: Streams, tap: Tap
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """What ``connection`` returns, each value seen by ``tap`` on its way.

    A site without a mixer shows the identity matrix. Write, coefficients and read run one after the
    other, with the bits of the one pass, so that everything after a point is computed from, and
    differentiable by, what the tap saw there and returned.
    """
    state = tap("hook_streams_in", pending.tensor)
    _, _, h_pre, h_post, h_res = connection(state)
    h_pre = tap("hook_pre", h_pre)
    u = ops.read(state, h_pre)
    matrix = h_res
    if matrix is None:
        matrix = torch.eye(state.shape[-2], dtype=h_post.dtype, device=h_post.device)
    mixed_with = tap("hook_res", matrix)
    if mixed_with is not matrix:
        h_res = mixed_with
    return state, tap("hook_in", u), h_pre, tap("hook_post", h_post), h_res
