"""Diagnostics of multi-stream models: capture, hook points, pure metrics, named quantities,
interventions."""

from . import (
    activations,
    alignment,
    composite,
    decodability,
    geometry,
    gradients,
    ledger,
    lens,
    metrics,
    patterns,
    similarity,
    variation,
)
from .alarm import Alarm, collapse_alarm
from .capture import Capture, capture
from .collapse import Collapse, Measured, collapse_report, collapse_rows
from .compression import Compression, collapse_streams
from .effect_matrices import RescueTable, ablation_matrix, mixer_matrix, rescue_matrix
from .effects import EffectTable, effects, output_change
from .hooks import Hook, hook_names, hooks
from .initial import InitialCoefficients, initial_coefficients
from .interventions import Ablate, Replace, Rescue, intervene
from .logits import LogitParts, SiteLogits, site_logits
from .moments import Moments
from .probe import Probe, summarize
from .quantities import QUANTITIES, Quantity, quantity
from .readout import model_parts
from .registry import METRICS, Metric
from .sinks import DictSink, JsonlSink, TensorBoardSink, WandbSink
from .trace import Trace, trace

__all__ = [
    "METRICS",
    "QUANTITIES",
    "Ablate",
    "Alarm",
    "Capture",
    "Collapse",
    "Compression",
    "DictSink",
    "EffectTable",
    "Hook",
    "InitialCoefficients",
    "JsonlSink",
    "LogitParts",
    "Measured",
    "Metric",
    "Moments",
    "Probe",
    "Quantity",
    "Replace",
    "Rescue",
    "RescueTable",
    "SiteLogits",
    "TensorBoardSink",
    "Trace",
    "WandbSink",
    "ablation_matrix",
    "activations",
    "alignment",
    "capture",
    "collapse_alarm",
    "collapse_report",
    "collapse_rows",
    "collapse_streams",
    "composite",
    "decodability",
    "effects",
    "geometry",
    "gradients",
    "hook_names",
    "hooks",
    "initial_coefficients",
    "intervene",
    "ledger",
    "lens",
    "metrics",
    "mixer_matrix",
    "model_parts",
    "output_change",
    "patterns",
    "quantity",
    "rescue_matrix",
    "similarity",
    "site_logits",
    "summarize",
    "trace",
    "variation",
]
