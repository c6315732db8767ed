"""What flows between sites: the streams and the write that the last site left pending."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .. import ops

GEOMETRY = (
    "gram",
    "norm",
    "cosine",
    "differential_energy",
    "curvature",
    "curvature_count",
    "position_curvature",
    "position_curvature_count",
)
"""The fields of ``ops.stream_stats`` that are of streams alone."""


class Streams(NamedTuple):
    """Streams ``x [..., n, C]`` and the pending mix and write of the last site.

    The state is ``h_res x + h_post y`` (:attr:`tensor`); the next site computes it together with
    its own read. ``y=None``: nothing is pending. ``h_res=None``: the identity mixer. ``stats``:
    None, or a float64 tensor ``[sites so far, ops.stream_stats_size(n)]`` that each site extends.
    A handle is immutable; using one twice is correct and computes the pending write twice. A site
    reads from its streams in the pass that makes them, so a gradient by its ``x`` leaves out its
    own branch: ``diagnostics.hooks`` has points with the whole gradient.
    """

    x: Tensor
    y: Tensor | None = None
    h_res: Tensor | None = None
    h_post: Tensor | None = None
    stats: Tensor | None = None

    @property
    def tensor(self) -> Tensor:
        """The streams ``[..., n, C]`` with the pending write carried out."""
        if self.y is None or self.h_post is None:
            return self.x
        return ops.mix_write(self.x, self.y, self.h_res, self.h_post)

    @property
    def n_streams(self) -> int:
        """Number of streams n."""
        return self.x.shape[-2]

    @property
    def width(self) -> int:
        """Channels C of one stream."""
        return self.x.shape[-1]


def stats_row(
    x: Tensor,
    y: Tensor | None = None,
    *,
    h_pre: Tensor | None = None,
    h_post: Tensor | None = None,
    h_res: Tensor | None = None,
    coefficients_only: bool = False,
) -> Tensor:
    """``ops.stream_stats`` as one row ``[1, ops.stream_stats_size(n)]`` of :attr:`Streams.stats`.

    coefficients_only : spend no pass over the streams; every field that describes them is nan.
    """
    if coefficients_only:
        x, y = x[..., :1], None if y is None else y[..., :1]
    row = ops.stream_stats(x, y, h_pre=h_pre, h_post=h_post, h_res=h_res)
    if coefficients_only:
        row = _nan_where(row, x.shape[-2], lambda name: name in ("read_signal_share", *GEOMETRY))
    return row.unsqueeze(0)


def state_row(x: Tensor) -> Tensor:
    """``ops.stream_stats`` of streams alone, ``[1, size]``; the fields of coefficients are nan."""
    row = ops.stream_stats(x)
    return _nan_where(row, x.shape[-2], lambda name: name not in ("count", *GEOMETRY)).unsqueeze(0)


def _nan_where(row: Tensor, n: int, chosen: Callable[[str], bool]) -> Tensor:
    """The packed row with nan in the fields whose names are chosen."""
    fields = ops.stream_stats_fields(n)
    parts = row.split([math.prod(shape) for shape in fields.values()])
    return torch.cat(
        [
            torch.full_like(part, math.nan) if chosen(name) else part
            for name, part in zip(fields, parts, strict=True)
        ]
    )


# Lets exported programs that take or return Streams be serialised.
pytree._register_namedtuple(Streams, serialized_type_name="hyperstreams.nn.Streams")
