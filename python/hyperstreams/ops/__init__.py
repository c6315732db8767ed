"""Functional ops on streams, differentiable to any order, the same on every device.

Streams are ``x [..., n, C]``, branch outputs ``y [..., C]``, coefficients ``h_pre [..., n]``,
``h_post [..., n]`` and ``h_res [..., n, n]`` (``h_res[j, i]``: row j destination, column i source).
Coefficients without token axes are static. Each op runs compiled kernels or, where there are none,
the PyTorch of :mod:`hyperstreams.ops.reference`, which defines it: see :func:`backend`.
"""

from ._backend import Backend, BackendStatus, backend, backend_status, set_backend
from ._boundary import boundary, site_coefficients
from ._coefficient_settings import coefficients_are_fused
from ._ops import RECOMPUTE_CHEAP
from .functional import (
    coefficients,
    expand,
    mix_write,
    project,
    read,
    reduce,
    stream_stats,
)
from .reference_stats import (
    merge_stream_stats,
    stream_stats_fields,
    stream_stats_size,
    unpack_stream_stats,
)
from .settings import Activation

__all__ = [
    "RECOMPUTE_CHEAP",
    "Activation",
    "Backend",
    "BackendStatus",
    "backend",
    "backend_status",
    "boundary",
    "coefficients",
    "coefficients_are_fused",
    "expand",
    "merge_stream_stats",
    "mix_write",
    "project",
    "read",
    "reduce",
    "set_backend",
    "site_coefficients",
    "stream_stats",
    "stream_stats_fields",
    "stream_stats_size",
    "unpack_stream_stats",
]
