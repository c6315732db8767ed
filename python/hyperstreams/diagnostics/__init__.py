"""Diagnostics of multi-stream models: capture, pure metrics, named quantities."""

from . import geometry, metrics
from .capture import Capture, capture
from .quantities import QUANTITIES, Quantity, quantity

__all__ = [
    "QUANTITIES",
    "Capture",
    "Quantity",
    "capture",
    "geometry",
    "metrics",
    "quantity",
]
