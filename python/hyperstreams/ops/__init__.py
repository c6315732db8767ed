"""Functional ops on streams; see ``DESIGN`` in the README for shapes and orientation."""

from .functional import boundary, coefficients, expand, mix_write, project, read, reduce, stream_stats
from .reference_stats import stream_stats_fields, stream_stats_size, unpack_stream_stats
from .settings import Activation

__all__ = [
    "Activation",
    "boundary",
    "coefficients",
    "expand",
    "mix_write",
    "project",
    "read",
    "reduce",
    "stream_stats",
    "stream_stats_fields",
    "stream_stats_size",
    "unpack_stream_stats",
]
