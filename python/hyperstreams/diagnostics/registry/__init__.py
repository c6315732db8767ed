"""Every metric by number: what it is called, its formula, invariance, initial value and null.

The table of ``hyperstreams list metrics`` and of the docs page. Functions are named below
``hyperstreams.diagnostics``, where each has its shapes, options and sanity properties.
"""

from __future__ import annotations

from .coefficient_metrics import COEFFICIENT_METRICS
from .row import Metric
from .stream_metrics import STREAM_METRICS

METRICS: tuple[Metric, ...] = COEFFICIENT_METRICS + STREAM_METRICS
"""Every metric, in order."""

__all__ = ["METRICS", "Metric"]
