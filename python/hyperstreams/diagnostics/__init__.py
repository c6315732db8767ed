"""Diagnostics of multi-stream models: capture, hook points, pure metrics, named quantities,
interventions."""

from . import composite, geometry, ledger, metrics, patterns
from .capture import Capture, capture
from .effect_matrices import RescueTable, ablation_matrix, mixer_matrix, rescue_matrix
from .effects import EffectTable, effects, output_change
from .hooks import Hook, hook_names, hooks
from .interventions import Ablate, Replace, Rescue, intervene
from .quantities import QUANTITIES, Quantity, quantity
from .trace import Trace, trace

__all__ = [
    "QUANTITIES",
    "Ablate",
    "Capture",
    "EffectTable",
    "Hook",
    "Quantity",
    "Replace",
    "Rescue",
    "RescueTable",
    "Trace",
    "ablation_matrix",
    "capture",
    "composite",
    "effects",
    "geometry",
    "hook_names",
    "hooks",
    "intervene",
    "ledger",
    "metrics",
    "mixer_matrix",
    "output_change",
    "patterns",
    "quantity",
    "rescue_matrix",
    "trace",
]
