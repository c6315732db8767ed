"""The registry of connections."""

from __future__ import annotations

from .._errors import check_choice
from .config import ConnectionConfig
from .variants import hc, identity, mhc

CONNECTIONS: dict[str, ConnectionConfig] = {
    config.name: config for family in (hc, mhc, identity) for config in family.CONNECTIONS
}
"""The connections by name. A user's own joins with :func:`register_connection`."""


def register_connection(config: ConnectionConfig) -> ConnectionConfig:
    """Add a connection to the registry under its ``name``."""
    if CONNECTIONS.get(config.name, config) != config:
        raise ValueError(f"register_connection: name: expected an unused name, got {config.name!r}")
    CONNECTIONS[config.name] = config
    return config


def get_connection(connection: str | ConnectionConfig) -> ConnectionConfig:
    """A connection from its name, or the given configuration itself."""
    if isinstance(connection, ConnectionConfig):
        return connection
    check_choice("get_connection", "connection", connection, CONNECTIONS)
    return CONNECTIONS[connection]
