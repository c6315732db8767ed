"""The settings of ``coefficients`` as the numbers that the raw ops take.

Read by ``csrc/torch/coefficient_settings.h``:

``settings``:  ``[per_stream, read kind, read form, write kind, write form, mix kind, mix form,
n_groups, group sizes..., the map's own integers...]``

``constants``: ``[read factor, offset, write factor, offset, mix factor, offset, the map's own...]``
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from ..mixers import Mixer
from .settings import MIX_ACTIVATION, READ_ACTIVATION, WRITE_ACTIVATION, Activation

MAPS = {
    "identity": 0,
    "free": 1,
    "sinkhorn": 2,
    "permutation": 3,
    "kronecker": 4,
    "spectral": 5,
    "circulant": 6,
}
"""Numbers of the maps that the kernels know, by ``Mixer.fused_map``."""

_KINDS = {"none": 0, "sigmoid": 1, "tanh": 2}
_FORMS = {"inside": 0, "outside": 1}
_MAX_GROUPS = 16


class CoefficientSettings(NamedTuple):
    """The last four arguments of ``_coefficients`` and ``_coefficients_backward``."""

    n_streams: int
    map: int
    settings: tuple[int, ...]
    constants: tuple[float, ...]


@lru_cache(maxsize=256)
def coefficient_settings(
    mixer: Mixer,
    n_streams: int,
    read_activation: Activation = READ_ACTIVATION,
    write_activation: Activation = WRITE_ACTIVATION,
    mix_activation: Activation = MIX_ACTIVATION,
    per_stream: bool = False,
) -> CoefficientSettings | None:
    """The encoded settings, or None when no kernel computes this mixer."""
    sizes = mixer.group_sizes(n_streams)
    fused_map = mixer.fused_map_for(n_streams)
    static = mixer.static_logit_count(n_streams)
    activations = (read_activation, write_activation, mix_activation)
    if fused_map not in MAPS or len(sizes) > _MAX_GROUPS or static:
        return None
    if any(activation.is_softmax for activation in activations):
        return None
    map_integers, map_floats = mixer.fused_settings(n_streams)
    settings = (
        int(per_stream),
        *(code for a in activations for code in (_KINDS[a.kind], _FORMS[a.form])),
        len(sizes),
        *sizes,
        *map_integers,
    )
    constants = (*(value for a in activations for value in (a.factor, a.offset)), *map_floats)
    return CoefficientSettings(n_streams, MAPS[fused_map], settings, constants)


def coefficients_are_fused(
    mixer: Mixer,
    n_streams: int,
    read_activation: Activation = READ_ACTIVATION,
    write_activation: Activation = WRITE_ACTIVATION,
    mix_activation: Activation = MIX_ACTIVATION,
    per_stream: bool = False,
) -> bool:
    """Whether the kernels of ``coefficients`` compute these settings; else PyTorch does."""
    encoded = coefficient_settings(
        mixer, n_streams, read_activation, write_activation, mix_activation, per_stream
    )
    return encoded is not None
