"""Connections that never mix."""

from __future__ import annotations

from ...mixers import Identity
from ...ops import Activation
from ..config import ConnectionConfig

CONNECTIONS = (
    ConnectionConfig(
        name="identity",
        paper="identity Hyper-Connections (iHC); own initial values unpublished: mHC's here",
        mixer=Identity(),
        read_activation=Activation("sigmoid", offset=1e-6),
        write_activation=Activation("sigmoid", factor=2.0, offset=1e-6),
        reduce="weighted",
        final_norm="after_reduce",
    ),
)
