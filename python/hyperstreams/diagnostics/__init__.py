"""Diagnostics of multi-stream models: capture, hook points, pure metrics, named quantities."""

from . import composite, geometry, ledger, metrics, patterns
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
    "composite",
    "geometry",
    "hook_names",
    "hooks",
    "ledger",
    "metrics",
    "patterns",
    "quantity",
    "trace",
]
