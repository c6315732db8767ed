"""Circulant Hyper-Connections."""

from __future__ import annotations

from ...mixers import Circulant
from ..config import ConnectionConfig

CONNECTIONS = (
    # gamma is for the published depth, 12 sublayers; dataclasses.replace with
    # mixer=Circulant.for_depth(sublayers) gives another. The streams start alike: the random
    # controller makes their writes differ. Streams are averaged before the final norm.
    ConnectionConfig(
        name="cmhc",
        paper="C-mHC (Circulant Hyper-Connections, Zwick 2026); gamma for 12 sublayers",
        mixer=Circulant(),
        eps=1e-8,
        eps_position="outside",
        alpha_groups=(0, 0, 0),
        read_bias="mean",
        write_bias=(0.0, 0.0),
        phi_init=0.02,
        phi_per_input=True,
        designate="none",
        reduce="mean",
        final_norm="after_reduce",
    ),
)
