"""Relatives of mHC: other maps to (doubly) stochastic matrices, read and written like mHC."""

from __future__ import annotations

from ...mixers import BirkhoffExact, Orthostochastic, RowSoftmax, Transport
from ..config import ConnectionConfig

CONNECTIONS = (
    ConnectionConfig(
        name="birkhoff_exact",
        paper="mHC, 2512.24880, with Sinkhorn's limit in place of 20 rounds",
        mixer=BirkhoffExact(),
    ),
    ConnectionConfig(
        name="go_mhc",
        paper="go-mHC, 2604.02309; initial skew is ours (at 0 it would never train)",
        mixer=Orthostochastic(s=2),
    ),
    ConnectionConfig(
        name="tbp_mhc",
        paper="TBP-mHC, 2605.21724; initial values are mHC's",
        mixer=Transport(),
    ),
    ConnectionConfig(
        name="row_softmax",
        paper="one-sided variant of mHC, 2512.24880; initial values are mHC's",
        mixer=RowSoftmax(),
    ),
)
