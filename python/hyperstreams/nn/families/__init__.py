"""Hyper-Connections whose sites are not the canonical read, mix and write; one file per family."""

from __future__ import annotations

from ..family import ConnectionFamily
from . import active_streams, segments, single_pass

CONNECTIONS: tuple[ConnectionFamily, ...] = (
    *segments.CONNECTIONS,
    *active_streams.CONNECTIONS,
    *single_pass.CONNECTIONS,
)
