"""The registry of connections."""

from __future__ import annotations

from typing import TypeVar

from .._errors import check_choice
from . import baselines, families
from .config import ConnectionConfig
from .family import ConnectionFamily
from .variants import (
    circulant,
    dialects,
    doubly_stochastic,
    hc,
    identity,
    kromhc,
    mhc,
    orthogonal,
    shc,
)

CONNECTIONS: dict[str, ConnectionConfig | ConnectionFamily] = {
    config.name: config
    for family in (
        baselines,
        families,
        hc,
        mhc,
        kromhc,
        shc,
        circulant,
        doubly_stochastic,
        orthogonal,
        identity,
        dialects,
    )
    for config in family.CONNECTIONS
}
"""The connections by name. A user's own joins with :func:`register_connection`."""


_Config = TypeVar("_Config", ConnectionConfig, ConnectionFamily)


def register_connection(config: _Config, *, replace: bool = False) -> _Config:
    """Add a connection to the registry under its ``name``, in place of an older one if allowed."""
    if not replace and CONNECTIONS.get(config.name, config) != config:
        raise ValueError(f"register_connection: name: expected an unused name, got {config.name!r}")
    CONNECTIONS[config.name] = config
    return config


def find_connection(
    connection: str | ConnectionConfig | ConnectionFamily,
) -> ConnectionConfig | ConnectionFamily:
    """A connection of any kind from its name, or the given one itself."""
    if not isinstance(connection, str):
        return connection
    check_choice("get_connection", "connection", connection, CONNECTIONS)
    return CONNECTIONS[connection]


def get_connection(connection: str | ConnectionConfig) -> ConnectionConfig:
    """A Hyper-Connection (a mixer around streams) from its name, or the given one itself."""
    config = find_connection(connection)
    if not isinstance(config, ConnectionConfig):
        raise ValueError(
            f"get_connection: connection: expected a mixer around streams, got {config.name!r}, "
            "whose modules nn.build_expand, nn.build_site and nn.build_reduce make"
        )
    return config
