"""Initial values and what breaks the symmetry between streams. Pure functions and data.

Random values come from the given ``torch.Generator`` (None is PyTorch's default generator) and are
drawn in float32 on the generator's device, so that one CPU generator gives the same model on every
device and in every dtype.
"""

from .designation import DESIGNATION_SCHEMES, designated_stream, stream_bias
from .expansion import (
    EXPANSION_SCHEMES,
    ExpansionScheme,
    learned_stream_scale,
    orthogonal_scale,
    random_sign_scale,
)
from .random import normal, xavier_uniform

__all__ = [
    "DESIGNATION_SCHEMES",
    "EXPANSION_SCHEMES",
    "ExpansionScheme",
    "designated_stream",
    "learned_stream_scale",
    "normal",
    "orthogonal_scale",
    "random_sign_scale",
    "stream_bias",
    "xavier_uniform",
]
