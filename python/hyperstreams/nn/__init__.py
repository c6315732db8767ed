"""Modules: put a multi-stream connection around any branch."""

from .config import ConnectionConfig
from .connection import Connection, HyperConnection, Residual
from .ends import ExpandStreams, ReduceStreams
from .registry import CONNECTIONS, get_connection, register_connection
from .streams import Streams

__all__ = [
    "CONNECTIONS",
    "Connection",
    "ConnectionConfig",
    "ExpandStreams",
    "HyperConnection",
    "ReduceStreams",
    "Residual",
    "Streams",
    "get_connection",
    "register_connection",
]
