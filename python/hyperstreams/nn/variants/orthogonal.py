"""Mixers that are not stochastic: sums of orthogonal matrices, a static deviation from I."""

from __future__ import annotations

from ...mixers import Harmonized, SparseSelective
from ..config import ConnectionConfig

CONNECTIONS = (
    ConnectionConfig(
        name="sparse_selective",
        paper="Sparse Selective HC, causal form; read and write are mHC's",
        mixer=SparseSelective(k=2),
    ),
    ConnectionConfig(
        name="harmonized",
        paper="Harmonized HC: a static mixer near I; read and write are mHC's",
        mixer=Harmonized(),
    ),
)
