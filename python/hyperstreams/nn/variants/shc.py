"""sHC: mixers on the spectral sphere (2603.20896)."""

from __future__ import annotations

from ...mixers import Spectral
from ..config import ConnectionConfig

CONNECTIONS = (
    # Norm, read and write as in the code that it grew from, mHC-lite's; whether the released code
    # equals the paper in all details is not known. Streams are summed at the end.
    ConnectionConfig(
        name="shc",
        paper="sHC, 2603.20896; norm as released with mHC-lite, 2601.05732",
        mixer=Spectral(),
        norm_weight=True,
        eps=1e-12,
        eps_position="floor",
    ),
)
