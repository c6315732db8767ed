"""mHC (2512.24880) and mHC-lite (2601.05732), as released with the latter."""

from __future__ import annotations

from ...mixers import Permutation, Sinkhorn
from ..config import ConnectionConfig

CONNECTIONS = (
    ConnectionConfig(
        name="mhc",
        paper="mHC, 2512.24880; initial values, norm and orientation as released with 2601.05732",
        mixer=Sinkhorn(iterations=20, order="columns_first", orientation="source_rows"),
        norm_weight=True,
        eps=1e-12,
        eps_position="floor",
        static_decay=True,
    ),
    ConnectionConfig(
        name="mhc_lite",
        paper="mHC-lite, 2601.05732",
        mixer=Permutation(orientation="source_rows"),
        norm_weight=True,
        eps=1e-12,
        eps_position="floor",
    ),
)
