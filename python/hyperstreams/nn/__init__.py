"""Modules: put a multi-stream connection around any branch."""

from .baselines.residual import Residual
from .build import (
    branch_gain,
    branch_norm,
    branch_projects,
    build_expand,
    build_reduce,
    build_site,
    check_connection,
    connection_uses,
    has_streams,
    holds_streams,
    streams_of,
)
from .config import ConnectionConfig
from .connection import Connection, HyperConnection
from .ends import ExpandStreams, ReduceStreams
from .family import ConnectionFamily, Plan
from .permute import permute_streams
from .precision import FullPrecisionModule
from .registry import CONNECTIONS, find_connection, get_connection, register_connection
from .replay import recompute, recompute_group_size
from .start import residual_start
from .streams import Streams

__all__ = [
    "CONNECTIONS",
    "Connection",
    "ConnectionConfig",
    "ConnectionFamily",
    "ExpandStreams",
    "FullPrecisionModule",
    "HyperConnection",
    "Plan",
    "ReduceStreams",
    "Residual",
    "Streams",
    "branch_gain",
    "branch_norm",
    "branch_projects",
    "build_expand",
    "build_reduce",
    "build_site",
    "check_connection",
    "connection_uses",
    "find_connection",
    "get_connection",
    "has_streams",
    "holds_streams",
    "permute_streams",
    "recompute",
    "recompute_group_size",
    "register_connection",
    "residual_start",
    "streams_of",
]
