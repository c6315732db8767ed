"""A row of the registry of metrics."""

from __future__ import annotations

from dataclasses import dataclass

START = "metric of initial_coefficients"
"""Where coefficients decide the initial value."""

HC = "2409.19606 (HC)"
MHC = "2512.24880 (mHC)"
SEED = "2606.03483"
"""Sources that several metrics share."""


@dataclass(frozen=True)
class Metric:
    """One row.

    functions : paths below ``hyperstreams.diagnostics``; the first computes the metric, the others
        belong to it.
    invariance : under a permutation of streams a number stays (``inv``) or a vector is permuted
        (``eqv``); more where it holds.
    initial : value of a published model at its start; ``metric of initial_coefficients`` where
        coefficients decide it, ``traced`` where an untrained model must be run.
    null : what chance or absence gives; ``-`` where there is none.
    """

    id: str
    name: str
    functions: tuple[str, ...]
    formula: str
    invariance: str
    initial: str
    null: str
    source: str
