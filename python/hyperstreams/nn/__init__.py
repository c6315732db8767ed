"""Modules: put a multi-stream connection around any branch."""

from .config import CONNECTIONS, ConnectionConfig, get_connection, register_connection
from .connection import Connection, HyperConnection, Residual
from .ends import ExpandStreams, ReduceStreams
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
