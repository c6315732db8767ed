"""Hyper-Connections (2409.19606)."""

from __future__ import annotations

from ...mixers import Free
from ...ops import Activation
from ..config import ConnectionConfig

_LINEAR = Activation("none")
_TANH = Activation("tanh", form="outside")

CONNECTIONS = (
    ConnectionConfig(
        name="hc_static",
        paper="Hyper-Connections (static), 2409.19606",
        mixer=Free(),
        norm="none",
        read_activation=_LINEAR,
        write_activation=_LINEAR,
        read_bias=(0.0, 1.0),
        write_bias=(1.0, 1.0),
        designate="round_robin",
        static_decay=True,
        final_norm="after_reduce",
    ),
    ConnectionConfig(
        name="hc",
        paper="Hyper-Connections (dynamic), 2409.19606",
        mixer=Free(),
        norm="per_stream",
        read_activation=_TANH,
        write_activation=_TANH,
        mix_activation=_TANH,
        alpha_groups=(0, 1, 0),
        read_bias=(0.0, 1.0),
        write_bias=(1.0, 1.0),
        designate="round_robin",
        static_decay=True,
        final_norm="after_reduce",
    ),
)
