"""Diagnostics of multi-stream models: capture, hook points, pure metrics, named quantities."""

from . import geometry, metrics
from .capture import Capture, capture
from .hooks import Hook, hook_names, hooks
from .quantities import QUANTITIES, Quantity, quantity
from .trace import Trace, trace

__all__ = [
    "QUANTITIES",
    "Capture",
    "Hook",
    "Quantity",
    "Trace",
    "capture",
    "geometry",
    "hook_names",
    "hooks",
    "metrics",
    "quantity",
    "trace",
]
