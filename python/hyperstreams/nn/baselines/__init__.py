"""Residual connections without Hyper-Connections, one file per family."""

from __future__ import annotations

from ..family import ConnectionFamily
from . import (
    altup,
    attention_residual,
    deepnorm,
    denseformer,
    parallel,
    post_norm,
    residual,
    residual_dual,
    residual_matrix,
    rezero,
)

CONNECTIONS: tuple[ConnectionFamily, ...] = (
    *residual.CONNECTIONS,
    *post_norm.CONNECTIONS,
    *deepnorm.CONNECTIONS,
    *rezero.CONNECTIONS,
    *parallel.CONNECTIONS,
    *residual_dual.CONNECTIONS,
    *altup.CONNECTIONS,
    *denseformer.CONNECTIONS,
    *attention_residual.CONNECTIONS,
    *residual_matrix.CONNECTIONS,
)
