"""The readout of a model as additive parts, one per stream (D19)."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from ...nn import ReduceStreams
from ..metrics.lens import Position, readout_parts


def model_parts(model: nn.Module, streams: Tensor) -> Tensor:
    """:func:`~hyperstreams.diagnostics.lens.readout_parts` with ``model.reduce``'s own settings.

    ``streams [..., n, C]`` before the readout (``Trace.streams[-1]``) to parts ``[..., n, C]`` that
    sum to the final hidden state. Raises TypeError for a model without ``nn.ReduceStreams``.
    """
    reduce = getattr(model, "reduce", None)
    if not isinstance(reduce, ReduceStreams):
        raise TypeError(
            "model_parts: model: expected one whose reduce is nn.ReduceStreams, "
            f"got {type(reduce).__name__}"
        )
    return readout_parts(
        streams,
        reduce.norm,
        position=cast(Position, reduce.norm_position),
        weights=reduce.weights(streams),
    )
