"""KromHC (2601.21579), as released."""

from __future__ import annotations

from ...mixers import Kronecker
from ..config import ConnectionConfig

CONNECTIONS = (
    # Like mHC-lite's but for the mixer. Released model: streams replicated, final norm on each
    # stream, then their sum.
    ConnectionConfig(
        name="kromhc",
        paper="KromHC, 2601.21579",
        mixer=Kronecker(),
        norm_weight=True,
        eps=1e-12,
        eps_position="floor",
    ),
)
