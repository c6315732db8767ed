"""Mixers that are not stochastic: orthogonal, sums of such, a static deviation from I."""

from __future__ import annotations

from ...mixers import Cayley, Harmonized, SparseSelective
from ...ops import Activation
from ..config import ConnectionConfig

CONNECTIONS = (
    # One linear layer on a LayerNorm makes three n x n matrices. The layer input is the mean of the
    # rows of H_pre X, the write H_post (y, ..., y): vectors, since both are sums along an axis. The
    # softmaxes' temperature is not known, and a factor of phi and bias. Initial values unpublished.
    ConnectionConfig(
        name="jpmhc",
        paper="JPmHC (Cayley), 2602.18308; initial values unpublished: those of a linear layer",
        mixer=Cayley(iterations=2, alpha=0.1),
        centred=True,
        eps=1e-5,
        read_activation=Activation("row_softmax_mean"),
        write_activation=Activation("column_softmax_sum"),
        alpha=1.0,
        read_bias=(0.0, 0.0),
        write_bias=(0.0, 0.0),
        phi_init=0.02,
        designate="none",
    ),
    ConnectionConfig(
        name="sparse_selective",
        paper="Sparse Selective HC, causal form; read and write are mHC's",
        mixer=SparseSelective(k=2),
    ),
    ConnectionConfig(
        name="harmonized",
        paper="Harmonized HC: a static mixer near I; read and write are mHC's",
        mixer=Harmonized(),
        reduce="mean",
        final_norm="after_reduce",
    ),
)
