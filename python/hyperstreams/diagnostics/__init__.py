"""Diagnostics of multi-stream models.

- ``metrics``: pure functions of coefficients and states;
- ``live``: hooks, traces, captures and the probe, which look into a model while it runs;
- ``causal``: interventions, their effects, the collapse to fewer streams;
- ``crosscoder``: sparse crosscoders on stream states;
- ``registry``: every metric with its formula, initial value, null and source.
"""

from . import metrics
from .causal.compression import Compression, collapse_streams
from .causal.effect_matrices import RescueTable, ablation_matrix, mixer_matrix, rescue_matrix
from .causal.effects import EffectTable, effects, output_change
from .causal.interventions import Ablate, Replace, Rescue, intervene
from .live import gradients
from .live.alarm import Alarm, collapse_alarm
from .live.capture import Capture, capture
from .live.hooks import Hook, hook_names, hooks
from .live.initial import InitialCoefficients, initial_coefficients
from .live.logits import LogitParts, SiteLogits, site_logits
from .live.moments import Moments
from .live.probe import Probe, summarize
from .live.quantities import QUANTITIES, Quantity, quantity
from .live.readout import model_parts
from .live.sinks import DictSink, JsonlSink, TensorBoardSink, WandbSink
from .live.trace import Trace, trace
from .metrics import (
    activations,
    alignment,
    composite,
    decodability,
    geometry,
    ledger,
    lens,
    patterns,
    similarity,
    variation,
)
from .metrics.collapse import Collapse, Measured, collapse_report, collapse_rows
from .registry import METRICS, Metric

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
