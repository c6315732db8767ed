"""Settings of ``coefficients``, checked and encoded once instead of in every call."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch

from ..mixers import Mixer
from ._coefficient_settings import CoefficientSettings, coefficient_settings
from ._register import graph_constant
from ._validate import CoefficientShapes, check_coefficient_settings
from .settings import Activation

Prepared = tuple[CoefficientShapes, CoefficientSettings | None]


def _prepare(
    mixer: Mixer,
    n_streams: int,
    read_activation: Activation,
    write_activation: Activation,
    mix_activation: Activation,
    per_stream: bool,
) -> Prepared:
    activations = (read_activation, write_activation, mix_activation)
    shapes = check_coefficient_settings("coefficients", n_streams, mixer, activations, per_stream)
    return shapes, coefficient_settings.__wrapped__(mixer, n_streams, *activations, per_stream)


# Typed: True equals 1 and is no number of streams.
_prepare_once = lru_cache(maxsize=256, typed=True)(_prepare)


def prepare(*settings: Any) -> Prepared:
    """The shapes that the settings ask for, and the last arguments of the raw ops.

    Both are constants within a compiled graph.
    """
    if not torch.compiler.is_compiling():
        return _prepare_once(*settings)
    shapes, encoded = _prepare(*settings)  # the compiler warns of caches
    if encoded is None:
        return shapes, None
    return shapes, encoded._replace(constants=tuple(graph_constant(v) for v in encoded.constants))
